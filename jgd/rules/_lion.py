r"""Lion: steps of one size in every parameter, along the sign of an interpolated momentum.

$$
\begin{aligned}
c_t &= \beta_1 m_{t-1} + (1-\beta_1)\, g_t \\
\theta_t &= \theta_{t-1} - \eta\, (\operatorname{sign}(c_t) + \lambda\, \theta_{t-1}) \\
m_t &= \beta_2 m_{t-1} + (1-\beta_2)\, g_t
\end{aligned}
$$

with the slot $m$ (`mu`). The sign of zero is zero. Optax's default for $\lambda$, and so ours, is 1e-3; the
authors' package has 0.

References:
    - Chen et al., "Symbolic discovery of optimization algorithms", https://arxiv.org/abs/2302.06675, 2023,
      Algorithm 2.
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
    SlotDtype,
    Slots,
    StateDtype,
    zeros,
)
from jgd.rules.parts._weight_decay import DecayForm, lift_decayed


def lion_rule(decays: bool) -> Rule:
    """The rule, with weight decay or without."""

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del step
        mu = slots["mu"]
        direction = jnp.sign(hyper["b1"] * mu + hyper["1-b1"] * grad)
        if decays:
            direction = direction + hyper["weight_decay"] * param
        return -hyper["learning_rate"] * direction, {"mu": hyper["b2"] * mu + hyper["1-b2"] * grad}

    # A complex number has no sign.
    return Rule(update, slots={"mu": zeros}, needs_params=decays, supports_complex=False)


LION, DECAYING_LION = lion_rule(False), lion_rule(True)


def lion(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.99,
    mu_dtype: SlotDtype | None = "auto",
    weight_decay: ScalarOrSchedule = 1e-3,
    mask: Mask = None,
    *,
    decay_form: DecayForm = "scaled",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Lion: evolved sign momentum.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: The size of a step in each parameter, at least 0; three to ten times smaller than for AdamW.
        b1: Weight of the momentum against the gradient in the direction, in [0, 1).
        b2: Decay rate of the momentum, in [0, 1).
        weight_decay: The share of each parameter, times the learning rate, that a step takes away; at least 0, and
            three to ten times that of AdamW.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `b1`, `b2`, `weight_decay`, and the slot `mu`,
        one number a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, a leaf is complex, the mask
            does not fit the params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.array([1.0, 1.0])
        >>> optimizer = jgd.lion(0.1, weight_decay=0.5)
        >>> updates, state = optimizer.update(jnp.array([3.0, -0.002]), optimizer.init(params), params)
        >>> print(updates.round(3))
        [-0.15  0.05]
    """
    return lift_decayed(
        LION,
        {"learning_rate": learning_rate, "b1": b1, "b2": b2},
        weight_decay,
        mask,
        decay_form,
        name="lion",
        scaled=DECAYING_LION,
        slot_dtypes={"mu": mu_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )
