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
from jgd.core._hyperparams import Hyperparams
from jgd.core._layouts import Block, Layout, resolve_layout
from jgd.core._numerics import compute_dtype, increment, real_dtype
from jgd.core._optimizer import Optimizer, OptState, make_optimizer
from jgd.core._rule import Rule
from jgd.core._storage import Storage, resolve_storage
from jgd.core._types import Array, Hyper, PyTree, ScalarOrSchedule, Slots


def lift(
    rules: Rule | Sequence[Rule],
    hyperparams: Mapping[str, ScalarOrSchedule],
    *,
    name: str,
    choose: Callable[[PyTree], PyTree] | None = None,
    arrays: Sequence[str] = (),
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
        arrays: Names of hyperparameters that are arrays of any shape; all others are scalars.
        slot_dtypes: For each slot with a dtype argument of its own that argument; see `state_dtype`.
        state_dtype: The dtype in which every slot is stored; None leaves it to `slot_dtypes`, and float32 (wider
            where the param is wider) for the rest.
        layout: How leaves are laid out while the update runs: `"auto"`, `"alone"`, or a layout function.

    Returns:
        An optimizer whose state is `OptState(count, hyperparams, slots)`.

    Raises:
        TypeError, ValueError: A hyperparameter, dtype or layout that cannot be right.

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
    rules = (rules,) if isinstance(rules, Rule) else tuple(rules)
    given = Hyperparams(name, hyperparams, arrays)
    slot_names = tuple(dict.fromkeys(slot for rule in rules for slot in rule.slots))
    storages = {slot: resolve_storage(slot, slot_dtypes or {}, state_dtype) for slot in slot_names}
    lay_out = resolve_layout(layout)
    # One jitted function a rule: leaves of one shape and dtype share its trace, and its text in the compiled program.
    runs = functools.cache(lambda rule: jax.jit(_leaf_update(rule)))
    made_a_state = False

    def init(params: PyTree) -> OptState:
        nonlocal made_a_state
        made_a_state = True
        paths, leaves, treedef = _checks.flatten(params)
        leaf_rules = _rules_of(name, rules, choose, params, paths, leaves)
        slots = {
            slot: treedef.unflatten(
                _new_slot(rule, slot, storages[slot], leaf) for rule, leaf in zip(leaf_rules, leaves, strict=True)
            )
            for slot in slot_names
        }
        return OptState(count=jnp.zeros((), jnp.int32), hyperparams=given.init(), slots=slots)

    def update(grads: PyTree, state: OptState, params: PyTree = None, **extra: Any) -> tuple[PyTree, OptState]:
        del extra  # optax's protocol: an optimizer is handed what its neighbours in a chain need
        _check_trees(name, rules, slot_names, grads, state, params)
        like = grads if params is None else params
        paths, leaves, treedef = _checks.flatten(like)
        leaf_rules = _rules_of(name, rules, choose, like, paths, leaves)
        if params is None and None in leaf_rules:
            _checks.refuse_integer_grad(name, paths[leaf_rules.index(None)], leaves[leaf_rules.index(None)])
        grad_leaves = treedef.flatten_up_to(grads)
        stored = {slot: _checks.flatten_slot(name, slot, state.slots[slot], grads) for slot in slot_names}
        # A traced value given to an optimizer that did not make the state is its caller's word on this very update:
        # so does optax.inject_hyperparams call a factory.
        hyper = given.at_step(state.hyperparams, state.count, bound=not made_a_state)
        count = increment(state.count)

        deltas = [_zero_update(leaf) if rule is None else None for leaf, rule in zip(leaves, leaf_rules, strict=True)]

        @functools.cache
        def prepared(rule: Rule, dtype: Any) -> Hyper:
            full = hyper | given.complements(hyper)
            cast = {key: value.astype(real_dtype(dtype)) for key, value in full.items()}
            return rule.prepare(cast, count)

        for rule in dict.fromkeys(rule for rule in leaf_rules if rule is not None):
            members = [i for i, leaf_rule in enumerate(leaf_rules) if leaf_rule is rule]
            for i in members:
                _check_leaf(
                    name, rule, paths[i], grad_leaves[i], leaves[i], {slot: stored[slot][i] for slot in rule.slots}
                )
            for block in lay_out(rule, [_shape_of(grad_leaves[i]) for i in members]):
                block_members = [members[j] for j in block.indices]
                for i, delta, new in _run_block(
                    block,
                    runs(rule),
                    functools.partial(prepared, rule),
                    count,
                    block_members,
                    grad_leaves,
                    {slot: [storages[slot].load(stored[slot][i]) for i in block_members] for slot in rule.slots},
                    None if params is None else leaves,
                ):
                    deltas[i] = delta
                    for slot, value in new.items():
                        stored[slot][i] = storages[slot].save(value, stored[slot][i])
        slots = {slot: treedef.unflatten(stored[slot]) for slot in slot_names}
        return treedef.unflatten(deltas), OptState(count=count, hyperparams=hyper, slots=slots)

    return make_optimizer(init, update, f"jgd.{name}({given.text()})")


def _leaf_update(rule: Rule) -> Callable[..., tuple[Array, Slots]]:
    """The rule with the dtypes seen to: arithmetic in float32 or wider, an update as precise as grad and param."""

    def run(hyper: Hyper, step: Array, grad: Array, slots: Slots, param: Array | None) -> tuple[Array, Slots]:
        update_dtype = _update_dtype(grad, param)
        dtype = compute_dtype(update_dtype)
        slots = {
            key: value.astype(dtype if jnp.iscomplexobj(value) else real_dtype(dtype)) for key, value in slots.items()
        }
        wide_param = None if param is None else param.astype(dtype)
        delta, slots = rule.update(grad.astype(dtype), slots, wide_param, hyper, step)  # pyright: ignore[reportArgumentType]
        return delta.astype(update_dtype), slots

    return run


def _update_dtype(grad: Array, param: Array | None) -> jnp.dtype:
    return grad.dtype if param is None else jnp.promote_types(grad.dtype, param.dtype)


def _run_block(
    block: Block,
    run: Callable[..., tuple[Array, Slots]],
    prepared: Callable[[Any], Hyper],
    step: Array,
    members: Sequence[int],
    grads: Sequence[Any],
    slots: Mapping[str, Sequence[Array]],
    params: Sequence[Any] | None,
) -> list[tuple[int, Array, Slots]]:
    """Updates the leaves of one block; gives back each one's position, update and new slots."""
    grad = block.pack([jnp.asarray(grads[i]) for i in members])
    param = None if params is None else block.pack([jnp.asarray(params[i]) for i in members])
    packed = {slot: block.pack(values) for slot, values in slots.items()}
    hyper = prepared(compute_dtype(_update_dtype(grad, param)))
    delta, packed = block.wrap(run)(hyper, step, grad, packed, param)
    deltas = block.unpack(delta)
    new = {slot: block.unpack(value) for slot, value in packed.items()}
    return [(i, deltas[j], {slot: values[j] for slot, values in new.items()}) for j, i in enumerate(members)]


def _rules_of(
    name: str,
    rules: Sequence[Rule],
    choose: Callable[[PyTree], PyTree] | None,
    tree: PyTree,
    paths: Sequence[Any],
    leaves: Sequence[Any],
) -> list[Rule | None]:
    """Each leaf's rule; None for leaves that are no floats, which are left alone."""
    chosen = [rules[0]] * len(leaves) if choose is None or not leaves else jax.tree.leaves(choose(tree))
    trainable = [_checks.is_trainable(name, path, leaf) for path, leaf in zip(paths, leaves, strict=True)]
    for path, leaf, rule in zip(paths, leaves, chosen, strict=True):
        if not rule.supports_complex:
            _checks.check_complex(name, path, leaf)
    return [rule if moves else None for rule, moves in zip(chosen, trainable, strict=True)]


def _new_slot(rule: Rule | None, slot: str, storage: Storage, leaf: Any) -> Any:
    """The first value of one leaf's slot, a marker without arrays where the leaf has no such slot."""
    if rule is None or slot not in rule.slots:
        return optax.MaskedNode()
    dtype = jnp.result_type(leaf)
    wide = jnp.zeros_like(leaf, dtype=compute_dtype(dtype)) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf
    return storage.create(rule.slots[slot](jnp.asarray(wide).astype(compute_dtype(dtype))), dtype)


def _zero_update(leaf: Any) -> Any:
    """The update of a leaf that is left alone; None where zero has no meaning, as for random keys."""
    return None if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.extended) else jnp.zeros_like(leaf)


def _shape_of(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))


def _check_trees(
    name: str, rules: Sequence[Rule], slot_names: Sequence[str], grads: PyTree, state: Any, params: PyTree
) -> None:
    if not isinstance(state, OptState):
        raise TypeError(f"{name}: expected the OptState that this optimizer's init made; got {type(state).__name__}.")
    if set(state.slots) != set(slot_names):
        raise ValueError(
            f"{name}: the state has the slots {sorted(state.slots)}, this optimizer has {sorted(slot_names)}."
            " Pass the state that this optimizer's init made."
        )
    if params is None and any(rule.needs_params for rule in rules):
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
