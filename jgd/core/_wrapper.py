"""Optimizers around optimizers: what is done to gradients before the inner one, and to its updates after."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jgd.core._checks import check_same_tree, flatten
from jgd.core._floats import is_float
from jgd.core._hyperparams import Hyperparams, get_hyperparams
from jgd.core._lift import wide_copy
from jgd.core._numerics import compute_dtype, increment, real_dtype
from jgd.core._optimizer import Optimizer, OptState, make_optimizer
from jgd.core._packing import refuse_packed
from jgd.core._ranges import Range
from jgd.core._types import Array, Hyper, PyTree, ScalarOrSchedule, Slots


class WrapperState(NamedTuple):
    """The state of an optimizer around another one.

    Attributes:
        own: The wrapper's own count, hyperparameters and slots.
        inner: The state of the optimizer inside.
    """

    own: OptState
    inner: PyTree


class Wrapper(NamedTuple):
    """What a wrapper does to one leaf.

    Attributes:
        before: `before(grad, slots, param, hyper, step) -> (grad, slots)`, or None.
        after: `after(delta, grad, slots, param, hyper, step) -> (delta, slots)` with the gradient as it came, or None.
        slots: For each slot its name and the function that makes its first value from the parameter.
        reads: Hyperparameters of the inner optimizer that the formulas read, such as `learning_rate`, each with the
            value to use where it has none (None to refuse).
        needs_params: Whether the formulas read the parameter.
        supports_complex: Whether they hold for complex leaves.
        elementwise: Whether they see each entry alone; such wrappers take packed params.
    """

    before: Callable[[Array, Slots, Array, Hyper, Array], tuple[Array, Slots]] | None = None
    after: Callable[[Array, Array, Slots, Array, Hyper, Array], tuple[Array, Slots]] | None = None
    slots: Mapping[str, Callable[[Array], Array]] = {}
    reads: Mapping[str, float | None] = {}
    needs_params: bool = False
    supports_complex: bool = True
    elementwise: bool = False


def wrap(
    inner: optax.GradientTransformation,
    wrapper: Wrapper,
    hyperparams: Mapping[str, ScalarOrSchedule],
    *,
    name: str,
    arrays: Sequence[str] = (),
    ranges: Mapping[str, Range] | None = None,
) -> Optimizer:
    """Puts a wrapper around any optimizer.

    Args:
        inner: jgd's or optax's.
        wrapper: What is done to one leaf before and after.
        hyperparams: The wrapper's own numbers by name.
        name: The factory's name, for messages and for `print`.
        arrays: Names of hyperparameters that are arrays of any shape.
        ranges: Where hyperparameters may lie, for those whose range is not that of their name.

    Returns:
        An optimizer whose state is `WrapperState(own, inner)`. Leaves that are no floats are left to the inner one.
    """
    check_transform(name, inner)
    inside = optax.with_extra_args_support(inner)
    given = Hyperparams(name, hyperparams, arrays, ranges)

    def init(params: PyTree) -> WrapperState:
        if not wrapper.elementwise:
            refuse_packed(name, params, "it looks at whole leaves")
        _, leaves, treedef = flatten(params)
        slots = {
            slot: treedef.unflatten(make(wide_copy(p)) if is_float(p) else optax.MaskedNode() for p in leaves)
            for slot, make in wrapper.slots.items()
        }
        return WrapperState(OptState(jnp.zeros((), jnp.int32), given.init(), slots), inside.init(params))

    def update(grads: PyTree, state: WrapperState, params: PyTree = None, **extra: Any) -> tuple[PyTree, WrapperState]:
        if not isinstance(state, WrapperState):
            raise TypeError(f"{name}: expected the WrapperState of this optimizer's init; got {type(state).__name__}.")
        if wrapper.needs_params and params is None:
            raise ValueError(f"{name}: it reads the params: call update(grads, state, params); got params=None.")
        if params is not None:
            check_same_tree(name, "grads", grads, "params", params)
        own, step = state.own, increment(state.own.count)
        hyper = given.at_step(own.hyperparams, own.count)
        grad_leaves, treedef = jax.tree.flatten(grads)
        param_leaves = [None] * len(grad_leaves) if params is None else treedef.flatten_up_to(params)
        stored = {slot: treedef.flatten_up_to(own.slots[slot]) for slot in wrapper.slots}
        full = hyper | given.complements(hyper)
        if wrapper.before is not None:
            full = full | _read(name, wrapper.reads, state.inner) if wrapper.after is None else full
            changed = [
                _on_leaf(wrapper.before, (g,), stored, i, p, full, step, name, wrapper)
                for i, (g, p) in enumerate(zip(grad_leaves, param_leaves, strict=True))
            ]
            grads = treedef.unflatten(changed)
        updates, new_inner = inside.update(grads, state.inner, params, **extra)
        if wrapper.after is not None:
            full = full | _read(name, wrapper.reads, new_inner)
            deltas = treedef.flatten_up_to(updates)
            changed = [
                _on_leaf(wrapper.after, (d, g), stored, i, p, full, step, name, wrapper)
                for i, (d, g, p) in enumerate(zip(deltas, grad_leaves, param_leaves, strict=True))
            ]
            updates = treedef.unflatten(changed)
        slots = {slot: treedef.unflatten(values) for slot, values in stored.items()}
        return updates, WrapperState(OptState(step, hyper, slots), new_inner)

    return make_optimizer(init, update, f"jgd.{name}({', '.join(filter(None, [transform_text(inner), given.text()]))})")


def _on_leaf(
    formula: Callable[..., Any],
    values: tuple[Any, ...],
    stored: dict[str, list[Any]],
    i: int,
    param: Any,
    hyper: Hyper,
    step: Array,
    name: str,
    wrapper: Wrapper,
) -> Any:
    """Runs a formula on leaf `i` in its compute dtype; new slots replace those in `stored`."""
    if values[0] is None or not is_float(values[0]):
        return values[0]
    first = jnp.asarray(values[0])
    if jnp.iscomplexobj(first) and not wrapper.supports_complex:
        raise TypeError(f"{name}: a leaf is complex ({first.dtype}), which it does not support; expected real leaves.")
    dtype = compute_dtype(jnp.promote_types(first.dtype, first.dtype if param is None else jnp.result_type(param)))
    cast = {key: value.astype(real_dtype(dtype)) for key, value in hyper.items()}
    slots = {slot: jnp.asarray(leaves[i]) for slot, leaves in stored.items()}
    wide = {k: v.astype(dtype if jnp.iscomplexobj(v) else real_dtype(dtype)) for k, v in slots.items()}
    wide_param = None if param is None else jnp.asarray(param).astype(dtype)
    result, new = formula(*(jnp.asarray(v).astype(dtype) for v in values), wide, wide_param, cast, step)
    for slot, value in new.items():
        stored[slot][i] = value.astype(slots[slot].dtype)
    return result.astype(first.dtype)


def _read(name: str, reads: Mapping[str, float | None], inner_state: PyTree) -> Hyper:
    """Hyperparameters of the inner optimizer, as its last update used them."""
    if not reads:
        return {}
    known = get_hyperparams(inner_state)
    found: Hyper = {}
    for wanted, otherwise in reads.items():
        if wanted in known:
            found[wanted] = known[wanted]
        elif any(key.endswith(f".{wanted}") for key in known):
            raise ValueError(
                f"{name}: several parts of the inner optimizer have a {wanted}; put {name} around each of them."
            )
        elif otherwise is not None:
            found[wanted] = jnp.asarray(otherwise, jnp.result_type(float))
        else:
            raise ValueError(f"{name}: the inner optimizer has no hyperparameter {wanted}, which it needs.")
    return found


def check_transform(owner: str, part: Any) -> None:
    """Refuses what is no optimizer.

    Raises:
        TypeError: It has no `init` and `update`.
    """
    if not (isinstance(part, tuple) and hasattr(part, "init") and hasattr(part, "update")):
        hint = ""
        if callable(part):
            name = getattr(part, "__name__", "factory")
            hint = f" If {name} makes one, call it: {name}(...)."
        elif isinstance(part, str):
            hint = f" Optimizers have no names in text: call the factory, such as jgd.{part}(learning_rate)."
        raise TypeError(f"{owner}: expected an optimizer or transform; got a {type(part).__name__}.{hint}")


def transform_text(part: Any) -> str:
    """An optimizer as one would write it."""
    return repr(part) if isinstance(part, Optimizer) else "<optax transform>"
