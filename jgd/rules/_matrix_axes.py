"""Which axes of a leaf make the matrix that a matrix rule works on; all other axes count a stack of matrices."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from optax.contrib import MuonDimensionNumbers

from jgd.core import Array, PyTree, path_text


def _is_axes(node: Any) -> bool:
    return node is None or isinstance(node, MuonDimensionNumbers)


def axes_of(owner: str, params: PyTree, given: Any) -> list[MuonDimensionNumbers | None]:
    """For each leaf its matrix axes, or None where it is no matrix.

    Args:
        owner: The factory's name, for messages.
        params: The params, or gradients in their shape.
        given: A tree of `MuonDimensionNumbers` and None shaped like the params or a prefix, a function from params
            to one, or None: then leaves of two axes are matrices.

    Raises:
        ValueError: The axes overlap, or the leaf has too few.
    """
    if given is None:
        return [MuonDimensionNumbers() if jnp.ndim(leaf) == 2 else None for leaf in jax.tree.leaves(params)]
    tree = given(params) if callable(given) else given
    spread = jax.tree.map(lambda axes, subtree: [axes] * len(jax.tree.leaves(subtree)), tree, params, is_leaf=_is_axes)
    axes = jax.tree.leaves(spread, is_leaf=_is_axes)
    for (path, leaf), leaf_axes in zip(jax.tree_util.tree_flatten_with_path(params)[0], axes, strict=True):
        if leaf_axes is not None:
            _check_axes(owner, path_text(path), jnp.shape(leaf), leaf_axes)
    return axes


def _check_axes(owner: str, where: str, shape: tuple[int, ...], axes: MuonDimensionNumbers) -> None:
    rows, columns = _as_tuple(axes.reduction_axis), _as_tuple(axes.output_axis)
    outside = [axis for axis in rows + columns if not -len(shape) <= axis < len(shape)]
    if outside or len({axis % len(shape) for axis in rows + columns}) != len(rows + columns):
        raise ValueError(
            f"{owner}: the leaf at {where} has shape {shape}; its reduction axes {rows} and output axes {columns}"
            " must lie within it and be disjoint."
        )


def _as_tuple(axis: Any) -> tuple[int, ...]:
    return (axis,) if isinstance(axis, int) else tuple(axis)


def _permutation(ndim: int, axes: MuonDimensionNumbers) -> tuple[tuple[int, ...], int, int]:
    """The order of axes (stack, rows, columns), and how many are rows and columns."""
    rows = tuple(axis % ndim for axis in _as_tuple(axes.reduction_axis))
    columns = tuple(axis % ndim for axis in _as_tuple(axes.output_axis))
    stack = tuple(axis for axis in range(ndim) if axis not in rows + columns)
    return stack + rows + columns, len(rows), len(columns)


def as_matrices(x: Array, axes: MuonDimensionNumbers) -> Array:
    """The leaf as a stack of matrices, `[stack, rows, columns]`."""
    order, n_rows, n_columns = _permutation(x.ndim, axes)
    shape = tuple(x.shape[axis] for axis in order)
    n_stack = x.ndim - n_rows - n_columns
    rows, columns = math.prod(shape[n_stack : n_stack + n_rows]), math.prod(shape[n_stack + n_rows :])
    return x.transpose(order).reshape(math.prod(shape[:n_stack]), rows, columns)


def from_matrices(matrices: Array, shape: tuple[int, ...], axes: MuonDimensionNumbers) -> Array:
    """The inverse of `as_matrices` for a leaf of that shape."""
    order, _, _ = _permutation(len(shape), axes)
    inverse = sorted(range(len(shape)), key=lambda axis: order[axis])
    return matrices.reshape(tuple(shape[axis] for axis in order)).transpose(inverse)
