"""From a rule for one leaf to an optimizer for any tree. This is the one place that knows how leaves are laid out and
how slots are stored while an update runs.

`lift` makes a `Plan` of its arguments. `_init` makes the state, a `_new_slot` for each leaf. `_update` is an update
from top to bottom: it checks, reads the hyperparameters of the step, and gives each rule its leaves. `_update_leaves`
loads their slots, calls the rule (`jgd.core._formula`) and saves the slots again.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jgd.core import _checks
from jgd.core._containers import as_made, as_stored
from jgd.core._fingerprints import Cached
from jgd.core._floats import zero_update
from jgd.core._formula import Inputs, Prepare, blocks_update, leaf_update, tree_update, widest_dtype
from jgd.core._hyperparams import Hyperparams
from jgd.core._layouts import Layout, layout_of, resolve_layout
from jgd.core._mistakes import check_prepared, errors_at, first_of_tree, first_value, key_errors_explained
from jgd.core._numerics import real_dtype, wide_copy
from jgd.core._optimizer import Optimizer, OptState, begin_update, check_params_given, first_state, make_optimizer
from jgd.core._packing import refuse_packed
from jgd.core._ranges import Range
from jgd.core._rule import Rule, TreeRule
from jgd.core._rule_checks import check_chosen, check_lifted
from jgd.core._storage import StateDtype, Storage, resolve_storages
from jgd.core._types import Array, Hyper, PyTree, ScalarOrSchedule, Slots


class Plan(NamedTuple):
    """The arguments of `lift`, checked and resolved: all that the optimizer knows.

    A tuple, so that libraries which look for an optimizer's arrays in its closures find those of `hyperparams`.
    """

    name: str
    rules: tuple[Rule | TreeRule, ...]
    hyperparams: Hyperparams
    choose: Callable[[PyTree], PyTree] | None
    before: Callable[[PyTree, PyTree, Hyper], PyTree] | None
    storages: Mapping[str, Storage]  # by slot: between them the rules have these
    scalars: Mapping[str, Callable[[list[Array]], Array]]  # slots of the whole tree
    needs: tuple[str, ...]  # what `update` must be given besides
    sees_whole_leaves: bool
    layout: Layout
    compiled: Cached  # `compiled(rule, applied)`: leaves of one shape and dtype share its trace and its program text


class _Leaf(NamedTuple):
    """One leaf that an update changes, and where it stands among all leaves."""

    index: int
    path: Any
    value: Any  # the param; the gradient where no params were given
    grad: Any
    slots: dict[str, PyTree]  # as they are stored


class _Step(NamedTuple):
    """What all leaves of one update share."""

    count: Array  # of this update, from 1
    prepare: Callable[[Rule | TreeRule, Any], Hyper]
    leaves: int  # in the whole tree
    has_params: bool
    applied: bool  # whether new params are made, in the updates' place


def lift(
    rules: Rule | TreeRule | Sequence[Rule],
    hyperparams: Mapping[str, ScalarOrSchedule],
    *,
    name: str,
    choose: Callable[[PyTree], PyTree] | None = None,
    before: Callable[[PyTree, PyTree, Hyper], PyTree] | None = None,
    arrays: Sequence[str] = (),
    ranges: Mapping[str, Range] | None = None,
    slot_dtypes: Mapping[str, Any] | None = None,
    state_dtype: StateDtype | None = None,
    layout: str | Layout = "auto",
) -> Optimizer:
    """Turns a leaf rule into an optimizer over any tree of params.

    Args:
        rules: The rule, or one of each kind that `choose` may pick: between them they have every slot.
        hyperparams: Every number of the rule by name: numbers, scalar arrays or schedules. They become arrays in the
            state.
        name: The factory's name, for messages and for `print`.
        choose: `choose(params) -> tree` of rules, one for each leaf. Not needed where there is one rule.
        before: `before(grads, params, hyper) -> grads` on whole trees, what happens to the gradients first. It needs
            params.
        arrays: Names of hyperparameters that are arrays of any shape; all others are scalars.
        ranges: Where hyperparameters may lie, for those whose range is not that of their name.
        slot_dtypes: For each slot with a dtype argument of its own that argument; see `state_dtype`.
        state_dtype: How slots are stored: `"bfloat16"` or `"float16"` (rounded stochastically), `"int8"` (with a scale
            for each row), a float dtype or a `Storage`, for all of them or by name in a mapping. None leaves it to
            `slot_dtypes`, and float32 (wider where the param is wider) for the rest.
        layout: How leaves are laid out while the update runs: `"auto"`, `"alone"`, `"packed"`, `"stacked"`, or a
            layout function. See `jgd.core.Layout`.

    Returns:
        An optimizer whose state is `OptState(count, hyperparams, slots)`.

    Raises:
        TypeError, ValueError: A hyperparameter, dtype or layout that cannot be right. `init` and `update` raise them
            for a rule whose functions return other things than they must: a delta or a slot of another shape or dtype,
            a slot too few or too many. The message names the rule, the leaf and the slot.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.core import Rule, lift
        >>> def sign_descent(grad, slots, param, hyper, step):
        ...     return -hyper["learning_rate"] * jnp.sign(grad), {}
        >>> optimizer = lift(Rule(sign_descent), {"learning_rate": 0.5}, name="sign_descent")
        >>> updates, state = optimizer.update(jnp.array([3.0, -2.0]), optimizer.init(jnp.zeros(2)))
        >>> print(updates)
        [-0.5  0.5]
    """
    check_lifted(name, rules, (Rule, TreeRule), hyperparams)
    all_rules: tuple[Any, ...] = (rules,) if isinstance(rules, Rule | TreeRule) else tuple(rules)
    numbers = Hyperparams(name, hyperparams, arrays, ranges)
    storages = resolve_storages(name, all_rules, slot_dtypes or {}, state_dtype)
    slots = dict.fromkeys(slot for rule in all_rules for slot in rule.slots)
    by_row = any(store.by_row for store in storages.values())
    plan = Plan(
        name=name,
        rules=all_rules,
        hyperparams=numbers,
        choose=choose,
        before=before,
        storages={slot: storages[slot] for slot in slots},
        scalars=all_rules[0].scalars if isinstance(all_rules[0], TreeRule) else {},
        needs=tuple(dict.fromkeys(need for rule in all_rules for need in rule.needs)),
        sees_whole_leaves=by_row or any(rule.kind != "elementwise" for rule in all_rules),
        layout=resolve_layout(layout),
        compiled=Cached(lambda rule, applied: jax.jit(leaf_update(rule, applied))),
    )

    def init(params: PyTree) -> OptState:
        return _init(plan, params)

    def update(grads: PyTree, state: OptState, params: PyTree = None, **extra: Any) -> tuple[PyTree, OptState]:
        return _update(plan, grads, state, params, extra, applied=False)

    def update_params(grads: PyTree, state: OptState, params: PyTree, **extra: Any) -> tuple[PyTree, OptState]:
        return _update(plan, grads, state, params, extra, applied=True)

    return make_optimizer(init, update, f"jgd.{name}({numbers.text()})", update_params)


def _init(plan: Plan, params: PyTree) -> OptState:
    _refuse_packed(plan, params)
    paths, values, treedef = _checks.flatten(params)
    rules = _rules_of(plan, params, paths, values)
    slots: dict[str, Any] = {
        slot: treedef.unflatten(
            _new_slot(plan, slot, rule, path, value) for rule, path, value in zip(rules, paths, values, strict=True)
        )
        for slot in plan.storages
    }
    trained = [wide_copy(value) for value, rule in zip(values, rules, strict=True) if rule is not None]
    for slot, make in plan.scalars.items():
        with errors_at(plan.name, f"the slot {slot!r} of the whole tree"):
            first = first_of_tree(make, trained)
        is_number = jnp.issubdtype(first.dtype, jnp.inexact)
        slots[slot] = jnp.array(first, widest_dtype(trained) if is_number else first.dtype, copy=True)
    return first_state(plan.hyperparams, slots)


def _update(
    plan: Plan, grads: PyTree, state: OptState, params: PyTree, extra: Mapping[str, Any], *, applied: bool
) -> tuple[PyTree, OptState]:
    """The updates, or the new params where they are `applied`; and the new state."""
    _refuse_packed(plan, grads)
    hyper, count = begin_update(plan.hyperparams, state, OptState, slots=(*plan.storages, *plan.scalars))
    _check_params(plan, grads, params)
    if plan.before is not None:
        grads = plan.before(grads, params, hyper)
    tree = grads if params is None else params
    paths, values, treedef = _checks.flatten(tree)
    rules = _rules_of(plan, tree, paths, values)
    if params is None and None in rules:
        _checks.refuse_integer_grad(plan.name, paths[rules.index(None)], values[rules.index(None)])
    grad_leaves = treedef.flatten_up_to(grads)
    slots = {slot: _checks.flatten_slot(plan.name, slot, state.slots[slot], grads) for slot in plan.storages}
    scalars: dict[str, Array] = {slot: state.slots[slot] for slot in plan.scalars}
    needs = _checks.needed_numbers(plan.name, plan.needs, extra)
    prepare = functools.cache(functools.partial(_prepared, plan, hyper, needs, count))
    step = _Step(count, prepare, len(values), params is not None, applied)
    results = [value if applied else zero_update(value) for value in values]
    for rule in dict.fromkeys(rule for rule in rules if rule is not None):
        leaves = [
            _Leaf(i, paths[i], values[i], grad_leaves[i], {slot: slots[slot][i] for slot in rule.slots})
            for i, rule_of_leaf in enumerate(rules)
            if rule_of_leaf == rule
        ]
        updates, scalars = _update_leaves(plan, rule, step, leaves, scalars)
        for leaf, (result, new_slots) in zip(leaves, updates, strict=True):
            results[leaf.index] = result
            for slot, value in new_slots.items():
                slots[slot][leaf.index] = value
    new_slots = {slot: treedef.unflatten(values) for slot, values in slots.items()}
    return treedef.unflatten(results), OptState(count=count, hyperparams=hyper, slots=new_slots | scalars)


def _update_leaves(
    plan: Plan, rule: Rule | TreeRule, step: _Step, leaves: Sequence[_Leaf], scalars: dict[str, Array]
) -> tuple[list[tuple[Array, Slots]], dict[str, Array]]:
    """The leaves of one rule: each one's update and slots as they are stored; and the slots of the whole tree."""
    stored = [_slots_as_made(plan, rule, leaf) for leaf in leaves]
    for leaf, slots in zip(leaves, stored, strict=True):
        _check_leaf(plan, rule, leaf, slots)
    inputs = Inputs(
        grads=[jnp.asarray(leaf.grad) for leaf in leaves],
        params=[jnp.asarray(leaf.value) for leaf in leaves] if step.has_params else None,
        slots={slot: [plan.storages[slot].load(slots[slot]) for slots in stored] for slot in rule.slots},
    )
    prepare = functools.partial(step.prepare, rule)
    if isinstance(rule, TreeRule):
        with errors_at(plan.name, "the update", [leaf.path for leaf in leaves]):
            updates, scalars = tree_update(rule, prepare, step.count, inputs, scalars, step.applied)
    else:
        updates = _update_blocks(plan, rule, step, leaves, prepare, inputs)
    return [
        (update, _saved(plan, step, leaf, slots, new))
        for leaf, slots, (update, new) in zip(leaves, stored, updates, strict=True)
    ], scalars


def _update_blocks(
    plan: Plan, rule: Rule, step: _Step, leaves: Sequence[_Leaf], prepare: Prepare, inputs: Inputs
) -> list[tuple[Array, Slots]]:
    def errors_at_leaves(function: str, indices: Sequence[int]) -> Any:
        return errors_at(plan.name, function, [leaves[i].path for i in indices])

    layout, update = layout_of(rule, plan.layout), plan.compiled(rule, step.applied)
    return blocks_update(rule, layout, update, prepare, step.count, inputs, errors_at_leaves)


def _prepared(plan: Plan, hyper: Hyper, needs: Hyper, count: Array, rule: Rule | TreeRule, dtype: Any) -> Hyper:
    """The hyperparameters of this update as the rule's formula takes them, in a compute dtype."""
    everything = hyper | plan.hyperparams.complements(hyper) | needs
    cast = {key: value.astype(real_dtype(dtype)) for key, value in everything.items()}
    with errors_at(plan.name, "prepare"), key_errors_explained(cast, {}):
        return check_prepared(rule.prepare(cast, count))


def _slots_as_made(plan: Plan, rule: Rule | TreeRule, leaf: _Leaf) -> Slots:
    """The leaf's stored slots in the containers that `init` made, where another library put them into its own."""

    def made(slot: str) -> PyTree:
        return jax.eval_shape(functools.partial(_new_slot, plan, slot, rule, leaf.path), leaf.value)

    return {slot: as_made(value, functools.partial(made, slot)) for slot, value in leaf.slots.items()}


def _saved(plan: Plan, step: _Step, leaf: _Leaf, stored: Slots, new: Slots) -> Slots:
    """The leaf's new slots, stored as those before them."""
    names = list(plan.storages)
    saved = {}
    for slot, value in new.items():
        seed = _seed(step.count, names.index(slot) * step.leaves + leaf.index)
        saved[slot] = as_stored(plan.storages[slot].save(value, stored[slot], seed), leaf.slots[slot])
    return saved


def _seed(count: jax.Array, place: int) -> jax.Array:
    """A number of its own for each update and each place in the state; both factors are odd, so no bit is lost."""
    return count.astype(jnp.uint32) * jnp.uint32(0x9E3779B1) + jnp.uint32(place * 0x85EBCA77 % 2**32)


def _rules_of(plan: Plan, tree: PyTree, paths: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """Each leaf's rule; None for leaves that are not floats, which are left alone."""
    if plan.choose is None or not values:
        chosen: list[Any] = [plan.rules[0]] * len(values)
    else:
        chosen = check_chosen(plan.name, plan.rules, plan.choose(tree), paths)
    trainable = [_checks.is_trainable(plan.name, path, value) for path, value in zip(paths, values, strict=True)]
    for path, value, rule in zip(paths, values, chosen, strict=True):
        if not rule.supports_complex:
            _checks.check_complex(plan.name, path, value)
    return [rule if is_trainable else None for rule, is_trainable in zip(chosen, trainable, strict=True)]


def _new_slot(plan: Plan, slot: str, rule: Rule | TreeRule | None, path: Any, value: Any) -> Any:
    """The first value of one leaf's slot, a marker without arrays where the leaf has no such slot."""
    if rule is None or slot not in rule.slots:
        return optax.MaskedNode()
    with errors_at(plan.name, f"the slot {slot!r}", [path]):
        first = first_value(rule.slots[slot], wide_copy(value), rule.kind == "elementwise")
    return plan.storages[slot].create(first, jnp.result_type(value))


def _refuse_packed(plan: Plan, tree: PyTree) -> None:
    if plan.sees_whole_leaves:
        refuse_packed(plan.name, tree, "its rule or its state_dtype looks at whole leaves")


def _check_params(plan: Plan, grads: PyTree, params: PyTree) -> None:
    if plan.before is not None or any(rule.needs_params for rule in plan.rules):
        check_params_given(plan.name, params, "this rule")
    if params is not None:
        _checks.check_same_tree(plan.name, "grads", grads, "params", params)


def _check_leaf(plan: Plan, rule: Rule | TreeRule, leaf: _Leaf, stored: Slots) -> None:
    _checks.check_grad(plan.name, leaf.path, leaf.grad, leaf.value)
    if rule.kind != "elementwise":
        return
    for slot, value in stored.items():
        if isinstance(value, jax.Array) and value.shape != jnp.shape(leaf.grad):
            raise ValueError(
                f"{plan.name}: the gradient at {_checks.path_text(leaf.path)} has shape {jnp.shape(leaf.grad)};"
                f" expected that of the state's slot {slot!r}, {value.shape}."
            )
