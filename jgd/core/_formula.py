"""Calling the formulas of rules and wrappers on arrays: in which dtype, laid out how, and what must come back."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core._floats import cast_like
from jgd.core._layouts import Block, Layout, pack_trees, unpack_trees
from jgd.core._mistakes import check_all_returned, check_returned, key_errors_explained
from jgd.core._numerics import compute_dtype, real_dtype
from jgd.core._rule import Rule, TreeRule
from jgd.core._rule_checks import check_blocks
from jgd.core._types import Array, Hyper, PyTree, Slots

#: `prepare(dtype) -> hyper`: the hyperparameters of this update in a compute dtype.
Prepare = Callable[[Any], Hyper]


class Inputs(NamedTuple):
    """What several leaves bring to one update, in the same order everywhere."""

    grads: Sequence[Array]
    slots: Mapping[str, Sequence[PyTree]]
    params: Sequence[Array] | None

    def at(self, indices: Sequence[int]) -> "Inputs":
        """Those of some of the leaves."""
        slots = {slot: [values[i] for i in indices] for slot, values in self.slots.items()}
        params = None if self.params is None else [self.params[i] for i in indices]
        return Inputs([self.grads[i] for i in indices], slots, params)


def call_formula(
    formula: Callable[..., Any],
    arrays: Sequence[Array],
    slots: Slots,
    param: Array | None,
    hyper: Hyper,
    step: Array,
    *,
    result: str = "delta",
    every_slot: bool = True,
) -> tuple[Array, Slots]:
    """Calls the formula of one leaf in the leaf's compute dtype, float32 or wider.

    Args:
        formula: `formula(*arrays, slots, param, hyper, step) -> (delta, slots)`; the delta is like the first array.
        arrays: The gradient, or an update and the gradient. The first decides the dtype, together with the param.
        slots: The leaf's slots by name.
        param: The leaf; None where no params were given.
        hyper: Scalars in the real dtype of the compute dtype.
        step: int32, from 1.
        result: What the formula returns beside the slots, for messages.
        every_slot: Whether the formula must return every slot; otherwise those that it changes.

    Raises:
        MistakeError: It returned something else, or looked up a name that there is not.
    """
    dtype = compute_dtype(update_dtype(arrays[0], param))
    slots = {name: _widen(value, dtype) for name, value in slots.items()}
    wide_param = None if param is None else param.astype(dtype)
    wide = [array.astype(dtype) for array in arrays]
    with key_errors_explained(hyper, slots):
        returned = formula(*wide, dict(slots), wide_param, hyper, step)
    first, new_slots = check_returned(returned, wide[0], slots, result=result, every_slot=every_slot)
    return first, dict(new_slots)


def leaf_update(rule: Rule, applied: bool) -> Callable[..., tuple[Array, Slots]]:
    """`update(hyper, step, grad, slots, param)` of one leaf or block: the rule's formula, the update rounded once.

    Where the update is `applied` the function returns the new param in its place.
    """

    def run(hyper: Hyper, step: Array, grad: Array, slots: Slots, param: Array | None) -> tuple[Array, Slots]:
        delta, new_slots = call_formula(rule.update, [grad], slots, param, hyper, step)
        return _rounded(delta, grad, param, applied), new_slots

    return run  # by this name it stands in profiles and in the compiled step's text


def blocks_update(
    rule: Rule,
    layout: Layout,
    update: Callable[..., tuple[Array, Slots]],
    prepare: Prepare,
    step: Array,
    inputs: Inputs,
    errors_at_leaves: Callable[[str, Sequence[int]], Any],
) -> list[tuple[Array, Slots]]:
    """Each leaf's update and new slots, the leaves laid out in blocks while `update` runs.

    `errors_at_leaves(function, indices)` is the context that says at which leaves a mistake was made.
    """
    results: list[Any] = [None] * len(inputs.grads)
    params = [None] * len(inputs.grads) if inputs.params is None else inputs.params
    like = [
        jax.ShapeDtypeStruct(grad.shape, update_dtype(grad, param), sharding=_sharding(grad))
        for grad, param in zip(inputs.grads, params, strict=True)
    ]
    with errors_at_leaves("the layout", ()):
        blocks = check_blocks(layout(rule, like), len(like))
    for block in blocks:
        with errors_at_leaves("the update", block.indices):
            of_block = _block_update(block, update, prepare, step, inputs.at(block.indices))
        for i, result in zip(block.indices, of_block, strict=True):
            results[i] = result
    return results


def _block_update(
    block: Block, update: Callable[..., tuple[Array, Slots]], prepare: Prepare, step: Array, inputs: Inputs
) -> list[tuple[Array, Slots]]:
    grad = block.pack(inputs.grads)
    param = None if inputs.params is None else block.pack(inputs.params)
    packed = {slot: pack_trees(block, values) for slot, values in inputs.slots.items()}
    hyper = prepare(compute_dtype(update_dtype(grad, param)))
    delta, packed = block.wrap(update)(hyper, step, grad, packed, param)
    new = {slot: unpack_trees(block, value) for slot, value in packed.items()}
    return [(delta, {slot: values[i] for slot, values in new.items()}) for i, delta in enumerate(block.unpack(delta))]


def tree_update(
    rule: TreeRule, prepare: Prepare, step: Array, inputs: Inputs, scalars: Mapping[str, Array], applied: bool
) -> tuple[Sequence[tuple[Array, Slots]], dict[str, Array]]:
    """All leaves of a tree rule at once: each leaf's update and new slots, and the new slots of the whole tree.

    Every leaf is in its own compute dtype, what they share in the widest of these.
    """
    grads, params = inputs.grads, inputs.params
    param_or_none = [None] * len(grads) if params is None else params
    dtypes = [update_dtype(grad, param) for grad, param in zip(grads, param_or_none, strict=True)]
    wide = [compute_dtype(dtype) for dtype in dtypes]
    common = widest_dtype([jnp.zeros((), dtype) for dtype in dtypes])
    slots: dict[str, Any] = {
        name: [_widen(value, dtype) for value, dtype in zip(values, wide, strict=True)]
        for name, values in inputs.slots.items()
    }
    slots |= {name: _widen(value, common) for name, value in scalars.items()}
    wide_grads = [grad.astype(dtype) for grad, dtype in zip(grads, wide, strict=True)]
    wide_params = None if params is None else [param.astype(dtype) for param, dtype in zip(params, wide, strict=True)]
    hyper = prepare(common)
    with key_errors_explained(hyper, slots):
        returned = rule.update(wide_grads, dict(slots), wide_params, hyper, step)  # pyright: ignore[reportArgumentType]
    deltas, new = check_all_returned(returned, wide_grads, slots, tuple(rule.scalars))
    results = [
        (_rounded(delta, grad, param, applied), {slot: new[slot][i] for slot in inputs.slots})
        for i, (delta, grad, param) in enumerate(zip(deltas, grads, param_or_none, strict=True))
    ]
    return results, {slot: cast_like(new[slot], old) for slot, old in scalars.items()}


def _rounded(delta: Array, grad: Array, param: Array | None, applied: bool) -> Array:
    """The update in its dtype; or, where it is `applied`, the new param."""
    if applied and param is not None:
        return (param.astype(delta.dtype) + delta).astype(param.dtype)
    return delta.astype(update_dtype(grad, param))


def update_dtype(grad: Array, param: Array | None) -> jnp.dtype:
    """An update is as precise as the wider of gradient and parameter."""
    return grad.dtype if param is None else jnp.promote_types(grad.dtype, param.dtype)


def widest_dtype(leaves: Iterable[Any]) -> jnp.dtype:
    """The dtype that holds what a whole tree has in common: the widest that any of its leaves is computed in."""
    dtypes = [real_dtype(compute_dtype(jnp.result_type(leaf))) for leaf in leaves]
    return jnp.dtype(jnp.result_type(*dtypes)) if dtypes else jnp.dtype(jnp.float32)


def _widen(slot: PyTree, dtype: jnp.dtype) -> PyTree:
    def widen(value: Array) -> Array:
        if not jnp.issubdtype(value.dtype, jnp.inexact):
            return value
        return value.astype(dtype if jnp.iscomplexobj(value) else real_dtype(dtype))

    return jax.tree.map(widen, slot)


def _sharding(array: jax.Array) -> Any:
    """How the array's type says that it is sharded over a mesh; None where it says nothing."""
    sharding = jax.typeof(array).sharding
    return sharding if sharding.mesh.shape else None
