r"""Norms that neither overflow nor vanish where the squares of the numbers would.

$$
\lVert x \rVert = \frac1s \Bigl( \sum_i |s\, x_i|^2 \Bigr)^{1/2}
$$

with a power of two $s$: 1 where the plain sum of squares lies well inside of its dtype's range (in float32 for norms
from 3e-11 to 1.8e19), so that ordinary numbers come out bit for bit as without it. Who divides by a norm multiplies by
$s$ first, and by the rest second: then nothing on the way is infinite, even where the norm itself would be.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core._arguments import checked
from jgd.core._numerics import abs_sq, compute_dtype, real_dtype, root
from jgd.core._types import Array, ArrayTree, PyTree


class Squares(NamedTuple):
    """A sum of squares: `total` is the sum of `|scale x|^2`, and `scale` a power of two."""

    total: Array
    scale: Array

    @property
    def length(self) -> Array:
        """The norm of `scale x`, with derivative 0 at 0."""
        return root(self.total)


def squares(leaves: Sequence[Array], axis: tuple[int, ...] | None = None) -> Squares:
    """The sum of squares over all entries of all leaves; or of one leaf over some axes, which are kept with size one.

    Args:
        leaves: Arrays of real or complex float dtypes.
        axis: The axes to sum over, of a single leaf; None for all.

    Returns:
        Sum and scale in float32 or wider: two scalars, or arrays of the leaf's shape but for `axis`. Derivatives go
        through the sum; the scale is a constant. A NaN or an infinite entry makes the sum so.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.core import squares
        >>> found = squares([jnp.array([3e20, 4e20])])
        >>> print(found.length / found.scale)
        5e+20
    """
    dtypes = [real_dtype(compute_dtype(x.dtype)) for x in leaves]
    wide = functools.reduce(jnp.promote_types, dtypes, jnp.dtype(jnp.float32))
    cast = [x.astype(jnp.promote_types(x.dtype, wide)) for x in leaves]
    total, scale = _squares(axis, wide, cast)
    return Squares(total, jax.lax.stop_gradient(scale))


def tree_squares(tree: PyTree) -> Squares:
    """The sum of squares over all float leaves of a tree."""
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return squares([leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)])


@checked
def global_norm(tree: ArrayTree) -> Array:
    """The Euclidean norm over every entry of a tree: `sqrt(sum |x|^2)`.

    Args:
        tree: Arrays of any real or complex float dtype; integer leaves are left out.

    Returns:
        A scalar, float32 or wider, whatever the dtype of the leaves. It is right wherever it can be represented: 1e20
        and 1e-30 in float32, whose squares cannot. Its derivative at a zero tree is zero, not NaN.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.core import global_norm
        >>> print(global_norm({"a": jnp.array([3.0]), "b": jnp.array(4.0)}))
        5.0
    """
    norm = tree_squares(tree)
    return norm.length / norm.scale


def clipping_factors(norm: Squares, limit: Array) -> tuple[Array, Array]:
    """Two factors for what the `norm` was taken of, which leave it a norm of at most `limit`; 1 where it is no longer.

    A norm that is NaN makes the second NaN.
    """
    inside = norm.length <= limit * norm.scale
    return jnp.where(inside, 1, norm.scale), jnp.where(inside, 1, limit / jnp.where(inside, 1, norm.length))


class _Window(NamedTuple):
    """For one dtype: the least sum of squares that is taken as it is, and what smaller and infinite ones are scaled by.

    Down: the largest number times this may be squared, and 2**32 such squares added up. Up: the smallest normal number
    times this may be squared. Below the least sum, entries that count may have squares that vanish.
    """

    least: float
    up: float
    down: float


def _window(dtype: jnp.dtype) -> _Window:
    if jnp.finfo(dtype).bits == 64:
        return _Window(2.0**-900, 2.0**600, 2.0**-600)
    return _Window(2.0**-70, 2.0**64, 2.0**-80)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _squares(axis: tuple[int, ...] | None, dtype: jnp.dtype, leaves: list[Array]) -> tuple[Array, Array]:
    return _by_platform(axis, dtype, leaves)


@_squares.defjvp
def _(axis: Any, dtype: Any, primals: tuple[list[Array]], tangents: tuple[list[Array]]) -> tuple[Any, Any]:
    total, scale = _squares(axis, dtype, *primals)
    moved: Array = jnp.zeros_like(total)
    for x, dx in zip(*primals, *tangents, strict=True):
        along = jnp.real(jnp.conj(scale * x) * (scale * dx))
        moved = moved + 2 * jnp.sum(along, axis=axis, keepdims=axis is not None)
    return (total, scale), (moved, jnp.zeros_like(scale))


@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)  # jitted for the sake of eager calls: it branches
def _by_platform(axis: Any, dtype: Any, leaves: list[Array]) -> tuple[Array, Array]:
    """A CPU sums again where it must; elsewhere that would wait for the host, and more sums in a pass cost little."""
    by_need, at_once = (functools.partial(way, axis, dtype) for way in (_by_need, _at_once))
    return jax.lax.platform_dependent(leaves, cpu=by_need, default=at_once)


def _by_need(axis: Any, dtype: Any, leaves: list[Array]) -> tuple[Array, Array]:
    total = _sum(leaves, axis, dtype)
    small, large = _outside(total, dtype)
    scale = _pick(dtype, small, large)

    def again(leaves: list[Array]) -> Array:
        return _sum(leaves, axis, dtype, scale)

    return jax.lax.cond(jnp.any(small | large), again, lambda _: total, leaves), scale


def _at_once(axis: Any, dtype: Any, leaves: list[Array]) -> tuple[Array, Array]:
    window = _window(dtype)
    total, up, down = (_sum(leaves, axis, dtype, scale) for scale in (None, window.up, window.down))
    small, large = _outside(total, dtype)
    return jnp.where(large, down, jnp.where(small, up, total)), _pick(dtype, small, large)


def _outside(total: Array, dtype: Any) -> tuple[Array, Array]:
    return total < _window(dtype).least, ~(total < jnp.inf)


def _pick(dtype: Any, small: Array, large: Array) -> Array:
    window = _window(dtype)
    return jnp.where(large, window.down, jnp.where(small, window.up, 1)).astype(dtype)


def _sum(leaves: list[Array], axis: Any, dtype: Any, scale: Any = None) -> Array:
    total: Array = jnp.zeros((), dtype)
    for x in leaves:
        scaled = x if scale is None else scale * x
        total = total + jnp.sum(abs_sq(scaled), axis=axis, keepdims=axis is not None)
    return total
