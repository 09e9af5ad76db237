r"""AdaDelta: steps in the units of the parameters.

$$
\begin{aligned}
E_t &= \rho E_{t-1} + (1-\rho)\, g_t^2 \\
u_t &= g_t \sqrt{D_{t-1} + \epsilon} / \sqrt{E_t + \epsilon}, \qquad D_t = \rho D_{t-1} + (1-\rho)\, u_t^2 \\
\theta_t &= \theta_{t-1} - \eta\, u_t
\end{aligned}
$$

with the slots $E$ (`e_g`) and $D$ (`e_x`). Weight decay is coupled: it is added to the gradient. Without a learning
rate $\eta = 1$, as in the paper; optax 0.2.8 then climbs instead of descending.

References:
    - Zeiler, "ADADELTA: An adaptive learning rate method", https://arxiv.org/abs/1212.5701, 2012, Algorithm 1.
"""

import jax.numpy as jnp

from jgd.core import (
    POSITIVE,
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
    real_zeros,
)
from jgd.rules.parts._weight_decay import lift_decayed


def adadelta_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """AdaDelta, on one leaf."""
    del param, step
    rho, rest, eps = hyper["rho"], hyper["1-rho"], hyper["eps"]
    e_g = rho * slots["e_g"] + rest * abs_sq(grad)
    u = grad * (jnp.sqrt(slots["e_x"] + eps) / jnp.sqrt(e_g + eps))
    return -hyper["learning_rate"] * u, {"e_g": e_g, "e_x": rho * slots["e_x"] + rest * abs_sq(u)}


ADADELTA = Rule(adadelta_update, slots={"e_g": real_zeros, "e_x": real_zeros}, nonnegative=("e_g", "e_x"))


def adadelta(
    learning_rate: ScalarOrSchedule | None = None,
    rho: ScalarOrSchedule = 0.9,
    eps: ScalarOrSchedule = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """AdaDelta.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: A factor on the steps, at least 0; None for one.
        rho: Decay rate of both averages, in [0, 1).
        eps: Added under both roots, above 0: the first steps are about its root in size.
        weight_decay: How much of each parameter is added to its gradient, at least 0.
        weight_decay_mask: Which leaves decay; as `mask` of `jgd.adamw`.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `rho`, `eps`, `weight_decay`, and the slots `e_g`, `e_x`,
        two numbers a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, the mask does not fit the
            params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.adadelta(1.0)
        >>> updates, state = optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)), jnp.zeros(1))
        >>> print(updates.round(5))
        [-0.00316]
    """
    return lift_decayed(
        ADADELTA,
        {"learning_rate": 1.0 if learning_rate is None else learning_rate, "rho": rho, "eps": eps},
        weight_decay,
        weight_decay_mask,
        "coupled",
        name="adadelta",
        ranges={"eps": POSITIVE},
        state_dtype=state_dtype,
        layout=layout,
    )
