r"""Dynamic loss scaling: it keeps the small gradients of a float16 model from becoming zero.

The loss is multiplied by a scale $S$ before it is differentiated, and the gradients are divided by it in float32:

$$ g = \frac{\nabla (S \, \ell)}{S} $$

$S$ is as large as it can be: it grows after so many good steps in a row, and shrinks after a step whose gradients
overflowed, which is left out. bfloat16 has the range of float32 and needs none of this.

References:
    Micikevicius and others, Mixed Precision Training, https://arxiv.org/abs/1710.03740, 2018.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree, check_fields, compute_dtype, real_dtype


class LossScaleState(NamedTuple):
    """What dynamic loss scaling keeps on the device."""

    scale: Array  # float32 scalar, what the loss is multiplied by
    good: Array  # int32 scalar, steps without overflow since the scale last changed
    overflows: Array  # int32 scalar, steps left out so far
    settings: dict[str, Array]


@dataclasses.dataclass(frozen=True)
class LossScale:
    """Dynamic loss scaling, a part of `jgd.Guard`. Powers of two make scaling exact.

    A step whose loss is finite and whose gradients are not has overflowed: it is left out, and the scale shrinks. This
    is an error only at the floor, where the scale cannot shrink further. A loss that is itself not finite is no
    overflow: no scale would help.

    Args:
        initial: The scale at first. A loss computed in float16 cannot be multiplied by more than 65,504.
        growth: What it is multiplied by after `every` good steps, above 1.
        backoff: What it is multiplied by after an overflow, in (0, 1).
        every: How many good steps in a row there must be, at least 1.
        floor: It never goes below this.
        ceiling: It never goes above this.

    Raises:
        ValueError: A number is outside its range.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> guard, optimizer = jgd.Guard(loss_scale=jgd.LossScale(every=2)), jgd.sgd(0.1)
        >>> step = jgd.make_step(lambda w, batch: jnp.mean((w - batch) ** 2), optimizer, guard=guard)
        >>> state = jgd.TrainState.create(jnp.ones((), jnp.float16), optimizer, guard=guard)
        >>> for _ in range(3):
        ...     state, metrics = step(state, jnp.ones(4, jnp.float16))
        ...     print(metrics["loss_scale"])
        32768.0
        65536.0
        32768.0

        After two good steps it grew; the third overflowed, since 65,536 is more than float16 can hold.
    """

    initial: float = 2.0**15
    growth: float = 2.0
    backoff: float = 0.5
    every: int = 2000
    floor: float = 1.0
    ceiling: float = 2.0**24

    def __post_init__(self) -> None:
        check_fields(self)
        if not (math.isfinite(self.ceiling) and 0 < self.floor <= self.initial <= self.ceiling):
            raise ValueError(
                "LossScale: expected 0 < floor <= initial <= ceiling, all finite; got"
                f" floor={self.floor}, initial={self.initial}, ceiling={self.ceiling}."
            )
        if not (math.isfinite(self.growth) and self.growth > 1 and 0 < self.backoff < 1):
            raise ValueError(
                f"LossScale: expected growth > 1 and 0 < backoff < 1; got growth={self.growth}, backoff={self.backoff}."
            )
        if self.every < 1:
            raise ValueError(f"LossScale: every must be a whole number of at least 1; got {self.every}.")

    def settings(self) -> dict[str, Array]:
        """The numbers that a step reads, as arrays."""
        floats = {name: getattr(self, name) for name in ("growth", "backoff", "floor", "ceiling")}
        return {name: jnp.array(value, jnp.float32) for name, value in floats.items()} | {
            "every": jnp.array(self.every, jnp.int32)
        }

    def init(self) -> LossScaleState:
        """The state before the first step."""
        return LossScaleState(
            jnp.array(self.initial, jnp.float32), jnp.array(0, jnp.int32), jnp.array(0, jnp.int32), self.settings()
        )


def overflowed(state: LossScaleState, loss: Array, finite: Array) -> Array:
    """Whether the step overflowed: a smaller scale may help."""
    return ~finite & jnp.isfinite(loss) & (state.scale > state.settings["floor"])


def next_scale(state: LossScaleState, overflow: Array, finite: Array) -> LossScaleState:
    """The state after a step."""
    numbers = state.settings
    good = jnp.where(finite, state.good + 1, jnp.where(overflow, 0, state.good))
    grows = finite & (good >= numbers["every"])
    larger = jnp.minimum(state.scale * numbers["growth"], numbers["ceiling"])
    smaller = jnp.maximum(state.scale * numbers["backoff"], numbers["floor"])
    scale = jnp.where(grows, larger, jnp.where(overflow, smaller, state.scale))
    return LossScaleState(scale, jnp.where(grows, 0, good), state.overflows + overflow, numbers)


def scale_loss(loss: Array, scale: Array | None) -> Array:
    """`scale * loss` in float32 or wider."""
    return loss if scale is None else loss.astype(compute_dtype(loss.dtype)) * scale


def unscale(grads: PyTree, scale: Array | None) -> PyTree:
    """`grads / scale` in float32 or wider; integer leaves stay."""

    def divide(grad: Array) -> Array:
        if not jnp.issubdtype(grad.dtype, jnp.inexact):
            return grad
        dtype = compute_dtype(grad.dtype)
        return grad.astype(dtype) / scale.astype(real_dtype(dtype))  # type: ignore[union-attr]

    return grads if scale is None else jax.tree.map(divide, grads)
