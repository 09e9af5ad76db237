r"""ACProp: AdaBelief's second moment, one step late.

$$
\begin{aligned}
s_t &= \beta_2 s_{t-1} + (1-\beta_2)\, |g_t - m_{t-1}|^2 + \epsilon_\text{root}, \qquad
m_t = \beta_1 m_{t-1} + (1-\beta_1)\, g_t \\
\theta_t &= \theta_{t-1} - \eta\, \bigl( g_t / (\sqrt{\hat s_{t-1}} + \epsilon) + \lambda\, \theta_{t-1} \bigr)
\end{aligned}
$$

with the slots $m$ (`mu`) and $s$ (`nu`), and $\hat s_0 = 1$. The gradient and what it is divided by are of different
steps ("asynchronous"), and the second moment is centered. Where no gradient has come yet, optax divides by about
`eps`; here such an entry does not move.

References:
    - Zhuang et al., "Momentum centering and asynchronous update for adaptive gradient methods",
      https://arxiv.org/abs/2110.05454, 2021, Algorithm 3.
"""

import jax.numpy as jnp

from jgd.core import (
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
)
from jgd.rules.parts._moments import MOMENT_SLOTS
from jgd.rules.parts._weight_decay import DecayForm, lift_decayed


def acprop_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """ACProp, on one leaf."""
    del param
    mu = hyper["b1"] * slots["mu"] + hyper["1-b1"] * grad
    nu = hyper["b2"] * slots["nu"] + hyper["1-b2"] * abs_sq(grad - slots["mu"]) + hyper["eps_root"]
    last_nu_hat = jnp.where(step == 1, 1, slots["nu"] * hyper["nu_scale"])
    denominator = jnp.sqrt(last_nu_hat) + hyper["eps"]
    return -hyper["learning_rate"] * grad / jnp.where(denominator > 0, denominator, 1), {"mu": mu, "nu": nu}


def prepare(hyper: Hyper, step: Array) -> Hyper:
    """Adds the bias correction of the last step's second moment."""
    return hyper | {"nu_scale": 1 / debias(hyper["1-b2"], jnp.maximum(step - 1, 1))}


ACPROP = Rule(acprop_update, slots=MOMENT_SLOTS, prepare=prepare, nonnegative=("nu",))


def acprop(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-16,
    eps_root: ScalarOrSchedule = 1e-16,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    decay_form: DecayForm = "scaled",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """ACProp: asynchronous, centered second-moment scaling.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: About the size of a step in each parameter where gradients are as expected; at least 0.
        b1: Decay rate of the average that gradients are expected to follow, in [0, 1).
        b2: Decay rate of the second moment, in [0, 1).
        eps: Added to the root of the second moment, at least 0.
        eps_root: Added to the second moment at every step, at least 0.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules, with the slots `mu`, `nu`, two
        numbers a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, the mask does not fit the
            params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.acprop(0.1)
        >>> state = optimizer.init(jnp.zeros(1))
        >>> for _ in range(2):
        ...     updates, state = optimizer.update(jnp.array([3.0]), state, jnp.zeros(1))
        >>> print(updates.round(3))
        [-0.1]
    """
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    return lift_decayed(
        ACPROP, hyperparams, weight_decay, mask, decay_form, name="acprop", state_dtype=state_dtype, layout=layout
    )
