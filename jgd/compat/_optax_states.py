"""optax's states as jgd's, and back."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jgd.compat._states import leaves_by_path, like_stored, opt_states, replace_opt_states, with_leaves
from jgd.core import OptState, PyTree, checked, path_text

# What optax calls a slot where it does not call it what jgd does.
_ALIASES: dict[str, tuple[str, ...]] = {
    "mu": ("ema", "exp_avg", "m"),
    "nu": ("sum_of_squares", "exp_avg_sq"),
    "sum_of_squares": ("nu",),
}
_COUNTS = ("count", "count_m2", "t", "step_count")
_COPIES = {"estim_lr_max": "estim_lr"}  # slots that optax lacks, since in its form they equal another
_FIRST_STEP = ("is_init_step", "is_initial_step")  # true where no step was made


class _Field(NamedTuple):
    """One field of one of optax's states."""

    where: str
    name: str
    leaves: dict[str, Any]  # by path
    sign: int  # of what stands in it against jgd's slot


@checked
def from_optax_state(optax_state: PyTree, jgd_state: PyTree, *, names: Mapping[str, str] | None = None) -> PyTree:
    """A jgd state with the count and the slots of optax's state of the same method.

    Training goes on where it was under optax. Hyperparameters, which optax's state does not have, are those of
    `jgd_state`.

    Args:
        optax_state: The state of an optax optimizer, such as `optax.adamw`, also from within a chain, from
            `optax.inject_hyperparams` or `lift`.
        jgd_state: The state that jgd's optimizer of the same method makes of the same params: `optimizer.init(params)`;
            it stays as it is.
        names: For each slot of jgd that optax's state calls by a name that is not known here, that name.

    Returns:
        A tree like `jgd_state`, in its dtypes. Where optax's state has no count (`optax.sgd`), the count is that of
        `jgd_state`.

    Raises:
        ValueError: A slot is missing in optax's state, stands there more than once, or has another shape; or optax's
            state has a slot more, or several counts. The message names it.
        TypeError: `jgd_state` is no state of a jgd optimizer.

    Examples:
        >>> import jax.numpy as jnp, jgd, optax
        >>> from jgd.compat.optax import from_optax_state
        >>> params, grads = jnp.zeros(2), jnp.array([1.0, -2.0])
        >>> theirs = optax.adam(0.1)
        >>> _, their_state = theirs.update(grads, theirs.init(params))
        >>> state = from_optax_state(their_state, jgd.adam(0.1).init(params))
        >>> print(state.count, state.slots["mu"].round(3))
        1 [ 0.1 -0.2]
    """
    owner = "from_optax_state"
    states = opt_states(owner, jgd_state)
    known = _known(states, names or {})
    fields = _fields(optax_state, known)
    places = _places(owner, states, fields, names or {})
    count = _one_count(owner, fields)
    by_slot = {slot: place for place, slot in places.items()}
    by_place = {field.where: field for field in fields}

    def fill(i: int, state: OptState) -> OptState:
        def leaf(slot: str, path: str, stored: Any) -> Any:
            where, _ = by_slot.get((i, slot, path)) or by_slot[i, _COPIES[slot], path]
            value = by_place[where].leaves[path]
            text = f"{owner}: the optax state's {where} at {path}"
            return like_stored(text, value if by_place[where].sign > 0 else -value, stored)

        slots = {
            slot: with_leaves(tree, lambda path, stored, slot=slot: leaf(slot, path, stored))
            for slot, tree in state.slots.items()
        }
        new_count = jnp.array(state.count if count is None else count, dtype=state.count.dtype, copy=True)
        return state._replace(count=new_count, slots=slots)

    return replace_opt_states(jgd_state, (fill(i, state) for i, state in enumerate(states)))


@checked
def to_optax_state(jgd_state: PyTree, optax_state: PyTree, *, names: Mapping[str, str] | None = None) -> PyTree:
    """An optax state with the count and the slots of jgd's state of the same method: the inverse of `from_optax_state`.

    Args:
        jgd_state: The state of a jgd optimizer.
        optax_state: The state that optax's optimizer of the same method makes of the same params:
            `optimizer.init(params)`; it stays as it is.
        names: As for `from_optax_state`.

    Returns:
        A tree like `optax_state`, in its dtypes. What is no slot and no count, such as optax's random keys, is that of
        `optax_state`.

    Raises:
        ValueError: As for `from_optax_state`.
        TypeError: `jgd_state` is no state of a jgd optimizer.

    Examples:
        >>> import jax.numpy as jnp, jgd, optax
        >>> from jgd.compat.optax import to_optax_state
        >>> params = jnp.zeros(2)
        >>> ours = jgd.sgd(0.1, momentum=0.9)
        >>> _, state = ours.update(jnp.array([1.0, -2.0]), ours.init(params))
        >>> print(to_optax_state(state, optax.sgd(0.1, momentum=0.9).init(params)))
        (TraceState(trace=Array([ 1., -2.], dtype=float32)), EmptyState())
    """
    owner = "to_optax_state"
    states = opt_states(owner, jgd_state)
    known = _known(states, names or {})
    places = _places(owner, states, _fields(optax_state, known), names or {})
    slots = {(i, slot): leaves_by_path(tree) for i, state in enumerate(states) for slot, tree in state.slots.items()}
    count = max((state.count for state in states), key=int)

    def change(field: _Field, value: PyTree) -> PyTree:
        if _is_count(field):
            return jnp.array(count, dtype=jnp.result_type(value), copy=True)
        if field.name in _FIRST_STEP:
            return jnp.asarray(count == 0)

        def leaf(path: str, old: Any) -> Any:
            if (field.where, path) not in places:
                return old
            i, slot, _ = places[field.where, path]
            new = slots[i, slot][path]
            return like_stored(f"{owner}: the slot {slot!r} at {path}", new if field.sign > 0 else -new, old)

        return with_leaves(value, leaf)

    return _map_fields(optax_state, change, known)


def _places(
    owner: str, states: list[OptState], fields: list[_Field], names: Mapping[str, str]
) -> dict[tuple[str, str], tuple[int, str, str]]:
    """Which leaf of which field of optax's state belongs to which leaf of which slot.

    Raises:
        ValueError: They do not correspond one to one.
    """
    places: dict[tuple[str, str], tuple[int, str, str]] = {}
    shapes: dict[str, set[Any]] = {}
    for i, state in enumerate(states):
        for slot, tree in state.slots.items():
            wanted = _wanted(slot, names)
            if _COPIES.get(slot) in state.slots and slot not in names:
                continue
            for path, leaf in leaves_by_path(tree).items():
                shapes.setdefault(path, set()).add(jnp.shape(leaf))
                place = (_where(owner, fields, wanted, slot, path), path)
                if place in places:
                    raise ValueError(
                        f"{owner}: the optax state's {place[0]} at {path} would be the slot {slot!r} of two parts of"
                        " the jgd state. Convert its parts one by one."
                    )
                places[place] = (i, slot, path)
    for field in fields:
        for path, leaf in field.leaves.items():
            # A number of the method's own, such as its coefficients, has the path of a lone param.
            at_root = path == path_text(())
            is_slot = path in shapes and jnp.ndim(leaf) > 0 and (not at_root or jnp.shape(leaf) in shapes[path])
            if is_slot and (field.where, path) not in places:
                slots = sorted({slot for state in states for slot in state.slots})
                raise ValueError(
                    f"{owner}: the optax state has {field.where} at {path}, for which the jgd state has no slot; its"
                    f" slots are {', '.join(slots) or 'none'}. Is it the state of the same method?"
                )
    return places


def _wanted(slot: str, names: Mapping[str, str]) -> tuple[str, ...]:
    return (names[slot],) if slot in names else (slot, *_ALIASES.get(slot, ()))


def _known(states: list[OptState], names: Mapping[str, str]) -> set[str]:
    """Names of fields that are slots, even where the params, and so the slots, are named tuples like optax's states."""
    return {name for state in states for slot in state.slots for name in _wanted(slot, names)}


def _where(owner: str, fields: list[_Field], wanted: tuple[str, ...], slot: str, path: str) -> str:
    for name in wanted:
        matches = [field.where for field in fields if field.name == name and path in field.leaves]
        if len(matches) > 1:
            raise ValueError(
                f"{owner}: the optax state has the slot {slot!r} at {path} more than once, in {' and '.join(matches)}."
                " Convert its parts one by one."
            )
        if matches:
            return matches[0]
    with_slots = [field.where for field in fields if not _is_count(field)]
    raise ValueError(
        f"{owner}: the optax state has nothing for the slot {slot!r} at {path}; expected a field {' or '.join(wanted)}."
        f" Its fields are {', '.join(with_slots) or 'none'}."
    )


def _one_count(owner: str, fields: list[_Field]) -> Any:
    counts = {field.where: value for field in fields if _is_count(field) for value in field.leaves.values()}
    if len({int(value) for value in counts.values()}) > 1:
        shown = ", ".join(f"{where} = {int(value)}" for where, value in counts.items())
        raise ValueError(f"{owner}: the optax state's counts differ: {shown}. A jgd state has one.")
    begun = any(field.name in _FIRST_STEP and not all(field.leaves.values()) for field in fields)
    return next(iter(counts.values()), 1 if begun else None)


def _is_count(field: _Field) -> bool:
    if field.name not in _COUNTS or len(field.leaves) != 1:
        return False
    value = next(iter(field.leaves.values()))
    return jnp.ndim(value) == 0 and bool(jnp.issubdtype(jnp.result_type(value), jnp.integer))


def _fields(optax_state: PyTree, known: set[str]) -> list[_Field]:
    fields: list[_Field] = []

    def collect(field: _Field, value: PyTree) -> PyTree:
        fields.append(field)
        return value

    _map_fields(optax_state, collect, known)
    return fields


def _map_fields(
    node: Any, change: Callable[[_Field, Any], Any], known: set[str], where: str = "", sign: int = 1
) -> Any:
    """The state with `change` applied to every field that holds arrays and no further state."""

    def below(child: Any, step: str, sign: int = 1) -> Any:
        return _map_fields(child, change, known, where + step, sign)

    if isinstance(node, optax.MaskedNode):
        return node
    if _is_state(node):
        new = {}
        for name, value in zip(node._fields, node, strict=True):
            if name not in known and any(_is_state(part) for part in jax.tree.leaves(value, is_leaf=_is_state)):
                new[name] = below(value, f".{name}")
            else:
                new[name] = change(_Field(f"{where}.{name}", name, leaves_by_path(value), sign), value)
        return node._replace(**new)
    if isinstance(node, dict):
        return {key: below(value, f"[{key!r}]") for key, value in node.items()}
    if isinstance(node, tuple | list):
        last = -1 if _has_negated_trace([type(part).__name__ for part in node]) else 1
        signs = [1] * (len(node) - 1) + [last]
        return type(node)(below(part, f"[{i}]", signs[i]) for i, part in enumerate(node))
    return node


def _has_negated_trace(kinds: list[str]) -> bool:
    """Whether the chain is `optax.rmsprop` or `optax.lars`, whose momentum sums steps, with their minus sign."""
    if len(kinds) < 3 or kinds[-1] != "TraceState" or kinds[-2] not in ("EmptyState", "ScaleByScheduleState"):
        return False
    return kinds[0].startswith(("ScaleByRms", "ScaleByRStdDev")) or kinds[:2] == ["MaskedState", "MaskedState"]


def _is_state(node: Any) -> bool:
    return isinstance(node, tuple) and hasattr(node, "_fields") and not isinstance(node, optax.MaskedNode)
