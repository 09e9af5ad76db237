"""Which axes of a leaf make the matrix that a matrix rule works on; all other axes count a stack of matrices."""

import math
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from optax.contrib import MuonDimensionNumbers

from jgd.core import Array, PyTree, TreeOrFunction, is_integer, path_text, shown, tree_from

MatrixAxes = Literal["matrices", "stacks", "conv", "torch", "torch_stacks"]


def matrix_axes_for(params: PyTree, preset: MatrixAxes) -> PyTree:
    """The matrix axes of every leaf by one convention, in the shape of the params.

    Args:
        params: The params, or their shapes.
        preset: `"matrices"`: leaves of two axes are matrices, `[in, out]`. `"stacks"`: the last two axes are, all
            others count a stack, such as layers or experts. `"conv"`: kernels of convolutions as well, `[..., in,
            out]`, all axes but the last in one. `"torch"`: the same in PyTorch's layout, `[out, in, ...]`.
            `"torch_stacks"`: stacks of `[out, in]`.

    Returns:
        A tree of `MuonDimensionNumbers`, and None for leaves that are not matrices.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> print(jgd.matrix_axes_for(jnp.zeros((3, 3, 16, 32)), "conv"))
        MuonDimensionNumbers(reduction_axis=(2, 0, 1), output_axis=3)
    """
    return jax.tree.map(lambda leaf: _by_preset(jnp.ndim(leaf), preset), params)


def _by_preset(ndim: int, preset: str) -> MuonDimensionNumbers | None:
    if preset not in get_args(MatrixAxes):
        known = ", ".join(repr(name) for name in get_args(MatrixAxes))
        raise ValueError(f"matrix axes must be MuonDimensionNumbers, None or one of {known}; got {preset!r}.")
    if ndim < 2 or (preset == "matrices" and ndim > 2):
        return None
    if preset in ("torch", "torch_stacks") and ndim == 2:
        return MuonDimensionNumbers(1, 0)
    if preset == "torch":
        return MuonDimensionNumbers(tuple(range(1, ndim)), 0)
    if preset == "torch_stacks":
        return MuonDimensionNumbers(ndim - 1, ndim - 2)
    if preset == "conv" and ndim > 2:  # inputs first, as PyTorch's kernels are flattened
        return MuonDimensionNumbers((ndim - 2, *range(ndim - 2)), ndim - 1)
    return MuonDimensionNumbers(ndim - 2, ndim - 1)


def _is_axes(node: Any) -> bool:
    return node is None or isinstance(node, MuonDimensionNumbers)


def axes_of(owner: str, params: PyTree, matrix_axes: TreeOrFunction | None) -> list[MuonDimensionNumbers | None]:
    """For each leaf its matrix axes, or None where it is not a matrix.

    Args:
        owner: The factory's name, for messages.
        params: The params, or gradients in their shape.
        matrix_axes: A tree of `MuonDimensionNumbers`, names of presets (see `matrix_axes_for`) and None, shaped like
            the params or a prefix; a function from params to one; or None: then leaves of two axes are matrices.

    Raises:
        TypeError: They are of another kind.
        ValueError: The axes overlap, the leaf has too few, there is no such preset, or the tree is not a prefix.
    """
    tree = "matrices" if matrix_axes is None else tree_from(matrix_axes, params)

    def spread(axes: Any, subtree: PyTree) -> list[MuonDimensionNumbers | None]:
        leaves = jax.tree.leaves(subtree)
        return [_by_preset(jnp.ndim(leaf), axes) if isinstance(axes, str) else axes for leaf in leaves]

    try:
        jax.tree.map(lambda *_: None, tree, params, is_leaf=_is_axes)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{owner}: the tree of matrix axes is not a prefix of the params: {error}") from None
    axes = jax.tree.leaves(jax.tree.map(spread, tree, params, is_leaf=_is_axes), is_leaf=_is_axes)
    for (path, leaf), leaf_axes in zip(jax.tree_util.tree_flatten_with_path(params)[0], axes, strict=True):
        if leaf_axes is not None:
            _check_axes(owner, path_text(path), jnp.shape(leaf), leaf_axes)
    return axes


def _check_axes(owner: str, path: str, shape: tuple[int, ...], axes: MuonDimensionNumbers) -> None:
    if not isinstance(axes, MuonDimensionNumbers):
        raise TypeError(
            f"{owner}: the matrix axes of the leaf at {path} must be MuonDimensionNumbers, None or the name of a"
            f" preset; got {shown(axes)}."
        )
    rows, columns = as_tuple(axes.reduction_axis), as_tuple(axes.output_axis)
    outside = [axis for axis in rows + columns if not -len(shape) <= axis < len(shape)]
    if outside or len({axis % len(shape) for axis in rows + columns}) != len(rows + columns):
        raise ValueError(
            f"{owner}: the leaf at {path} has shape {shape}; its reduction axes {rows} and output axes {columns}"
            " must lie within it and be disjoint."
        )


def as_tuple(axis: Any) -> tuple[int, ...]:
    """One axis, or several, as a tuple."""
    return (axis,) if is_integer(axis) else tuple(axis)


def _permutation(ndim: int, axes: MuonDimensionNumbers) -> tuple[tuple[int, ...], int, int]:
    """The order of axes (stack, rows, columns), and how many are rows and columns."""
    rows = tuple(axis % ndim for axis in as_tuple(axes.reduction_axis))
    columns = tuple(axis % ndim for axis in as_tuple(axes.output_axis))
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


def tall(matrices: Array) -> Array:
    """The matrices with the longer side as rows; for square ones, the outputs as rows."""
    return matrices.mT if matrices.shape[-1] >= matrices.shape[-2] else matrices


def untall(matrices: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `tall` for matrices of that shape."""
    return matrices.mT if shape[-1] >= shape[-2] else matrices
