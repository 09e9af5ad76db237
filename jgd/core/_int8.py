r"""Slots in eight bits: a code for each entry, and a float32 scale for each row.

$$
s = \max_\text{row} |x|, \qquad x \approx \pm s\, (k / n)^4, \qquad k \in \{0, \dots, n\}
$$

with $n = 127$ and a sign, or $n = 255$ where a slot is declared to be never negative, as a second moment is; its root,
which divides the step, then lies on squares of codes. The distance between neighbours grows with the value, as it does
for a float. So entries of one row may differ by a factor of $10^8$, roots of second moments by 65,025, and rows may be
long.

Rounding is stochastic: an average that changes by a thousandth in a step would never leave its code otherwise. What is
declared never negative and is not zero is rounded to no zero either. Where a second moment vanished before the first, a
step would be divided by `eps`.

A row is the last axis, joined by those before it until it has 64 entries. The scale is found along whole axes, and the
codes keep the leaf's shape: nothing is reshaped or padded, which would be slow on a CPU, and both arrays can be sharded
as the leaf is.

References:
    - Dettmers et al., "8-bit optimizers via block-wise quantization", https://arxiv.org/abs/2110.02861, 2021: a scale
      for each block, codes that are denser near zero, small leaves left alone.
    - FlashOptim, https://github.com/databricks/flashoptim, 2026: companded codes, and the root of the second moment.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgd.core._rounding import fractions
from jgd.core._types import Array

#: The largest codes.
SIGNED, UNSIGNED = 127, 255
#: Leaves of fewer entries stay float32: they are few bytes in all, and many of them are biases and scales.
LEAST_SIZE = 4096
#: Entries that share a scale, at the least.
LEAST_ROW = 64


class Int8Slot(NamedTuple):
    """The stored form of one leaf's slot.

    Attributes:
        codes: int8, or uint8 where the slot is never negative; the shape of the leaf.
        scales: float32, the largest magnitude of each row; of size 1 along the row's axes.
    """

    codes: Array
    scales: Array


def row_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The last axes, as many as make a row."""
    first = len(shape)
    while first > 0 and (first == len(shape) or math.prod(shape[first:]) < LEAST_ROW):
        first -= 1
    return tuple(range(first, len(shape)))


@jax.jit
def decode(stored: Int8Slot) -> Array:
    """The float32 array that codes and scales stand for."""
    code = stored.codes.astype(jnp.float32)
    if stored.codes.dtype == jnp.int8:
        return jnp.sign(code) * _level(code, SIGNED) * stored.scales
    # The product may be too small for a float32; it was no zero, and stays none.
    value = jnp.maximum(_level(code, UNSIGNED) * stored.scales, jnp.finfo(jnp.float32).tiny)
    return jnp.where(stored.codes == 0, 0 * stored.scales, value)  # NaN where the row's scale is


@functools.partial(jax.jit, static_argnames="nonnegative")
def encode(value: Array, seed: Array, nonnegative: bool) -> Int8Slot:
    """The codes and scales of an array, rounded stochastically.

    Args:
        value: Real numbers. A NaN or infinite one makes all of its row NaN or infinite.
        seed: A uint32 scalar; each gives another rounding.
        nonnegative: Whether no entry is ever below zero.
    """
    value = value.astype(jnp.float32)
    count = UNSIGNED if nonnegative else SIGNED
    scales = jnp.max(jnp.abs(value), axis=row_axes(value.shape), keepdims=True, initial=0.0)
    share = jnp.where(scales > 0, jnp.abs(value) / jnp.where(scales > 0, scales, 1), 0)
    lower = jnp.minimum(jnp.floor(jnp.sqrt(jnp.sqrt(share)) * count), count - 1)
    below, above = _level(lower, count), _level(lower + 1, count)
    goes_up = share - below > (above - below) * fractions(value.shape, seed)
    code = lower + goes_up
    if nonnegative:
        return Int8Slot(jnp.maximum(code, value > 0).astype(jnp.uint8), scales)
    return Int8Slot((jnp.sign(value) * code).astype(jnp.int8), scales)


def _level(code: Array, count: int) -> Array:
    """What a code means, as a share of the scale, its sign aside."""
    return jnp.square(jnp.square(code * jnp.float32(1 / count)))
