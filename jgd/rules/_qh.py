r"""QHM and QHAdam: quasi-hyperbolic momentum, a mix of the gradient and its average.

$$
\begin{aligned}
m_t &= \beta m_{t-1} + (1-\beta)\, g_t, \qquad
\theta_t = \theta_{t-1} - \eta\, \bigl(\nu\, m_t + (1-\nu)\, g_t\bigr) \\
\theta_t &= \theta_{t-1} - \eta\, \frac{\nu_1 \hat m_t + (1-\nu_1)\, g_t}
                                       {\sqrt{\nu_2 \hat v_t + (1-\nu_2)\, |g_t|^2} + \epsilon}
\end{aligned}
$$

with the slots $m$ (`mu`) and $v$ (`nu`), and $\hat m$, $\hat v$ of `jgd.adam`. The average of QHM is not corrected for
its start at zero. Gradients enter with weight $1-\beta$: momentum of `jgd.sgd` with the learning rate $\eta$
is $\nu = 1$ with $\eta / (1-\beta)$. By default the decay is added to the gradient, as in the authors' code; their
other form is `decay_form="scaled"` here.

References:
    - Ma and Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", https://arxiv.org/abs/1810.06801, 2018,
      Algorithms 1 and 2.
"""

import jax.numpy as jnp

from jgd.core import (
    NOT_NEGATIVE,
    Array,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    abs_sq,
    debias,
    zeros,
)
from jgd.rules.parts._moments import MOMENT_SLOTS, moments
from jgd.rules.parts._weight_decay import DecayForm, lift_decayed


def qhm_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """Quasi-hyperbolic momentum, on one leaf."""
    del param, step
    mu = hyper["momentum"] * slots["mu"] + hyper["1-momentum"] * grad
    return -hyper["learning_rate"] * (hyper["nu"] * mu + (1 - hyper["nu"]) * grad), {"mu": mu}


def qhadam_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """Adam with quasi-hyperbolic moments, on one leaf."""
    del param, step
    mu, nu = moments(grad, slots, hyper)
    mean = hyper["mu_scale"] * mu + (1 - hyper["nu1"]) * grad
    plain = 1 - hyper["nu2"]
    square = hyper["nu_scale"] * nu + jnp.where(plain == 0, 0, plain * abs_sq(grad))  # 0 * inf is NaN
    return -hyper["learning_rate"] * mean / (jnp.sqrt(square) + hyper["eps"]), {"mu": mu, "nu": nu}


def _scales(hyper: Hyper, step: Array) -> Hyper:
    return hyper | {
        "mu_scale": hyper["nu1"] / debias(hyper["1-b1"], step),
        "nu_scale": hyper["nu2"] / debias(hyper["1-b2"], step),
    }


QHM = Rule(qhm_update, slots={"mu": zeros})
QHADAM = Rule(qhadam_update, slots=MOMENT_SLOTS, prepare=_scales, nonnegative=("nu",))


def qhm(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule = 0.999,
    nu: ScalarOrSchedule = 0.7,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    decay_form: DecayForm = "coupled",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Quasi-hyperbolic momentum.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: Length of a step per unit of gradient, at least 0.
        momentum: Decay rate of the average of gradients, in [0, 1).
        nu: Weight of the average against the gradient: zero for plain descent, one for momentum, `momentum` for
            Nesterov's. The paper's rule of thumb is 0.7 with a momentum of 0.999.
        weight_decay: How much of each parameter is added to its gradient, at least 0.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `momentum`, `nu`, `weight_decay`, and the slot `mu`, one
        number a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, the mask does not fit the
            params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.zeros(1)
        >>> optimizer = jgd.qhm(0.1, momentum=0.9, nu=0.5)
        >>> updates, state = optimizer.update(jnp.ones(1), optimizer.init(params), params)
        >>> print(updates.round(3))
        [-0.055]
    """
    hyperparams = {"learning_rate": learning_rate, "momentum": momentum, "nu": nu}
    more = {"state_dtype": state_dtype, "layout": layout}
    return lift_decayed(QHM, hyperparams, weight_decay, mask, decay_form, name="qhm", **more)


def qhadam(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    nu1: ScalarOrSchedule = 1.0,
    nu2: ScalarOrSchedule = 1.0,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    decay_form: DecayForm = "coupled",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Adam with quasi-hyperbolic moments: the mixture of `jgd.qhm` in numerator and denominator.

    With `nu1=nu2=1`, the defaults, it is Adam. The authors advise `nu1=0.7, b1=0.995` or `nu1=0.8, b1=0.99`.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: About the size of a step in each parameter, at least 0.
        nu1: Weight of the first moment against the gradient, in [0, 1].
        nu2: Weight of the second moment against the squared gradient, in [0, 1].
        weight_decay: How much of each parameter is added to its gradient, at least 0.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules, with the slots `mu`, `nu`, two
        numbers a parameter.

    Raises:
        TypeError, ValueError: As for `jgd.qhm`.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.zeros(2)
        >>> optimizer = jgd.qhadam(0.1, nu1=0.7)
        >>> updates, state = optimizer.update(jnp.array([3.0, -0.002]), optimizer.init(params), params)
        >>> print(updates.round(3))
        [-0.1  0.1]
    """
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "nu1": nu1, "nu2": nu2, "eps": eps}
    more = {"ranges": {"nu2": NOT_NEGATIVE}, "state_dtype": state_dtype, "layout": layout}
    return lift_decayed(QHADAM, hyperparams, weight_decay, mask, decay_form, name="qhadam", **more)
