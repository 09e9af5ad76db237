"""Elementwise products with a gain, and sums with a bias."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jgd.core import Array, ArrayLike, DTypeLike, checked, compute_dtype
from jgd.gradients.probes._parts import Full, Part
from jgd.gradients.probes._recorder import Probe, call


class Scale(NamedTuple):
    """See `scale`."""

    dtype: Any = None
    name: str = "scale"

    def apply(self, x: Array, w: Array) -> Array:
        """`x w`."""
        return x * jnp.asarray(w).astype(self.dtype or jnp.result_type(w))

    def part(self, x: Array, w: Array, delta: Array) -> Part:
        """`x delta`, summed over the positions that share an entry of the gain."""
        wide = compute_dtype(delta.dtype)
        return Full(_sum_to(x.astype(wide) * delta.astype(wide), w.shape))


class Bias(NamedTuple):
    """See `bias`."""

    dtype: Any = None
    name: str = "bias"

    def apply(self, x: Array, w: Array) -> Array:
        """`x + w`."""
        return x + jnp.asarray(w).astype(self.dtype or jnp.result_type(w))

    def part(self, x: Array, w: Array, delta: Array) -> Part:
        """`delta`, summed over the positions that share an entry of the bias."""
        del x
        return Full(_sum_to(delta.astype(compute_dtype(delta.dtype)), w.shape))


@checked
def scale(x: ArrayLike, gain: ArrayLike, probe: Probe | None = None, *, dtype: DTypeLike | None = None) -> Array:
    """The elementwise product `x * gain`, as after a normalization.

    Args:
        x: `[B, ...]`.
        gain: Of a shape that broadcasts to that of one example.
        probe: What the loss was given; `None` multiplies and no more.
        dtype: What the gain is cast to; its own unless given.

    Returns:
        As `x * gain`.

    Raises:
        ValueError: The gain has more axes than one example; with a probe also one that is no leaf of the params.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import probes
        >>> print(probes.scale(jnp.ones((1, 2)), jnp.array([2.0, 3.0])))
        [[2. 3.]]
    """
    _check("scale", x, gain)
    return call(Scale(dtype), x, gain, probe)


@checked
def bias(x: ArrayLike, b: ArrayLike, probe: Probe | None = None, *, dtype: DTypeLike | None = None) -> Array:
    """The sum `x + b`: a bias, or a table of positions as long as the sequence.

    Args:
        x: `[B, ...]`.
        b: ArrayLike shape that broadcasts to that of one example.
        probe: What the loss was given; `None` adds and no more.
        dtype: What the bias is cast to; its own unless given.

    Returns:
        As `x + b`.

    Raises:
        ValueError: The bias has more axes than one example; with a probe also one that is no leaf of the params.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import probes
        >>> print(probes.bias(jnp.ones((1, 2)), jnp.array([2.0, 3.0])))
        [[3. 4.]]
    """
    _check("bias", x, b)
    return call(Bias(dtype), x, b, probe)


def _check(name: str, x: Any, w: Any) -> None:
    if jnp.ndim(w) >= jnp.ndim(x):
        raise ValueError(
            f"probes.{name}: x has shape {jnp.shape(x)} and the weight {jnp.shape(w)}; expected a weight with fewer"
            " axes than x: one that broadcasts to a single example, without the first axis."
        )


def _sum_to(values: Array, shape: tuple[int, ...]) -> Array:
    """`[B, ...]` summed to `[B, *shape]`, over the axes along which `shape` is broadcast."""
    extra = values.ndim - 1 - len(shape)
    values = jnp.sum(values, axis=tuple(range(1, 1 + extra)))
    repeated = tuple(i + 1 for i, n in enumerate(shape) if n == 1 and values.shape[i + 1] != 1)
    return jnp.sum(values, axis=repeated, keepdims=True)
