"""From a rule for one leaf to an optimizer for any tree. This is the one place that knows how leaves are laid out and
how slots are stored while an update runs.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jgd.core import _checks
from jgd.core._authored import check_prepared, first_of_tree, first_value, looking_up, telling
from jgd.core._containers import as_found, as_made
from jgd.core._declared import check_blocks, check_chosen, check_lifted
from jgd.core._floats import zero_update
from jgd.core._hyperparams import Hyperparams
from jgd.core._layouts import Layout, layout_of, resolve_layout
from jgd.core._numerics import compute_dtype, increment, real_dtype
from jgd.core._optimizer import Optimizer, OptState, make_optimizer
from jgd.core._packing import refuse_packed
from jgd.core._ranges import Range
from jgd.core._rule import Rule, TreeRule
from jgd.core._run import leaf_update, run_block, run_tree, update_dtype, widest_dtype
from jgd.core._same import Cached
from jgd.core._storage import Storage, resolve_storages
from jgd.core._types import Hyper, PyTree, ScalarOrSchedule


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
    state_dtype: Any = None,
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
    given = Hyperparams(name, hyperparams, arrays, ranges)
    slot_names = tuple(dict.fromkeys(slot for rule in all_rules for slot in rule.slots))
    scalars = all_rules[0].scalars if isinstance(all_rules[0], TreeRule) else {}
    needs = tuple(dict.fromkeys(need for rule in all_rules for need in rule.needs))
    storages = resolve_storages(name, all_rules, slot_dtypes or {}, state_dtype)
    whole = any(rule.kind != "elementwise" for rule in all_rules) or any(store.by_row for store in storages.values())
    lay_out = resolve_layout(layout)
    # One jitted function a rule: leaves of one shape and dtype share its trace, and its text in the compiled program.
    runs = Cached(lambda rule, moves: jax.jit(leaf_update(rule, moves)))

    def init(params: PyTree) -> OptState:
        if whole:
            refuse_packed(name, params, "its rule or its state_dtype looks at whole leaves")
        paths, leaves, treedef = _checks.flatten(params)
        leaf_rules = _rules_of(name, all_rules, choose, params, paths, leaves)
        slots: dict[str, Any] = {
            slot: treedef.unflatten(
                _new_slot(name, path, rule, slot, storages[slot], leaf)
                for path, rule, leaf in zip(paths, leaf_rules, leaves, strict=True)
            )
            for slot in slot_names
        }
        trained = [wide_copy(leaf) for leaf, rule in zip(leaves, leaf_rules, strict=True) if rule is not None]
        for slot, make in scalars.items():
            with telling(name, f"the slot {slot!r} of the whole tree"):
                value = first_of_tree(make, trained)
            is_number = jnp.issubdtype(value.dtype, jnp.inexact)
            slots[slot] = jnp.array(value, widest_dtype(trained) if is_number else value.dtype, copy=True)
        return OptState(count=jnp.zeros((), jnp.int32), hyperparams=given.init(), slots=slots)

    def advance(grads: PyTree, state: OptState, params: PyTree, extra: Any, moves: bool) -> tuple[PyTree, OptState]:
        """The updates, or the new params if it `moves`; and the new state."""
        if whole:
            refuse_packed(name, grads, "its rule or its state_dtype looks at whole leaves")
        _check_trees(name, all_rules, (*slot_names, *scalars), grads, state, params, needs_params=before is not None)
        hyper = given.at_step(state.hyperparams, state.count)
        count = increment(state.count)
        if before is not None:
            grads = before(grads, params, hyper)
        like = grads if params is None else params
        paths, leaves, treedef = _checks.flatten(like)
        leaf_rules = _rules_of(name, all_rules, choose, like, paths, leaves)
        if params is None and None in leaf_rules:
            _checks.refuse_integer_grad(name, paths[leaf_rules.index(None)], leaves[leaf_rules.index(None)])
        grad_leaves = treedef.flatten_up_to(grads)
        stored = {slot: _checks.flatten_slot(name, slot, state.slots[slot], grads) for slot in slot_names}
        found_stored = {slot: tuple(values) for slot, values in stored.items()}
        shared = {slot: state.slots[slot] for slot in scalars}
        given_numbers = _checks.given_numbers(name, needs, extra)

        @functools.cache
        def prepared(rule: Rule, dtype: Any) -> Hyper:
            full = hyper | given.complements(hyper) | given_numbers
            cast = {key: value.astype(real_dtype(dtype)) for key, value in full.items()}
            with telling(name, "prepare"), looking_up(cast, {}):
                return check_prepared(rule.prepare(cast, count))

        still = [leaf if moves else zero_update(leaf) for leaf in leaves]
        found = [leaf if rule is None else None for leaf, rule in zip(still, leaf_rules, strict=True)]
        for rule in dict.fromkeys(rule for rule in leaf_rules if rule is not None):
            members = [i for i, leaf_rule in enumerate(leaf_rules) if leaf_rule is rule or leaf_rule == rule]
            for i in members:
                for slot in rule.slots:
                    new_slot = functools.partial(_new_slot, name, paths[i], rule, slot, storages[slot])
                    stored[slot][i] = as_made(stored[slot][i], functools.partial(jax.eval_shape, new_slot, leaves[i]))
                own = {slot: stored[slot][i] for slot in rule.slots}
                _check_leaf(name, rule, paths[i], grad_leaves[i], leaves[i], own)
            member_grads = [jnp.asarray(grad_leaves[i]) for i in members]
            member_params = None if params is None else [jnp.asarray(leaves[i]) for i in members]
            loaded = {slot: [storages[slot].load(stored[slot][i]) for i in members] for slot in rule.slots}
            ready = functools.partial(prepared, rule)
            if isinstance(rule, TreeRule):
                with telling(name, "the update", [paths[i] for i in members]):
                    given_back, new = run_tree(rule, ready, count, member_grads, loaded | shared, member_params, moves)
                shared = {slot: _stored_scalar(new[slot], value) for slot, value in shared.items()}
                by_leaf = [(leaf, {slot: new[slot][j] for slot in rule.slots}) for j, leaf in enumerate(given_back)]
            else:
                by_leaf = _run_blocks(
                    layout_of(rule, lay_out),
                    rule,
                    runs(rule, moves),
                    ready,
                    count,
                    member_grads,
                    loaded,
                    member_params,
                    lambda what, block, of=members: telling(name, what, [paths[of[i]] for i in block]),
                )
            for i, (leaf, new) in zip(members, by_leaf, strict=True):
                found[i] = leaf
                for slot, value in new.items():
                    seed = _seed(count, slot_names.index(slot) * len(leaves) + i)
                    saved = storages[slot].save(value, stored[slot][i], seed)
                    stored[slot][i] = as_found(saved, found_stored[slot][i])
        slots = {slot: treedef.unflatten(stored[slot]) for slot in slot_names}
        return treedef.unflatten(found), OptState(count=count, hyperparams=hyper, slots=slots | shared)

    def update(grads: PyTree, state: OptState, params: PyTree = None, **extra: Any) -> tuple[PyTree, OptState]:
        return advance(grads, state, params, extra, moves=False)

    def update_params(grads: PyTree, state: OptState, params: PyTree, **extra: Any) -> tuple[PyTree, OptState]:
        return advance(grads, state, params, extra, moves=True)

    return make_optimizer(init, update, f"jgd.{name}({given.text()})", update_params)


def _run_blocks(
    lay_out: Layout,
    rule: Rule,
    run: Callable[..., Any],
    prepared: Callable[[Any], Hyper],
    step: jax.Array,
    grads: Sequence[jax.Array],
    slots: Mapping[str, Sequence[PyTree]],
    params: Sequence[jax.Array] | None,
    telling_of: Callable[[str, Sequence[int]], Any],
) -> list[Any]:
    """Each leaf's update and slots, the leaves laid out in blocks while they run."""
    by_leaf: list[Any] = [None] * len(grads)
    like = [
        jax.ShapeDtypeStruct(grad.shape, update_dtype(grad, param), sharding=_sharding(grad))
        for grad, param in zip(grads, [None] * len(grads) if params is None else params, strict=True)
    ]
    with telling_of("the layout", ()):
        blocks = check_blocks(lay_out(rule, like), len(like))
    for block in blocks:
        with telling_of("the update", block.indices):
            found = run_block(
                block,
                run,
                prepared,
                step,
                [grads[i] for i in block.indices],
                {slot: [values[i] for i in block.indices] for slot, values in slots.items()},
                None if params is None else [params[i] for i in block.indices],
            )
        for i, result in zip(block.indices, found, strict=True):
            by_leaf[i] = result
    return by_leaf


def _sharding(array: jax.Array) -> Any:
    """How the array's type says that it is sharded over a mesh; None where it says nothing."""
    sharding = jax.typeof(array).sharding
    return sharding if sharding.mesh.shape else None


def _rules_of(
    name: str,
    rules: Sequence[Rule | TreeRule],
    choose: Callable[[PyTree], PyTree] | None,
    tree: PyTree,
    paths: Sequence[Any],
    leaves: Sequence[Any],
) -> list[Any]:
    """Each leaf's rule; None for leaves that are no floats, which are left alone."""
    chosen = (
        [rules[0]] * len(leaves) if choose is None or not leaves else check_chosen(name, rules, choose(tree), paths)
    )
    trainable = [_checks.is_trainable(name, path, leaf) for path, leaf in zip(paths, leaves, strict=True)]
    for path, leaf, rule in zip(paths, leaves, chosen, strict=True):
        if not rule.supports_complex:
            _checks.check_complex(name, path, leaf)
    return [rule if moves else None for rule, moves in zip(chosen, trainable, strict=True)]


def _new_slot(name: str, path: Any, rule: Rule | None, slot: str, storage: Storage, leaf: Any) -> Any:
    """The first value of one leaf's slot, a marker without arrays where the leaf has no such slot."""
    if rule is None or slot not in rule.slots:
        return optax.MaskedNode()
    with telling(name, f"the slot {slot!r}", [path]):
        value = first_value(rule.slots[slot], wide_copy(leaf), rule.kind == "elementwise")
    return storage.create(value, jnp.result_type(leaf))


def wide_copy(leaf: Any) -> jax.Array:
    """The leaf in its compute dtype, in a buffer of its own: state and params may both be donated."""
    dtype = compute_dtype(jnp.result_type(leaf))
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jnp.zeros_like(leaf, dtype=dtype)
    return jnp.array(leaf, dtype=dtype, copy=True)


def _seed(count: jax.Array, place: int) -> jax.Array:
    """A number of its own for each update and each place in the state; both factors are odd, and so lose no bit."""
    return count.astype(jnp.uint32) * jnp.uint32(0x9E3779B1) + jnp.uint32(place * 0x85EBCA77 % 2**32)


def _stored_scalar(value: jax.Array, old: jax.Array) -> jax.Array:
    return value if value.dtype == old.dtype else value.astype(old.dtype)  # keys have no astype


def _check_trees(
    name: str,
    rules: Sequence[Rule | TreeRule],
    slot_names: Sequence[str],
    grads: PyTree,
    state: Any,
    params: PyTree,
    *,
    needs_params: bool,
) -> None:
    if not isinstance(state, OptState):
        raise TypeError(f"{name}: expected the OptState that this optimizer's init made; got {type(state).__name__}.")
    if set(state.slots) != set(slot_names):
        raise ValueError(
            f"{name}: the state has the slots {sorted(state.slots)}, this optimizer has {sorted(slot_names)}."
            " Pass the state that this optimizer's init made."
        )
    if params is None and (needs_params or any(rule.needs_params for rule in rules)):
        raise ValueError(f"{name}: this rule reads the params: call update(grads, state, params); got params=None.")
    if params is not None:
        _checks.check_same_tree(name, "grads", grads, "params", params)


def _check_leaf(name: str, rule: Rule, path: Any, grad: Any, like: Any, slots: Mapping[str, Any]) -> None:
    _checks.check_grad(name, path, grad, like)
    if rule.kind != "elementwise":
        return
    for slot, stored in slots.items():
        if isinstance(stored, jax.Array) and stored.shape != jnp.shape(grad):
            raise ValueError(
                f"{name}: the gradient at {_checks.path_text(path)} has shape {jnp.shape(grad)}; expected that of the"
                f" state's slot {slot!r}, {stored.shape}."
            )
