r"""ADOPT: Adam that divides by the second moment of the step before, and so converges for every $\beta_2$.

$$
\begin{aligned}
u_t &= \operatorname{clip}\bigl( g_t / \max(\sqrt{v_{t-1}}, \epsilon),\ \pm c(t-1) \bigr), \qquad
m_t = \beta_1 m_{t-1} + (1-\beta_1)\, u_t \\
\theta_t &= \theta_{t-1} - \eta\, m_t, \qquad v_t = \beta_2 v_{t-1} + (1-\beta_2)\, |g_t|^2
\end{aligned}
$$

with the slots $m$ (`mu`) and $v$ (`nu`), and $c(k) = k^{1/4}$ by default. The first step changes no param: it
only sets $v_1 = |g_1|^2$.

References:
    - Taniguchi et al., "ADOPT: Modified Adam can converge with any beta2 with the optimal rate",
      https://arxiv.org/abs/2411.02853, 2024, Algorithm 2.
"""

from collections.abc import Callable

import jax.numpy as jnp

from jgd.core import (
    Array,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    Schedule,
    SlotDtype,
    Slots,
    StateDtype,
    abs_sq,
    check_kind,
)
from jgd.rules.parts._moments import MOMENT_SLOTS
from jgd.rules.parts._weight_decay import DecayForm, lift_decayed


def fourth_root(count: Array) -> Array:
    """The bound of the paper: it grows, so that clipping ends."""
    return count**0.25


def adopt_rule(nesterov: bool, bound: Callable[[Array], Array] | None) -> Rule:
    """The rule, with Nesterov momentum or without, the directions clipped or not."""

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del param
        is_first = step == 1
        root = jnp.maximum(jnp.sqrt(slots["nu"]), hyper["eps"])
        direction = grad / jnp.where(root > 0, root, 1)
        if bound is not None:
            clip_value = bound((step - 1).astype(root.dtype))
            check_kind("adopt", "what clip_value_fn returns", clip_value, float)
            # A complex direction is cut in its length.
            direction = direction * jnp.minimum(1, clip_value / jnp.maximum(jnp.abs(direction), 1e-30))
        direction = jnp.where(is_first, 0, direction)
        mu = hyper["b1"] * slots["mu"] + hyper["1-b1"] * direction
        nu = jnp.where(is_first, abs_sq(grad), hyper["b2"] * slots["nu"] + hyper["1-b2"] * abs_sq(grad))
        ahead = hyper["b1"] * mu + hyper["1-b1"] * direction if nesterov else mu
        return -hyper["learning_rate"] * ahead, {"mu": mu, "nu": nu}

    return Rule(update, slots=MOMENT_SLOTS, nonnegative=("nu",))


def adopt(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.9999,
    eps: ScalarOrSchedule = 1e-6,
    mu_dtype: SlotDtype | None = "auto",
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Schedule = fourth_root,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    decay_form: DecayForm = "scaled",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """ADOPT: adaptive gradients with the optimal rate.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: About the size of a step in each parameter, at least 0.
        b1: Decay rate of the average of directions, in [0, 1).
        b2: Decay rate of the second moment, in [0, 1).
        eps: The smallest root of the second moment to divide by, at least 0.
        nesterov: Whether to use Nesterov momentum.
        use_clipping: Whether to bound each entry of a direction.
        clip_value_fn: The bound, a function of the number of updates made.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules, with the slots `mu`, `nu`, two
        numbers a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, or the mask does not fit.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.adopt(0.1)
        >>> state = optimizer.init(jnp.zeros(1))
        >>> for _ in range(2):
        ...     updates, state = optimizer.update(jnp.array([3.0]), state, jnp.zeros(1))
        >>> print(updates.round(3))
        [-0.01]
    """
    if not callable(clip_value_fn):
        raise TypeError(
            f"adopt: clip_value_fn must be a function; got {clip_value_fn!r}. optax.inject_hyperparams takes it for a"
            " schedule unless it is told otherwise: static_args=('clip_value_fn',)."
        )
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps}
    return lift_decayed(
        adopt_rule(nesterov, clip_value_fn if use_clipping else None),
        hyperparams,
        weight_decay,
        mask,
        decay_form,
        name="adopt",
        slot_dtypes={"mu": mu_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )
