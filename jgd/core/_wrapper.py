"""Optimizers around optimizers: what is done to gradients before the inner one, and to its updates after."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jgd.core._arguments import check_kind
from jgd.core._checks import check_complex, check_same_tree, flatten
from jgd.core._floats import cast_like, is_float
from jgd.core._formula import call_formula, update_dtype
from jgd.core._hyperparams import Hyperparams, get_hyperparams
from jgd.core._mistakes import errors_at
from jgd.core._numerics import compute_dtype, real_dtype, wide_copy
from jgd.core._optimizer import Optimizer, OptState, begin_update, check_params_given, first_state, make_optimizer
from jgd.core._packing import refuse_packed
from jgd.core._ranges import Range
from jgd.core._types import Array, GradientTransformation, Hyper, PyTree, ScalarOrSchedule, Slots


class WrapperState(NamedTuple):
    """The state of an optimizer around another one.

    Attributes:
        own: The wrapper's own count, hyperparameters and slots.
        inner: The state of the optimizer inside.
    """

    own: OptState
    inner: PyTree


class Wrapper(NamedTuple):
    """What a wrapper does to one leaf. Its formulas are called as those of rules are, in the leaf's compute dtype.

    Attributes:
        before: `before(grad, slots, param, hyper, step) -> (grad, slots)`, or None.
        after: `after(delta, grad, slots, param, hyper, step) -> (delta, slots)` with the gradient as it came, or None.
            Either may leave out slots that it does not change.
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
    inner: GradientTransformation,
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
        An optimizer whose state is `WrapperState(own, inner)`. Leaves that are not floats are left to the inner one.
    """
    check_kind(name, "inner", inner, GradientTransformation)
    numbers = Hyperparams(name, hyperparams, arrays, ranges)
    plan = _Plan(name, wrapper, numbers, optax.with_extra_args_support(inner))

    def init(params: PyTree) -> WrapperState:
        return _init(plan, params)

    def update(grads: PyTree, state: WrapperState, params: PyTree = None, **extra: Any) -> tuple[PyTree, WrapperState]:
        return _update(plan, grads, state, params, extra)

    text = ", ".join(filter(None, [transform_text(inner), numbers.text()]))
    return make_optimizer(init, update, f"jgd.{name}({text})")


class _Plan(NamedTuple):
    """The arguments of `wrap`, checked: all that the optimizer knows."""

    name: str
    wrapper: Wrapper
    hyperparams: Hyperparams
    inner: optax.GradientTransformationExtraArgs


class _Leaf(NamedTuple):
    path: Any
    grad: Any  # as it came
    param: Any  # None where no params were given
    slots: dict[str, Any]


def _init(plan: _Plan, params: PyTree) -> WrapperState:
    if not plan.wrapper.elementwise:
        refuse_packed(plan.name, params, "it looks at whole leaves")
    _, leaves, treedef = flatten(params)
    slots: dict[str, Any] = {
        slot: treedef.unflatten(make(wide_copy(leaf)) if is_float(leaf) else optax.MaskedNode() for leaf in leaves)
        for slot, make in plan.wrapper.slots.items()
    }
    return WrapperState(first_state(plan.hyperparams, slots), plan.inner.init(params))


def _update(
    plan: _Plan, grads: PyTree, state: WrapperState, params: PyTree, extra: Mapping[str, Any]
) -> tuple[PyTree, WrapperState]:
    wrapper = plan.wrapper
    used, step = begin_update(plan.hyperparams, state, WrapperState, slots=wrapper.slots)
    if wrapper.needs_params:
        check_params_given(plan.name, params)
    if params is not None:
        check_same_tree(plan.name, "grads", grads, "params", params)
    paths, grad_leaves, treedef = flatten(grads)
    param_leaves = [None] * len(paths) if params is None else treedef.flatten_up_to(params)
    stored = {slot: treedef.flatten_up_to(state.own.slots[slot]) for slot in wrapper.slots}
    leaves = [
        _Leaf(path, grad, param, {slot: values[i] for slot, values in stored.items()})
        for i, (path, grad, param) in enumerate(zip(paths, grad_leaves, param_leaves, strict=True))
    ]
    hyper = used | plan.hyperparams.complements(used)
    if wrapper.before is not None:
        of_inner = _read(plan.name, wrapper.reads, state.inner) if wrapper.after is None else {}
        called = [_on_leaf(plan, "before", (leaf.grad,), leaf, hyper | of_inner, step) for leaf in leaves]
        grads, leaves = treedef.unflatten(grad for grad, _ in called), [leaf for _, leaf in called]
    updates, inner = plan.inner.update(grads, state.inner, params, **extra)
    if wrapper.after is not None:
        hyper = hyper | _read(plan.name, wrapper.reads, inner)
        deltas = treedef.flatten_up_to(updates)
        called = [
            _on_leaf(plan, "after", (delta, leaf.grad), leaf, hyper, step)
            for leaf, delta in zip(leaves, deltas, strict=True)
        ]
        updates, leaves = treedef.unflatten(delta for delta, _ in called), [leaf for _, leaf in called]
    slots = {slot: treedef.unflatten(leaf.slots[slot] for leaf in leaves) for slot in wrapper.slots}
    return updates, WrapperState(OptState(step, used, slots), inner)


def _on_leaf(
    plan: _Plan, function: str, values: tuple[Any, ...], leaf: _Leaf, hyper: Hyper, step: Array
) -> tuple[Any, _Leaf]:
    """What the wrapper's `function` makes of the first of `values`, in its dtype, and the leaf with its new slots.

    Leaves that are not floats stay as they are.
    """
    if values[0] is None or not is_float(values[0]):
        return values[0], leaf
    if not plan.wrapper.supports_complex:
        check_complex(plan.name, leaf.path, values[0])
    arrays = [jnp.asarray(value) for value in values]
    param = None if leaf.param is None else jnp.asarray(leaf.param)
    slots = {slot: jnp.asarray(value) for slot, value in leaf.slots.items()}
    dtype = real_dtype(compute_dtype(update_dtype(arrays[0], param)))
    cast = {key: value.astype(dtype) for key, value in hyper.items()}
    formula, kind = getattr(plan.wrapper, function), "grad" if function == "before" else "delta"
    with errors_at(plan.name, function, [leaf.path]):
        result, new = call_formula(formula, arrays, slots, param, cast, step, result=kind, every_slot=False)
    new_slots = {slot: cast_like(new[slot], old) if slot in new else leaf.slots[slot] for slot, old in slots.items()}
    return result.astype(arrays[0].dtype), leaf._replace(slots=new_slots)


def _read(name: str, reads: Mapping[str, float | None], inner_state: PyTree) -> Hyper:
    """Hyperparameters of the inner optimizer, as its last update used them."""
    if not reads:
        return {}
    known = get_hyperparams(inner_state)
    values: Hyper = {}
    for hyperparam, default in reads.items():
        if hyperparam in known:
            values[hyperparam] = known[hyperparam]
        elif any(key.endswith(f".{hyperparam}") for key in known):
            raise ValueError(
                f"{name}: several parts of the inner optimizer have a {hyperparam}; put {name} around each of them."
            )
        elif default is not None:
            values[hyperparam] = jnp.asarray(default, jnp.result_type(float))
        else:
            raise ValueError(f"{name}: the inner optimizer has no hyperparameter {hyperparam}, which it needs.")
    return values


def transform_text(part: GradientTransformation) -> str:
    """An optimizer as one would write it."""
    return repr(part) if isinstance(part, Optimizer) else "<optax transform>"
