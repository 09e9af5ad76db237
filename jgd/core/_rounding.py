r"""Stochastic rounding: up or down at random, so that the mean of many roundings is the number itself.

$$
x \to \begin{cases} b & \text{with probability } (x - a) / (b - a) \\ a & \text{otherwise} \end{cases}
$$

with $a \le x \le b$ the two neighbours of $x$ that the narrow dtype holds. Changes far below its precision then add up,
where rounding to nearest drops each of them.

The random bits are a hash of the entry's position and a seed. That is integer arithmetic, which the compiler puts into
the loop of the update itself: no bits are stored, and there is less of it than for a key of `jax.random`.

References:
    - Gupta et al., "Deep learning with limited numerical precision", https://arxiv.org/abs/1502.02551, 2015.
    - Appleby, MurmurHash3, https://github.com/aappleby/smhasher, 2011: the multipliers and shifts of its last step.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from jgd.core._types import Array

#: What values can be rounded to.
SIXTEEN_BITS = (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))


def _mix(bits: Array, salt: Array) -> Array:
    """Spreads each bit of a number over all 32; the salt between both rounds keeps one seed's row from being a shifted
    copy of another's.
    """
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = ((bits ^ (bits >> 13)) + salt) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


def random_bits(shape: tuple[int, ...], seed: Array) -> Array:
    """An array of uint32 random bits.

    Args:
        shape: Of the result.
        seed: A uint32 scalar; each gives other bits.
    """
    index = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = math.prod(shape[axis + 1 :]) % 2**32
        index = index + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
    zero = jnp.zeros((), jnp.uint32)
    start = _mix(seed, zero)
    return _mix(index * jnp.uint32(0x9E3779B1) + start, _mix(start, zero))


def fractions(shape: tuple[int, ...], seed: Array) -> Array:
    """Random float32 multiples of 2^-24 in [0, 1)."""
    return (random_bits(shape, seed) >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)


@functools.partial(jax.jit, static_argnums=1)
def stochastic_round(value: Array, dtype: Any, seed: Array) -> Array:
    """Rounds to one of the two neighbours in a 16-bit dtype, the nearer one with the larger probability.

    Args:
        value: A real array, rounded to float32 first if it is wider.
        dtype: `bfloat16` or `float16`.
        seed: A uint32 scalar; each gives another rounding.

    Returns:
        An array of that dtype, whose mean over all seeds is `value`. What is not finite stays as it is. Finite values
        stay finite: those beyond the largest become the largest.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> seeds = jnp.arange(10_000, dtype=jnp.uint32)
        >>> rounded = jax.vmap(lambda seed: stochastic_round(jnp.float32(1.001), jnp.bfloat16, seed))(seeds)
        >>> print(jnp.unique(rounded), f"{rounded.astype(jnp.float32).mean():.4f}")
        [1 1.00781] 1.0010
    """
    wide = value.astype(jnp.float32)
    bits = jax.lax.bitcast_convert_type(wide, jnp.uint32)
    magnitude = bits & jnp.uint32(0x7FFFFFFF)
    if jnp.dtype(dtype) == jnp.bfloat16:
        # The upper half of a float32 is a bfloat16: a carry out of the lower half is the step to the next one.
        largest = jnp.uint32(0x7F7F0000)
        raised = bits + (random_bits(value.shape, seed) >> 16)
        upper = jnp.where(magnitude >= largest, bits, raised) >> 16
        rounded = jax.lax.bitcast_convert_type(upper.astype(jnp.uint16), jnp.bfloat16)
    else:
        power = jax.lax.bitcast_convert_type(magnitude & jnp.uint32(0x7F800000), jnp.float32)
        unit = jnp.maximum(power * 2.0**-10, 2.0**-24)  # between neighbours; all below 2^-14 have the same
        # thirteen random bits are as many as a float32 has below its float16: so their sum is exact
        units = jnp.floor(jnp.abs(wide) / unit + (random_bits(value.shape, seed) >> 19).astype(jnp.float32) * 2.0**-13)
        rounded = jnp.copysign(jnp.minimum(units * unit, 65504.0), wide).astype(dtype)
    return jnp.where(jnp.isfinite(wide), rounded, wide.astype(dtype))
