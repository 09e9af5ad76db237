"""Running rules on arrays: the dtypes seen to, the leaves laid out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jgd.core._authored import check_all_returned, check_returned, looking_up
from jgd.core._layouts import Block, pack_trees, unpack_trees
from jgd.core._numerics import compute_dtype, real_dtype
from jgd.core._rule import Rule, TreeRule
from jgd.core._types import Array, Hyper, PyTree, Slots


def widest_dtype(leaves: Sequence[Any]) -> jnp.dtype:
    """The dtype that holds what a whole tree has in common: the widest that any of its leaves is computed in."""
    dtypes = [real_dtype(compute_dtype(jnp.result_type(leaf))) for leaf in leaves]
    return jnp.dtype(jnp.result_type(*dtypes)) if dtypes else jnp.dtype(jnp.float32)


def leaf_update(rule: Rule, moves: bool) -> Callable[..., tuple[Array, Slots]]:
    """The rule with the dtypes seen to: arithmetic in float32 or wider, an update as precise as grad and param.

    If it `moves`, the function gives the new param in the update's place, rounded once.
    """

    def run(hyper: Hyper, step: Array, grad: Array, slots: Slots, param: Array | None) -> tuple[Array, Slots]:
        dtype = compute_dtype(update_dtype(grad, param))
        slots = {name: _widen(value, dtype) for name, value in slots.items()}
        wide_param = None if param is None else param.astype(dtype)
        wide_grad = grad.astype(dtype)
        with looking_up(hyper, slots):
            found = rule.update(wide_grad, dict(slots), wide_param, hyper, step)  # pyright: ignore[reportArgumentType]
        delta, slots = check_returned(found, wide_grad, slots)
        return _given_back(delta, grad, param, moves), dict(slots)

    return run


def run_block(
    block: Block,
    run: Callable[..., tuple[Array, Slots]],
    prepared: Callable[[Any], Hyper],
    step: Array,
    grads: Sequence[Array],
    slots: Mapping[str, Sequence[PyTree]],
    params: Sequence[Array] | None,
) -> list[tuple[Array, Slots]]:
    """Updates the leaves of one block; gives back each one's update and new slots, in order."""
    grad = block.pack(grads)
    param = None if params is None else block.pack(params)
    packed = {slot: pack_trees(block, values) for slot, values in slots.items()}
    hyper = prepared(compute_dtype(update_dtype(grad, param)))
    delta, packed = block.wrap(run)(hyper, step, grad, packed, param)
    new = {slot: unpack_trees(block, value) for slot, value in packed.items()}
    return [(delta, {slot: values[i] for slot, values in new.items()}) for i, delta in enumerate(block.unpack(delta))]


def run_tree(
    rule: TreeRule,
    prepared: Callable[[Any], Hyper],
    step: Array,
    grads: Sequence[Array],
    slots: Mapping[str, Sequence[PyTree] | Array],
    params: Sequence[Array] | None,
    moves: bool,
) -> tuple[list[Array], Mapping[str, Any]]:
    """Updates all leaves of a tree rule; every leaf in its own compute dtype, what they share in the widest."""
    own = [None] * len(grads) if params is None else params
    dtypes = [update_dtype(grad, param) for grad, param in zip(grads, own, strict=True)]
    wide = [compute_dtype(dtype) for dtype in dtypes]
    common = widest_dtype([jnp.zeros((), dtype) for dtype in dtypes])
    loaded = {
        name: _widen(value, common)
        if name in rule.scalars
        else [_widen(leaf, dtype) for leaf, dtype in zip(value, wide, strict=True)]
        for name, value in slots.items()
    }
    wide_grads = [grad.astype(dtype) for grad, dtype in zip(grads, wide, strict=True)]
    wide_params = None if params is None else [param.astype(dtype) for param, dtype in zip(params, wide, strict=True)]
    hyper = prepared(common)
    with looking_up(hyper, loaded):
        found = rule.update(wide_grads, dict(loaded), wide_params, hyper, step)  # pyright: ignore[reportArgumentType]
    deltas, new = check_all_returned(found, wide_grads, loaded, tuple(rule.scalars))
    return [_given_back(*leaf, moves) for leaf in zip(deltas, grads, own, strict=True)], new


def _given_back(delta: Array, grad: Array, param: Array | None, moves: bool) -> Array:
    """The update; or, if it `moves`, the new param."""
    if moves and param is not None:
        return (param.astype(delta.dtype) + delta).astype(param.dtype)
    return delta.astype(update_dtype(grad, param))


def update_dtype(grad: Array, param: Array | None) -> jnp.dtype:
    """An update is as precise as the wider of gradient and parameter."""
    return grad.dtype if param is None else jnp.promote_types(grad.dtype, param.dtype)


def _widen(slot: PyTree, dtype: jnp.dtype) -> PyTree:
    def widen(value: Array) -> Array:
        if not jnp.issubdtype(value.dtype, jnp.inexact):
            return value
        return value.astype(dtype if jnp.iscomplexobj(value) else real_dtype(dtype))

    return jax.tree.map(widen, slot)
