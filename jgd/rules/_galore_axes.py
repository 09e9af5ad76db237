"""Which axes of a leaf make the matrix that GaLore projects."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from optax.contrib import GaLoreDimensionNumbers

from jgd.core import Array, PyTree, shown, tree_from


def _is_axes(node: Any) -> bool:
    return node is None or isinstance(node, GaLoreDimensionNumbers)


def axes_of_leaves(params: PyTree, given: Any) -> list[GaLoreDimensionNumbers | None]:
    """For each leaf its axes, or None where it is not projected."""
    leaves = jax.tree.leaves(params)
    if given is None:
        return [GaLoreDimensionNumbers() if jnp.ndim(leaf) == 2 else None for leaf in leaves]
    if isinstance(given, GaLoreDimensionNumbers):
        return [given if jnp.ndim(leaf) >= 2 else None for leaf in leaves]
    found = jax.tree.leaves(tree_from(given, params), is_leaf=_is_axes)
    if len(found) != len(leaves) or not all(map(_is_axes, found)):
        raise ValueError(
            "galore: weight_dimension_numbers must be a GaLoreDimensionNumbers or, for each leaf of the params, one or"
            f" None; got {shown(given)}."
        )
    return found


def _order(ndim: int, shape: tuple[int, ...], axes: GaLoreDimensionNumbers) -> tuple[tuple[int, ...], int]:
    def as_tuple(axis: Any) -> tuple[int, ...]:
        return tuple(a % ndim for a in ((axis,) if isinstance(axis, int) else axis))

    if ndim < 2:
        raise ValueError(f"GaLore requires tensors with rank >= 2, got shape {shape}")
    rows, columns = as_tuple(axes.reduction_axis), as_tuple(axes.output_axis)
    if set(rows) & set(columns):
        raise ValueError(f"Reduction axes {rows} and output axes {columns} must be disjoint; got shape {shape}.")
    if len(set(rows) | set(columns)) != ndim:
        raise ValueError(f"All axes must be specified; got reduction={rows}, output={columns} for shape {shape}.")
    return rows + columns, len(rows)


def matrix_shape(shape: tuple[int, ...], axes: GaLoreDimensionNumbers) -> tuple[int, int]:
    """Rows and columns of a leaf of that shape."""
    order, n_rows = _order(len(shape), shape, axes)
    sizes = [shape[axis] for axis in order]
    return math.prod(sizes[:n_rows]), math.prod(sizes[n_rows:])


def to_matrix(leaf: Array, axes: GaLoreDimensionNumbers) -> Array:
    """The leaf as rows by columns."""
    order, _ = _order(leaf.ndim, leaf.shape, axes)
    return leaf.transpose(order).reshape(matrix_shape(leaf.shape, axes))


def from_matrix(matrix: Array, shape: tuple[int, ...], axes: GaLoreDimensionNumbers) -> Array:
    """The inverse of `to_matrix` for a leaf of that shape."""
    order, _ = _order(len(shape), shape, axes)
    inverse = sorted(range(len(shape)), key=lambda axis: order[axis])
    return matrix.reshape([shape[axis] for axis in order]).transpose(inverse)
