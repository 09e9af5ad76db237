r"""GaLore: an optimizer of gradients projected to a few directions.

$$
P = \operatorname{SVD}_r(G_t) \text{ every } T \text{ steps}, \qquad R_t = P^\top G_t, \qquad
W_t = W_{t-1} - \eta\, \bigl( \alpha\, P\, \operatorname{opt}(R_t) + \lambda\, W_{t-1} \bigr)
$$

for a matrix of at least as many rows as columns; others are projected from the right. `opt` is Adam's direction, or
what `base_optimizer` returns. The state is a pair: this optimizer's own with the slot `projector`, and the base
optimizer's on the projected tree, where the memory is saved. As in optax the long side is the one that is projected,
and the SVD is taken in float32; the authors' code projects the short one.

References:
    - Zhao et al., "GaLore: Memory-efficient LLM training by gradient low-rank projection",
      https://arxiv.org/abs/2403.03507, 2024, Algorithm 2.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import GaLoreDimensionNumbers

from jgd.core import (
    Array,
    GradientTransformation,
    Hyper,
    Hyperparams,
    Mask,
    Optimizer,
    OptState,
    PyTree,
    ScalarOrSchedule,
    TreeOrFunction,
    WrapperState,
    begin_update,
    broadcast_mask,
    cast_like,
    compute_dtype,
    first_state,
    fixed_int,
    is_integer,
    make_optimizer,
    over_floats,
    shown,
    tree_from,
    wide_copy,
)
from jgd.rules.matrices._axes import as_tuple


def _is_axes(node: Any) -> bool:
    return node is None or isinstance(node, GaLoreDimensionNumbers)


def axes_of_leaves(
    params: PyTree, weight_dimension_numbers: TreeOrFunction | None
) -> list[GaLoreDimensionNumbers | None]:
    """The axes of each leaf, None where it is not projected."""
    leaves = jax.tree.leaves(params)
    if weight_dimension_numbers is None:
        return [GaLoreDimensionNumbers() if jnp.ndim(leaf) == 2 else None for leaf in leaves]
    if isinstance(weight_dimension_numbers, GaLoreDimensionNumbers):
        return [weight_dimension_numbers if jnp.ndim(leaf) >= 2 else None for leaf in leaves]
    by_leaf = jax.tree.leaves(tree_from(weight_dimension_numbers, params), is_leaf=_is_axes)
    if len(by_leaf) != len(leaves) or not all(map(_is_axes, by_leaf)):
        raise ValueError(
            "galore: weight_dimension_numbers must be a GaLoreDimensionNumbers or, for each leaf of the params, one or"
            f" None; got {shown(weight_dimension_numbers)}."
        )
    return by_leaf


def _order(ndim: int, shape: tuple[int, ...], axes: GaLoreDimensionNumbers) -> tuple[tuple[int, ...], int]:
    if ndim < 2:
        raise ValueError(f"GaLore requires tensors with rank >= 2, got shape {shape}")
    rows, columns = (tuple(a % ndim for a in as_tuple(axis)) for axis in (axes.reduction_axis, axes.output_axis))
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


def project(matrix: Array, projector: Array, rank: int, refresh: Array) -> tuple[Array, Array]:
    """The projected matrix and the projector, recomputed where `refresh` holds."""
    tall = matrix.shape[0] >= matrix.shape[1]

    def decomposed() -> Array:
        u, _, vt = jnp.linalg.svd(matrix.astype(jnp.float32), full_matrices=False)
        return (u[:, :rank] if tall else vt[:rank].T).astype(projector.dtype)

    projector = jax.lax.cond(refresh, decomposed, lambda: projector)
    return (projector.T @ matrix if tall else matrix @ projector), projector


def galore(
    learning_rate: ScalarOrSchedule,
    rank: int = 128,
    update_proj_gap: ScalarOrSchedule = 200,
    scale: ScalarOrSchedule = 1.0,
    base_optimizer: GradientTransformation | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    weight_dimension_numbers: TreeOrFunction | None = None,
) -> Optimizer:
    """GaLore: gradient low-rank projection around a base optimizer.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: The factor on the base optimizer's direction, at least 0.
        rank: How many directions to keep, at least 1.
        update_proj_gap: Steps between two choices of the directions.
        scale: A factor on what comes back from the projection.
        base_optimizer: A transform that returns a direction along the gradient, as `optax.scale_by_adam()`, which is
            what None stands for.
        weight_dimension_numbers: Which leaves are projected, and which axes make rows and columns: a
            `GaLoreDimensionNumbers`, a tree of them and None, a function from params to one; None for leaves of two
            axes.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `update_proj_gap`, `scale`, `weight_decay`.

    Raises:
        TypeError, ValueError: A hyperparameter or `rank` is outside its range, or the axes do not fit a leaf.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.galore(0.1, rank=1), jnp.zeros((4, 3))
        >>> updates, state = optimizer.update(jnp.ones((4, 3)), optimizer.init(params), params)
        >>> print(state.own.slots["projector"].shape, updates[0].round(3))
        (4, 1) [-0.05 -0.05 -0.05]
    """
    if is_integer(rank) and rank <= 0:
        raise ValueError(f"galore: `rank` must be positive, got {rank}.")
    base = optax.with_extra_args_support(optax.scale_by_adam() if base_optimizer is None else base_optimizer)
    hyperparams = {"learning_rate": learning_rate, "update_proj_gap": update_proj_gap, "scale": scale}
    numbers = Hyperparams("galore", hyperparams | {"weight_decay": weight_decay})

    def init(params: PyTree) -> WrapperState:
        leaves, treedef = jax.tree.flatten(params)
        projectors, projected = [], []
        for leaf, axes in zip(leaves, axes_of_leaves(params, weight_dimension_numbers), strict=True):
            rows, columns = (0, 0) if axes is None else matrix_shape(jnp.shape(leaf), axes)
            long, short = max(rows, columns), min(rows, columns)
            r = min(fixed_int("galore", "rank", rank, least=1), short)
            dtype = compute_dtype(jnp.result_type(leaf))
            projectors.append(jnp.zeros((long, r), dtype))
            projected_shape = (r, short) if rows >= columns else (short, r)
            projected.append(wide_copy(leaf) if axes is None else jnp.zeros(projected_shape, dtype))
        own = first_state(numbers, {"projector": treedef.unflatten(projectors)})
        return WrapperState(own, base.init(treedef.unflatten(projected)))

    def update(grads: PyTree, state: WrapperState, params: PyTree = None, **extra: Any) -> tuple[PyTree, WrapperState]:
        hyper, count = begin_update(numbers, state, WrapperState)
        leaves, treedef = jax.tree.flatten(grads)
        all_axes = axes_of_leaves(grads, weight_dimension_numbers)
        due = jnp.mod(state.own.count, hyper["update_proj_gap"].astype(jnp.int32)) == 0
        projectors, projected = treedef.flatten_up_to(state.own.slots["projector"]), []
        for i, (grad, axes) in enumerate(zip(leaves, all_axes, strict=True)):
            leaf = jnp.asarray(grad).astype(compute_dtype(jnp.result_type(grad)))
            if axes is not None:
                leaf, projectors[i] = project(to_matrix(leaf, axes), projectors[i], projectors[i].shape[1], due)
            projected.append(leaf)
        directions, inner = base.update(treedef.unflatten(projected), state.inner, None, **extra)
        deltas = treedef.flatten_up_to(directions)
        for i, (leaf, axes) in enumerate(zip(leaves, all_axes, strict=True)):
            if axes is not None:
                tall = projectors[i].shape[0] == matrix_shape(leaf.shape, axes)[0]
                unprojected = projectors[i] @ deltas[i] if tall else deltas[i] @ projectors[i].T
                deltas[i] = from_matrix(hyper["scale"].astype(unprojected.dtype) * unprojected, leaf.shape, axes)
        updates = _descent(treedef.unflatten(deltas), params, hyper, mask)
        own = OptState(count, hyper, {"projector": treedef.unflatten(projectors)})
        return cast_like(updates, grads), WrapperState(own, cast_like(inner, state.inner))

    return over_floats(make_optimizer(init, update, f"jgd.galore({numbers.text()})"))


def _descent(directions: PyTree, params: PyTree, hyper: Hyper, mask: Mask) -> PyTree:
    def update(direction: Array, param: Any, decays: bool) -> Array:
        dtype = jnp.finfo(direction.dtype).dtype
        rate, decay = hyper["learning_rate"].astype(dtype), hyper["weight_decay"].astype(dtype)
        return -rate * (direction + decay * jnp.asarray(param, direction.dtype) if decays else direction)

    if params is None:
        return jax.tree.map(lambda d: update(d, 0, False), directions)
    return jax.tree.map(update, directions, params, broadcast_mask("galore", mask, params))
