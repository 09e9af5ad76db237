r"""FTRL-Proximal: follow the regularized leader, which sets small weights to exactly zero.

$$
\begin{aligned}
n_t &= n_{t-1} + g_t^2, \qquad \kappa_t = (n_t^{-p} + \beta) / \eta_t \\
z_t &= z_{t-1} + g_t + 2 \lambda_s\, \theta_{t-1} - (\kappa_t - \kappa_{t-1})\, \theta_{t-1} \\
\theta_t &= \frac{\operatorname{clip}(z_t, -\lambda_1, \lambda_1) - z_t}{\kappa_t + 2 \lambda_2}
\end{aligned}
$$

with the slots $n$ (`sum_of_squares`), which starts at `initial_accumulator_value`, and
$z_t + \kappa_t \theta_t$ (`linear`), which stays finite for any rate; $p$ is
`learning_rate_power`, $\beta$ is `offset`. The form is that of Keras and TensorFlow, in which $\lambda_2$ counts twice
as much as in the paper; but there $\eta_t$ stands in $\kappa_{t-1}$ too, so that params shrink with a falling rate.

The params that one starts from are forgotten at the first step, $\kappa_0 = (n_0^{-p} + \beta) / \eta_1$ and
$z_0 = 0$, unless its rate is zero. Start from zero.

References:
    - McMahan et al., "Ad click prediction: A view from the trenches", KDD 2013,
      https://doi.org/10.1145/2487575.2488200, Algorithm 1.
"""

import math

import jax.numpy as jnp

from jgd.core import (
    NOT_NEGATIVE,
    Array,
    Hyper,
    LayoutLike,
    Optimizer,
    Range,
    Rule,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    full,
    lift,
    zeros,
)


def ftrl_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """One step of the leader, on one leaf. Here `z` and `kappa` are multiplied by the rate, which may be zero."""
    power, rate, l2 = -hyper["learning_rate_power"], hyper["learning_rate"], 2 * hyper["l2"]
    rate_is_positive = rate > 0
    divisor = jnp.where(rate_is_positive, rate, 1)
    sum_sq = slots["sum_of_squares"] + grad**2
    kappa, kappa_before = (n**power + hyper["offset"] for n in (sum_sq, slots["sum_of_squares"]))
    linear = jnp.where((step == 1) & rate_is_positive, kappa_before * param / divisor, slots["linear"])
    linear = linear + grad + 2 * hyper["l2_shrinkage"] * param
    z, bound, curvature = rate * linear - kappa * param, rate * hyper["l1"], kappa + rate * l2
    clipped = jnp.clip(z, -bound, bound)
    # without any gradient so far and without regularization every point is a leader
    curved = curvature > 0
    delta = jnp.where(curved, (clipped - rate * (linear + l2 * param)) / jnp.where(curved, curvature, 1), 0)
    delta = jnp.where(curved & (clipped == z), -param, delta)
    linear = jnp.where(rate_is_positive, clipped / divisor - l2 * (param + delta), slots["linear"])
    return delta, {"sum_of_squares": sum_sq, "linear": linear}


def ftrl(
    learning_rate: ScalarOrSchedule,
    learning_rate_power: ScalarOrSchedule = -0.5,
    initial_accumulator_value: float = 0.1,
    l1: ScalarOrSchedule = 0.0,
    l2: ScalarOrSchedule = 0.0,
    l2_shrinkage: ScalarOrSchedule = 0.0,
    offset: ScalarOrSchedule = 0.0,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """FTRL-Proximal, for sparse linear models.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: The size of the first step in each parameter, about; at least 0.
        learning_rate_power: With which power of the sum of squares the step falls; zero for a constant rate, at most 0.
        initial_accumulator_value: Where the sum of squares starts; at least 0.
        l1: Weight of the absolute values in the objective; what makes zeros. At least 0.
        l2: Weight of the squares in the objective, at least 0. It is fixed to the origin of the params.
        l2_shrinkage: Weight of the squares in the loss, at least 0: twice this times the params joins the gradient.
        offset: Added to the power of the sum of squares, at least 0; the paper's `beta`, there one.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules, with the slots `sum_of_squares` and
        `linear`, two numbers a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, a leaf is complex, or
            `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.zeros(2)
        >>> optimizer = jgd.ftrl(0.1, l1=1.0)
        >>> updates, state = optimizer.update(jnp.array([3.0, -0.5]), optimizer.init(params), params)
        >>> print(jgd.apply_updates(params, updates).round(3))  # the second gradient is below l1
        [-0.066  0.   ]
    """
    # Soft thresholding needs a sign, which a complex number does not have.
    slots = {"sum_of_squares": full(initial_accumulator_value), "linear": zeros}
    not_negative = dict.fromkeys(("l1", "l2", "l2_shrinkage", "offset"), NOT_NEGATIVE)
    return lift(
        # Each step computes the params from the slots: an error in the slots is one in the params.
        Rule(ftrl_update, slots=slots, needs_params=True, supports_complex=False, exact=tuple(slots)),
        {
            "learning_rate": learning_rate,
            "learning_rate_power": learning_rate_power,
            "l1": l1,
            "l2": l2,
            "l2_shrinkage": l2_shrinkage,
            "offset": offset,
        },
        name="ftrl",
        ranges=not_negative | {"learning_rate_power": Range(low=-math.inf, high=0.0, high_allowed=True)},
        state_dtype=state_dtype,
        layout=layout,
    )
