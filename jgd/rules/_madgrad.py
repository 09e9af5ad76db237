r"""MADGRAD: momentum and dual averaging, with the cube root of AdaGrad's sum.

$$
\begin{aligned}
\lambda_t &= (\eta + \epsilon) \sqrt{t}, \qquad \nu_t = \nu_{t-1} + \lambda_t\, g_t^2, \qquad
s_t = s_{t-1} + \lambda_t\, g_t \\
z_t &= \theta_0 - s_t / (\sqrt[3]{\nu_t} + \epsilon), \qquad
\theta_t = \mu\, \theta_{t-1} + (1-\mu)\, z_t
\end{aligned}
$$

with the slots `grad_sum_sq` ($\nu$), `s` and `x0` ($\theta_0$). Weight decay is coupled, and best left at zero.

References:
    - Defazio and Jelassi, "Adaptivity without compromise: A momentumized, adaptive, dual averaged gradient method",
      https://arxiv.org/abs/2101.11075, 2021, Algorithm 1.
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
    real_zeros,
    zeros,
)
from jgd.rules.parts._slots import initial_param
from jgd.rules.parts._weight_decay import lift_decayed


def madgrad_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """MADGRAD, on one leaf."""
    del step
    grad_sum_sq = slots["grad_sum_sq"] + hyper["weight"] * abs_sq(grad)
    s = slots["s"] + hyper["weight"] * grad
    sigma = jnp.cbrt(grad_sum_sq) + hyper["eps"]
    z = slots["x0"] - s / jnp.where(sigma > 0, sigma, 1)
    return hyper["1-momentum"] * (z - param), {"grad_sum_sq": grad_sum_sq, "s": s, "x0": slots["x0"]}


def prepare(hyper: Hyper, step: Array) -> Hyper:
    """The weight of this gradient in both sums."""
    return hyper | {"weight": (hyper["learning_rate"] + hyper["eps"]) * jnp.sqrt(step.astype(hyper["eps"].dtype))}


SLOTS = {"grad_sum_sq": real_zeros, "s": zeros, "x0": initial_param}
# Each step computes the params from the slots: an error in the slots is one in the params.
MADGRAD = Rule(madgrad_update, slots=SLOTS, needs_params=True, prepare=prepare, exact=tuple(SLOTS))


def madgrad(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    eps: ScalarOrSchedule = 1e-6,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """MADGRAD: momentumized, adaptive, dual averaged gradient.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: The weight of a gradient, at least 0; often ten times that of Adam.
        momentum: The share of the last params that the new ones keep, in [0, 1).
        weight_decay: How much of each parameter is added to its gradient, at least 0.
        eps: Added to the learning rate and to the cube root, at least 0.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules, with the slots `grad_sum_sq`, `s`,
        `x0`, three numbers a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, or `update` is called without
            params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.madgrad(0.1)
        >>> updates, state = optimizer.update(jnp.array([1.0]), optimizer.init(jnp.zeros(1)), jnp.zeros(1))
        >>> print(updates.round(4))
        [-0.0215]
    """
    hyperparams = {"learning_rate": learning_rate, "momentum": momentum, "eps": eps}
    return lift_decayed(
        MADGRAD, hyperparams, weight_decay, None, "coupled", name="madgrad", state_dtype=state_dtype, layout=layout
    )
