r"""Polyak's step: as long as the gap between the loss and its least value allows.

$$
\eta_t = \min\Bigl( \eta_\text{max},\ \frac{f(\theta_{t-1}) - f_\text{min}}{\lVert g_t \rVert^2 + \epsilon} \Bigr),
\qquad \theta_t = \theta_{t-1} - s\, \eta_t\, g_t
$$

with the norm over all leaves. The variant `"sps+"` takes no step where the loss is below $f_\text{min}$; `"sps"` then
climbs. Where the gradient vanishes, so does the step. As in optax the norm is that of $s\, g_t$.

References:
    - Loizou et al., "Stochastic Polyak step-size for SGD: An adaptive learning rate for fast convergence",
      https://arxiv.org/abs/2002.10542, 2020; Garrigos et al., https://arxiv.org/abs/2307.14528, 2023 (SPS+).
"""

from typing import Literal

import jax.numpy as jnp

from jgd.core import (
    Array,
    Hyper,
    LayoutLike,
    Optimizer,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    TreeRule,
    check_choice,
    lift,
    squares,
)


def polyak_rule(positive: bool) -> TreeRule:
    """The rule; `positive` keeps the gap from being negative."""

    def update(
        grads: list[Array], slots: Slots, params: list[Array], hyper: Hyper, step: Array
    ) -> tuple[list[Array], Slots]:
        del slots, params, step
        total, scale = (part.astype(hyper["scaling"].dtype) for part in squares(grads))
        norm_sq = hyper["scaling"] ** 2 * total + hyper["eps"] * scale * scale
        gap = hyper["value"] - hyper["f_min"]
        gap = jnp.maximum(gap, 0) if positive else gap
        usable = ~(norm_sq <= jnp.finfo(jnp.float64).eps * scale * scale)
        max_step_size = hyper["max_learning_rate"] / scale / scale
        step_size = jnp.where(usable, jnp.minimum(gap / jnp.where(usable, norm_sq, 1), max_step_size), 0)
        return [-step_size * hyper["scaling"] * scale * (scale * grad) for grad in grads], {}

    return TreeRule(update, needs=("value",), supports_complex=False)


RULES = {"sps": polyak_rule(False), "sps+": polyak_rule(True)}


def polyak_sgd(
    max_learning_rate: ScalarOrSchedule = 1.0,
    scaling: ScalarOrSchedule = 1.0,
    f_min: ScalarOrSchedule = 0.0,
    eps: ScalarOrSchedule = 0.0,
    variant: Literal["sps", "sps+"] = "sps",
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Gradient descent with Polyak's step size. `update` must be given the loss: `update(grads, state, value=loss)`.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        max_learning_rate: The largest step size, at least 0.
        scaling: A factor on the gradients, at least 0; a number or a schedule.
        f_min: The least value of the loss.
        eps: Added to the squared norm of the gradients, at least 0.
        variant: What to do below `f_min`; see the notes above.
        state_dtype: Accepted for uniformity; there are no slots.

    Returns:
        An optimizer with the hyperparameters `max_learning_rate`, `scaling`, `f_min`, `eps`, and no slots.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, the variant is not known, a
            leaf is complex, or `update` is called without `value`.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.polyak_sgd(10.0)
        >>> params, state = jnp.array([3.0]), optimizer.init(jnp.zeros(1))
        >>> updates, state = optimizer.update(2 * params, state, params, value=jnp.sum(params**2))
        >>> print(params + updates)  # half of the way to the minimum of a parabola
        [1.5]
    """
    check_choice("polyak_sgd", "variant", variant, Literal["sps", "sps+"])
    hyperparams = {"max_learning_rate": max_learning_rate, "scaling": scaling, "f_min": f_min, "eps": eps}
    return lift(RULES[variant], hyperparams, name="polyak_sgd", state_dtype=state_dtype, layout=layout)
