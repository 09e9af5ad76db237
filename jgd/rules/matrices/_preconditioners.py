"""What rules with one matrix for each axis of a leaf have in common: shapes, products along axes, blocks."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jgd.core import Array
from jgd.rules.matrices._triangular import inverse_of_upper


def merged_shape(shape: Sequence[int], limit: int) -> tuple[int, ...]:
    """Neighboring axes joined, from the first to the last, while their product is at most `limit`; no axes of size 1.

    Examples:
        >>> merged_shape((4, 1, 3, 100), 16)
        (12, 100)
    """
    merged: list[int] = []
    for size in shape:
        if size == 1:
            continue
        if merged and merged[-1] * size <= limit:
            merged[-1] *= size
        else:
            merged.append(size)
    return tuple(merged) or (1,)


def along_axes(x: Array, factors: Sequence[Array | None], *, transposed: bool = False) -> Array:
    """Multiplies every axis of `x` by its factor: a matrix, a vector for a diagonal one, or None for the identity."""
    for factor in factors:  # each turn moves the first axis to the end: after the last all are back in their places
        if factor is None:
            x = jnp.moveaxis(x, 0, -1)
        elif factor.ndim == 1:
            x = jnp.moveaxis(x, 0, -1) * factor
        else:
            x = jnp.tensordot(x, factor, axes=(0, 0 if transposed else 1))
    return x


def solved_along_axes(x: Array, factors: Sequence[Array]) -> Array:
    """Multiplies every axis of `x` by the inverse of its transposed factor, an upper triangle or a diagonal."""
    for factor in factors:
        if factor.ndim == 1:
            x = jnp.moveaxis(x, 0, -1) / factor
        else:
            x = jnp.tensordot(x, inverse_of_upper(factor), axes=(0, 0), precision=jax.lax.Precision.HIGHEST)
    return x


def gram(x: Array, axis: int, *, diagonal: bool = False) -> Array:
    """`x` times itself, summed over all axes but one: a square matrix of that axis, or its diagonal."""
    flat = jnp.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)
    if diagonal:
        return jnp.sum(jnp.square(flat), axis=1)
    # Eigenvectors and roots do not forgive the short mantissas of accelerators' default products.
    return jnp.matmul(flat, flat.T, precision=jax.lax.Precision.HIGHEST)


def split_blocks(x: Array, size: int) -> list[Array]:
    """Blocks of at most `size` along every axis, those of one shape stacked: arrays of shape `[count, *block]`."""
    stacks = []
    for corner in _corners(x.shape, size):
        piece = x[_slices(corner)]
        split = piece.reshape([n for _, count, length in corner for n in (count, length)])
        ordered = split.transpose(*range(0, split.ndim, 2), *range(1, split.ndim, 2))
        stacks.append(ordered.reshape(-1, *[length for _, _, length in corner]))
    return stacks


def join_blocks(stacks: Sequence[Array], shape: tuple[int, ...], size: int, dtype: jnp.dtype) -> Array:
    """The inverse of `split_blocks` for an array of that shape."""
    joined = jnp.zeros(shape, dtype)
    for stack, corner in zip(stacks, _corners(shape, size), strict=True):
        n = len(corner)
        split = stack.reshape([count for _, count, _ in corner] + [length for _, _, length in corner])
        ordered = split.transpose([axis for pair in zip(range(n), range(n, 2 * n), strict=True) for axis in pair])
        piece = ordered.reshape([count * length for _, count, length in corner])
        joined = piece if piece.shape == shape else joined.at[_slices(corner)].set(piece)
    return joined


def over_blocks(run: Callable[..., Any], *stacks: Any) -> Any:
    """Runs something on every block of a stack, all at once. What it branches on must be the same for all."""
    if len(jax.tree.leaves(stacks)[0]) != 1:
        return jax.vmap(run)(*stacks)
    # Alone, one block is spared the price of loops over stacks, which select what has changed.
    alone = run(*jax.tree.map(lambda stack: stack[0], stacks))
    return jax.tree.map(lambda block: block[None], alone)


def block_shapes(shape: tuple[int, ...], size: int) -> list[tuple[int, tuple[int, ...]]]:
    """For each stack of `split_blocks` how many blocks it has, and their shape."""
    return [
        (math.prod(count for _, count, _ in corner), tuple(length for _, _, length in corner))
        for corner in _corners(shape, size)
    ]


_Part = tuple[int, int, int]  # along one axis: the first index, how many blocks, the size of each


def _corners(shape: tuple[int, ...], size: int) -> list[tuple[_Part, ...]]:
    """The regions of an array whose blocks have one shape: along each axis either whole blocks or the rest."""
    parts = []
    for n in shape:
        whole, rest = divmod(n, size)
        parts.append([part for part in ((0, whole, size), (whole * size, 1, rest)) if part[1] * part[2]])
    return list(itertools.product(*parts))


def _slices(corner: tuple[_Part, ...]) -> tuple[slice, ...]:
    return tuple(slice(start, start + count * length) for start, count, length in corner)
