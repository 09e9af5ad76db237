r"""Adafactor: a second moment kept as the product of a row and a column.

$$
\begin{aligned}
\beta_t &= 1 - (t - t_0)^{-c}, \qquad
R_t = \beta_t R_{t-1} + (1-\beta_t)\, \langle g_t^2 + \epsilon \rangle_\text{columns}, \qquad C_t \text{ likewise} \\
u_t &= g_t / \sqrt{R_t C_t / \langle R_t \rangle}, \qquad u_t \leftarrow u_t / \max(1, \operatorname{RMS}(u_t) / d) \\
\theta_t &= \theta_{t-1} - \eta \max(10^{-3}, \operatorname{RMS}(\theta_{t-1}))\, u_t - \lambda\, \theta_{t-1}
\end{aligned}
$$

over the two largest axes, where the smaller has `min_dim_size_to_factor` entries at least; other leaves keep a full
second moment. The slots are `v_row`, `v_col`, `v`, and `ema` with momentum. As in optax the decay is not multiplied by
the learning rate.

References:
    - Shazeer and Stern, "Adafactor: Adaptive learning rates with sublinear memory cost",
      https://arxiv.org/abs/1804.04235, 2018, Algorithms 4 and 5.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

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
    abs_sq,
    fixed_int,
    lift,
    real_dtype,
    root,
    squares,
    zeros,
)
from jgd.rules.parts._weight_decay import choose_by_mask

_SMALLEST_SCALE = 1e-3


def factored_axes(shape: tuple[int, ...], factored: bool, least: int) -> tuple[int, int] | None:
    """The second largest and the largest axis, or None where the leaf keeps a full second moment."""
    if not factored or len(shape) < 2:
        return None
    order = np.argsort(shape)
    least = fixed_int("adafactor", "min_dim_size_to_factor", least)
    return None if shape[order[-2]] < least else (int(order[-2]), int(order[-1]))


def _rms(x: Array) -> Array:
    x_sq = squares([x])
    return root(x_sq.total / max(x.size, 1)) / x_sq.scale


def factored_rule(factored: bool, least: int, by_param: bool, clips: bool, momentum: bool, decays: bool) -> Rule:
    """The rule; `by_param` scales steps by the size of the leaf."""

    def mean_over(which: int) -> Callable[[Array], Array]:
        def make(param: Array) -> Array:
            axes, dtype = factored_axes(param.shape, factored, least), real_dtype(param.dtype)
            # A sum over the axis that goes keeps the sharding of the others.
            return jnp.zeros(1, dtype) if axes is None else jnp.zeros_like(jnp.sum(param, axes[which]), dtype=dtype)

        return make

    def full_moment(param: Array) -> Array:
        dtype = real_dtype(param.dtype)
        is_factored = factored_axes(param.shape, factored, least) is not None
        return jnp.zeros(1, dtype) if is_factored else jnp.zeros_like(param, dtype=dtype)

    def scaled(grad: Array, slots: Slots, hyper: Hyper) -> tuple[Array, dict[str, Array]]:
        # The state says whether a leaf is factored: `least` may be traced here, and is not when the state is made.
        axes = factored_axes(grad.shape, slots["v"].shape != grad.shape, 0)
        keep, square = hyper["keep"], abs_sq(grad) + hyper["eps"]
        if axes is None:
            v = keep * slots["v"] + (1 - keep) * square
            return grad / jnp.sqrt(jnp.where(v > 0, v, 1)), {**slots, "v": v}
        d1, d0 = axes
        row = keep * slots["v_row"] + (1 - keep) * jnp.mean(square, axis=d0)
        column = keep * slots["v_col"] + (1 - keep) * jnp.mean(square, axis=d1)
        mean = jnp.mean(row, axis=d1 - 1 if d1 > d0 else d1, keepdims=True)
        row_root = jnp.sqrt(row / jnp.where(mean > 0, mean, 1))
        roots = jnp.expand_dims(row_root, d0), jnp.expand_dims(jnp.sqrt(column), d1)
        safe = [jnp.where(root > 0, root, 1) for root in roots]
        return grad / safe[0] / safe[1], {**slots, "v_row": row, "v_col": column}

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del step
        u, new_slots = scaled(grad, slots, hyper)
        if clips:
            u = u / jnp.maximum(1, root(jnp.sum(abs_sq(u)) / max(u.size, 1)) / hyper["clipping_threshold"])
        u = hyper["learning_rate"] * u
        if by_param:
            u = jnp.maximum(_rms(param), _SMALLEST_SCALE) * u
        if momentum:
            u = new_slots["ema"] = hyper["momentum"] * slots["ema"] + hyper["1-momentum"] * u
        return -(u + hyper["weight_decay_rate"] * param if decays else u), new_slots

    def prepare(hyper: Hyper, step: Array) -> Hyper:
        since = jnp.maximum(step - hyper["decay_offset"], 1)
        return hyper | {"keep": 1 - since.astype(hyper["eps"].dtype) ** -hyper["decay_rate"]}

    slots = {"v_row": mean_over(1), "v_col": mean_over(0), "v": full_moment} | ({"ema": zeros} if momentum else {})
    squares = ("v_row", "v_col", "v")
    return Rule(update, slots=slots, kind="leaf", needs_params=True, prepare=prepare, nonnegative=squares)


def adafactor(
    learning_rate: ScalarOrSchedule | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: ScalarOrSchedule = 0.8,
    decay_offset: ScalarOrSchedule = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: ScalarOrSchedule | None = 1.0,
    momentum: ScalarOrSchedule | None = None,
    dtype_momentum: SlotDtype | None = jnp.float32,
    weight_decay_rate: ScalarOrSchedule | None = None,
    eps: ScalarOrSchedule = 1e-30,
    factored: bool = True,
    weight_decay_mask: Mask = None,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Adafactor: adaptive steps with sublinear memory.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: The size of a step relative to the leaf, or absolutely without `multiply_by_parameter_scale`;
            at least 0. None for one.
        min_dim_size_to_factor: The least size of the second largest axis of a leaf whose second moment is factored.
        decay_rate: The exponent of how the decay of the second moment approaches one.
        decay_offset: The step from which that is counted, for fine-tuning.
        multiply_by_parameter_scale: Whether steps are scaled by the root mean square of the leaf.
        clipping_threshold: The largest root mean square of a leaf's direction, above 0; None for no bound.
        momentum: Decay rate of the average of steps, in [0, 1); None for no momentum.
        dtype_momentum: The dtype of the slot `ema`.
        weight_decay_rate: The share of each parameter that a step takes away, whatever the learning rate; at least 0.
        eps: Added to the squared gradient, at least 0.
        factored: Whether to factor at all.
        weight_decay_mask: Which leaves decay; as `mask` of `jgd.adamw`.
        state_dtype: The dtype of all slots; it goes before `dtype_momentum`.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules, with the slots `v_row`, `v_col`, `v`
        (and `ema`): for a factored matrix one number a row and one a column.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, the mask does not fit the
            params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.adafactor(0.1, min_dim_size_to_factor=2), jnp.ones((2, 3))
        >>> state = optimizer.init(params)
        >>> updates, state = optimizer.update(5 * jnp.ones((2, 3)), state, params)
        >>> print(updates[0].round(3), state.slots["v_row"].shape, state.slots["v_col"].shape)
        [-0.1 -0.1 -0.1] (2,) (3,)
    """
    optional = {
        "clipping_threshold": clipping_threshold,
        "momentum": momentum,
        "weight_decay_rate": weight_decay_rate,
    }
    rules = {
        decays: factored_rule(
            factored,
            min_dim_size_to_factor,
            multiply_by_parameter_scale,
            clipping_threshold is not None,
            momentum is not None,
            decays,
        )
        for decays in (weight_decay_rate is not None, False)
    }

    hyperparams = {
        "learning_rate": 1.0 if learning_rate is None else learning_rate,
        "decay_rate": decay_rate,
        "decay_offset": decay_offset,
        "eps": eps,
    }
    return lift(
        list(rules.values()),
        hyperparams | {name: value for name, value in optional.items() if value is not None},
        name="adafactor",
        choose=choose_by_mask("adafactor", weight_decay_mask, rules[weight_decay_rate is not None], rules[False]),
        slot_dtypes={"ema": dtype_momentum},
        state_dtype=state_dtype,
        layout=layout,
    )
