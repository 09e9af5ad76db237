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
    for factor in factors:  # each product puts the first axis at the end: after the last all are where they were
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
    # Accelerators' default products are too coarse for eigenvectors and roots.
    return jnp.matmul(flat, flat.T, precision=jax.lax.Precision.HIGHEST)


def split_blocks(x: Array, size: int) -> list[Array]:
    """Blocks of at most `size` along every axis, those of one shape stacked: arrays of shape `[count, *block]`."""
    stacks = []
    for region in _regions(x.shape, size):
        piece = x[_slices(region)]
        split = piece.reshape([n for _, count, length in region for n in (count, length)])
        ordered = split.transpose(*range(0, split.ndim, 2), *range(1, split.ndim, 2))
        stacks.append(ordered.reshape(-1, *[length for _, _, length in region]))
    return stacks


def join_blocks(stacks: Sequence[Array], shape: tuple[int, ...], size: int, dtype: jnp.dtype) -> Array:
    """The inverse of `split_blocks` for an array of that shape."""
    joined = jnp.zeros(shape, dtype)
    for stack, region in zip(stacks, _regions(shape, size), strict=True):
        n = len(region)
        split = stack.reshape([count for _, count, _ in region] + [length for _, _, length in region])
        ordered = split.transpose([axis for pair in zip(range(n), range(n, 2 * n), strict=True) for axis in pair])
        piece = ordered.reshape([count * length for _, count, length in region])
        joined = piece if piece.shape == shape else joined.at[_slices(region)].set(piece)
    return joined


def over_blocks(function: Callable[..., Any], *stacks: Any) -> Any:
    """Maps a function over the blocks of a stack, all at once. What it branches on must be the same for all."""
    if len(jax.tree.leaves(stacks)[0]) != 1:
        return jax.vmap(function)(*stacks)
    # A single block needs no vmap, under which a loop selects at each turn what has changed.
    single = function(*jax.tree.map(lambda stack: stack[0], stacks))
    return jax.tree.map(lambda block: block[None], single)


def block_shapes(shape: tuple[int, ...], size: int) -> list[tuple[int, tuple[int, ...]]]:
    """For each stack of `split_blocks` how many blocks it has, and their shape."""
    return [
        (math.prod(count for _, count, _ in region), tuple(length for _, _, length in region))
        for region in _regions(shape, size)
    ]


_Segment = tuple[int, int, int]  # of one axis: the first index, how many blocks, the length of each


def _regions(shape: tuple[int, ...], size: int) -> list[tuple[_Segment, ...]]:
    """The regions of an array whose blocks have one shape: along each axis the full blocks, or the remainder."""
    segments = []
    for n in shape:
        count, remainder = divmod(n, size)
        both = ((0, count, size), (count * size, 1, remainder))
        segments.append([segment for segment in both if segment[1] * segment[2]])
    return list(itertools.product(*segments))


def _slices(region: tuple[_Segment, ...]) -> tuple[slice, ...]:
    return tuple(slice(start, start + count * length) for start, count, length in region)
