r"""NovoGrad: a second moment for each leaf instead of each parameter.

$$
\begin{aligned}
v_t &= \beta_2 v_{t-1} + (1-\beta_2) \lVert g_t \rVert^2, \qquad v_1 = \lVert g_1 \rVert^2 \\
m_t &= \beta_1 m_{t-1} + g_t / (\sqrt{v_t + \epsilon_\text{root}} + \epsilon) + \lambda\, \theta_{t-1} \\
\theta_t &= \theta_{t-1} - \eta\, m_t
\end{aligned}
$$

with the slots $m$ (`mu`) and $v$ (`nu`, one number a leaf).

References:
    - Ginsburg et al., "Stochastic gradient methods with layer-wise adaptive moments for training of deep networks",
      https://arxiv.org/abs/1905.11286, 2019, Algorithm 1.
"""

import jax.numpy as jnp

from jgd.core import (
    Array,
    Hyper,
    LayoutLike,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    abs_sq,
    lift,
    real_zero,
    zeros,
)


def novograd_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """NovoGrad, on one leaf."""
    is_first = step == 1
    square = jnp.sum(abs_sq(grad))
    nu = jnp.where(is_first, square, hyper["b2"] * slots["nu"] + hyper["1-b2"] * square)
    denominator = jnp.sqrt(nu + hyper["eps_root"]) + hyper["eps"]
    scaled = grad / jnp.where(denominator > 0, denominator, 1) + hyper["weight_decay"] * param
    mu = hyper["b1"] * slots["mu"] + scaled
    return -hyper["learning_rate"] * mu, {"mu": mu, "nu": nu}


SLOTS = {"mu": zeros, "nu": real_zero}
NOVOGRAD = Rule(novograd_update, slots=SLOTS, kind="leaf", needs_params=True, nonnegative=("nu",))


def novograd(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.25,
    eps: ScalarOrSchedule = 1e-6,
    eps_root: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """NovoGrad: gradients normalized leaf by leaf, with momentum.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: The norm of one leaf's step without momentum, about; at least 0.
        b1: Decay rate of the sum of normalized gradients, in [0, 1).
        b2: Decay rate of the average of squared gradient norms, in [0, 1).
        eps: Added to the root of that average, at least 0.
        eps_root: Added under the root, at least 0.
        weight_decay: How much of each parameter is added to its normalized gradient, at least 0.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules, with the slots `mu`, one number a
        parameter, and `nu`, one a leaf.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, or `update` is called without
            params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.novograd(1.0)
        >>> updates, state = optimizer.update(jnp.array([3.0, 4.0]), optimizer.init(jnp.zeros(2)), jnp.zeros(2))
        >>> print(updates.round(1))
        [-0.6 -0.8]
    """
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    hyperparams |= {"weight_decay": weight_decay}
    return lift(NOVOGRAD, hyperparams, name="novograd", state_dtype=state_dtype, layout=layout)
