"""States of `torch.optim` as jgd's, and back: Adam, AdamW, SGD, RMSprop, Muon, NAdam, RAdam, Adamax, Adagrad, Adadelta.

Nothing here needs PyTorch: a state dict may hold NumPy arrays. Flags of torch, such as `nesterov`, are arguments of
jgd's factories and stand in no state; where a method has two forms, PyTorch's is `like="torch"`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jgd.compat._states import leaves_by_path, like_stored, opt_states, replace_opt_states, with_leaves
from jgd.compat._torch_kinds import Kind, kind_of, pair, trained_leaves
from jgd.core import OptState, PyTree, checked, require, set_hyperparams

# Options that mean nothing when they are zero; and those of which jgd knows the zero only.
_ZERO_IS_NONE = ("weight_decay", "momentum", "lr_decay")
_ONLY_ZERO = ("dampening",)
_FLAGS = {"amsgrad": "nu_max", "centered": "mu"}

Transpose = Callable[[str, np.ndarray], np.ndarray]


@checked
def from_torch_state_dict(
    state_dict: Mapping[str, Any],
    opt_state: PyTree,
    names: Sequence[str | None] | None = None,
    *,
    transpose: Transpose | None = None,
    count: int | None = None,
    partial: bool = False,
    hyperparams: bool = True,
    group: int | None = None,
) -> PyTree:
    """A jgd state with the slots, step count and hyperparameters of a torch optimizer.

    Training goes on where it was under torch.

    Args:
        state_dict: What `state_dict()` of the torch optimizer gave, its tensors as they are or as NumPy arrays.
        opt_state: The state that jgd's optimizer of the same method makes of the same params: `optimizer.init(params)`;
            it stays as it is. Chains are looked into.
        names: For each of torch's parameters, in torch's order, the path of its leaf in jgd's params: `"layer.kernel"`,
            `"layer/kernel"` or `"['layer']['kernel']"`; None for a parameter to pass by. Not needed where torch's
            optimizer was given names, or where the params are one array or a list in torch's order.
        transpose: `transpose(path, array) -> array` from torch's layout into jgd's, such as
            `lambda path, x: x.T if x.ndim == 2 else x` for dense kernels.
        count: The steps made, for SGD and Muon, which do not count them; else that of `opt_state`. Where it is given,
            it goes before torch's own.
        partial: Whether leaves that torch has no state for keep that of `opt_state`.
        hyperparams: Whether to take over torch's numbers too. One that follows a schedule in jgd keeps to it.
        group: The number of the group whose hyperparameters are taken where those of several groups differ.

    Returns:
        A tree like `opt_state`, in its dtypes.

    Raises:
        TypeError: `state_dict` or `opt_state` is no optimizer's state.
        ValueError: The optimizer is not known, a leaf or slot is missing on either side or has another shape, steps or
            hyperparameters differ between parameters, or jgd's optimizer lacks a hyperparameter that is not zero.

    Examples:
        >>> import jax.numpy as jnp, numpy as np, jgd
        >>> from jgd.compat.torch import from_torch_state_dict
        >>> options = {"lr": 0.1, "momentum": 0.9, "dampening": 0, "weight_decay": 0, "nesterov": False, "params": [0]}
        >>> theirs = {"state": {0: {"momentum_buffer": np.array([1.0, -2.0])}}, "param_groups": [options]}
        >>> state = jgd.sgd(1.0, momentum=0.5).init({"w": jnp.zeros(2)})
        >>> state = from_torch_state_dict(theirs, state, ["w"], count=7)
        >>> print(state.slots["trace"]["w"], state.hyperparams["momentum"], state.count)
        [ 1. -2.] 0.9 7
    """
    owner = "from_torch_state_dict"
    states = opt_states(owner, opt_state)
    kind = kind_of(owner, state_dict)
    leaves = trained_leaves(states)
    numbers = pair(owner, state_dict, names, leaves)
    entries = {text: state_dict["state"].get(number) or {} for text, number in numbers.items()}
    for leaf in leaves:
        if not entries.get(leaf.text) and not partial:
            raise ValueError(
                f"{owner}: torch has no state for the leaf {leaf.dotted}, which has slots in jgd. Pass partial=True to"
                " keep them as they are."
            )
    _check_all_used(owner, kind, states, entries, state_dict)
    steps = _steps(owner, entries) if count is None else count
    dotted = {leaf.text: leaf.dotted for leaf in leaves}

    def fill(state: OptState) -> OptState:
        def leaf(slot: str, path: str, stored: Any) -> Any:
            if not entries.get(path):
                return stored
            theirs = next((name for name, ours in kind.slots.items() if ours == slot), None)
            if theirs is None or entries[path].get(theirs) is None:
                raise ValueError(
                    f"{owner}: torch's {kind.name} has nothing for the slot {slot!r} at {dotted[path]}"
                    f"{f' ({theirs})' if theirs else ''}; it has {', '.join(entries[path])}."
                )
            value = _as_numpy(entries[path][theirs])
            value = value if transpose is None else transpose(dotted[path], value)
            return like_stored(f"{owner}: torch's {theirs} of {dotted[path]}", value, stored)

        slots = {
            slot: with_leaves(tree, lambda path, stored, slot=slot: leaf(slot, path, stored))
            for slot, tree in state.slots.items()
        }
        new_count = jnp.array(state.count if steps is None else steps, dtype=state.count.dtype, copy=True)
        return state._replace(count=new_count, slots=slots)

    new = [fill(state) for state in states]
    if hyperparams:
        new = _with_hyperparams(owner, kind, new, state_dict["param_groups"], numbers, group)
    return replace_opt_states(opt_state, iter(new))


@checked
def to_torch_state_dict(
    opt_state: PyTree,
    state_dict: Mapping[str, Any],
    names: Sequence[str | None] | None = None,
    *,
    transpose: Transpose | None = None,
    partial: bool = False,
    as_tensors: bool = False,
) -> dict[str, Any]:
    """A torch optimizer's state dict with the slots, step count and hyperparameters of a jgd state.

    Args:
        opt_state: The state of a jgd optimizer.
        state_dict: What `state_dict()` of the torch optimizer gives, which may be new; it stays as it is. Flags such as
            `nesterov` are taken from it.
        names: As for `from_torch_state_dict`.
        transpose: `transpose(path, array) -> array` from jgd's layout into torch's.
        partial: Whether parameters that are named None, and leaves that are not named, are passed by.
        as_tensors: Whether to make torch tensors, as `load_state_dict` wants them; else NumPy arrays.

    Returns:
        A dict for the torch optimizer's `load_state_dict`.

    Raises:
        TypeError: `state_dict` or `opt_state` is no optimizer's state.
        ValueError: The optimizer is not known, the names do not fit, torch's optimizer has no place for a slot, or
            jgd's has no slot for what torch needs.
        ImportError: `as_tensors` without PyTorch.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> from jgd.compat.torch import to_torch_state_dict
        >>> optimizer = jgd.sgd(0.1, momentum=0.9)
        >>> _, state = optimizer.update([jnp.ones(2)], optimizer.init([jnp.zeros(2)]))
        >>> new = {"state": {}, "param_groups": [{"lr": 1.0, "momentum": 0.0, "dampening": 0, "params": [0]}]}
        >>> theirs = to_torch_state_dict(state, new)
        >>> print(theirs["state"][0])
        {'momentum_buffer': array([1., 1.], dtype=float32)}
        >>> print(theirs["param_groups"])
        [{'lr': 0.1, 'momentum': 0.9, 'dampening': 0, 'params': [0]}]
    """
    owner = "to_torch_state_dict"
    states = opt_states(owner, opt_state)
    kind = kind_of(owner, state_dict)
    leaves = trained_leaves(states)
    numbers = pair(owner, state_dict, names, leaves)
    unnamed = [leaf.dotted for leaf in leaves if leaf.text not in numbers]
    if unnamed and not partial:
        raise ValueError(f"{owner}: no parameter of torch is named {unnamed[0]}; pass partial=True to leave it out.")
    convert = _tensor_maker(owner) if as_tensors else np.array
    entries = dict(state_dict["state"])
    for leaf in leaves:
        if leaf.text not in numbers:
            continue
        steps = next(state.count for state in states if _slots_at([state], leaf.text))
        entry = {"step": convert(np.asarray(steps, np.float32))} if kind.counts else {}
        for slot, value in _slots_at(states, leaf.text).items():
            theirs = next((name for name, ours in kind.slots.items() if ours == slot), None)
            if theirs is None:
                raise ValueError(f"{owner}: torch's {kind.name} has nothing like the slot {slot!r} at {leaf.dotted}.")
            array = _as_numpy(value)
            entry[theirs] = convert(array if transpose is None else transpose(leaf.dotted, array))
        for theirs, slot in kind.slots.items():
            if theirs not in entry and theirs not in kind.optional:
                raise ValueError(
                    f"{owner}: torch's {kind.name} needs {theirs} for {leaf.dotted}, and the jgd state has no slot"
                    f" {slot!r}."
                )
        entries[numbers[leaf.text]] = entry
    groups = [_options(kind, group, _states_of(states, group, numbers)) for group in state_dict["param_groups"]]
    return {**state_dict, "state": entries, "param_groups": groups}


def _check_all_used(
    owner: str, kind: Kind, states: Sequence[OptState], entries: Mapping[str, Any], state_dict: Mapping[str, Any]
) -> None:
    """Refuses a state dict with entries that no slot takes: it is another method's."""
    slots = {slot for state in states for slot in state.slots}
    for path, entry in (entries or state_dict["state"]).items():
        for theirs, slot in kind.slots.items():
            if entry.get(theirs) is not None and slot not in slots:
                raise ValueError(
                    f"{owner}: torch's {kind.name} has {theirs} for {path}, and the jgd state has no slot {slot!r}; its"
                    f" slots are {', '.join(sorted(slots)) or 'none'}."
                )


def _steps(owner: str, entries: Mapping[str, Any]) -> int | None:
    steps = {path: int(_as_numpy(entry["step"])) for path, entry in entries.items() if "step" in entry}
    if len(set(steps.values())) > 1:
        shown = ", ".join(f"{step} at {path}" for path, step in steps.items())
        raise ValueError(f"{owner}: torch's parameters have made different numbers of steps: {shown}. Pass count.")
    return next(iter(steps.values()), None)


def _with_hyperparams(
    owner: str,
    kind: Kind,
    states: Sequence[OptState],
    groups: Sequence[Mapping[str, Any]],
    numbers: Mapping[str, Any],
    chosen: int | None,
) -> list[OptState]:
    new = []
    taken: set[str] = set()
    for state in states:
        of_state = [group for group in groups if _has_params_of(group, state, numbers)]
        values = {}
        for option, names in kind.hyperparams.items():
            present = [name for name in names if name in state.hyperparams]
            if not present or not of_state:
                continue
            taken.add(option)
            value = _agreed(owner, option, of_state if chosen is None else [groups[chosen]])
            parts = np.atleast_1d(value) if len(names) > 1 else [value]
            by_name = dict(zip(names, parts, strict=True))
            values |= {name: by_name[name] for name in present if f"{name}_scale" not in state.hyperparams}
        new.append(set_hyperparams(state, **values))
    known = ", ".join(sorted({name for state in states for name in state.hyperparams}))
    for option in (*kind.hyperparams, *_ONLY_ZERO):
        for group in groups:
            value = _as_numpy(group.get(option, 0))
            if option not in taken and np.any(value != 0):
                raise ValueError(
                    f"{owner}: torch's {option} is {value}, and the jgd state has no hyperparameter for it; it has"
                    f" {known}."
                )
    return new


def _agreed(owner: str, option: str, groups: Sequence[Mapping[str, Any]]) -> Any:
    values = [_as_numpy(group[option]) for group in groups if option in group]
    if any(not np.array_equal(value, values[0]) for value in values):
        shown = ", ".join(str(value) for value in values)
        raise ValueError(
            f"{owner}: torch's {option} differs between its groups: {shown}. Pass group=, the number of the one whose"
            " hyperparameters to take, or hyperparams=False."
        )
    return values[0]


def _states_of(states: Sequence[OptState], group: Mapping[str, Any], numbers: Mapping[str, Any]) -> list[OptState]:
    """The states that a group's parameters have, and those without slots."""
    return [state for state in states if _has_params_of(group, state, numbers)]


def _has_params_of(group: Mapping[str, Any], state: OptState, numbers: Mapping[str, Any]) -> bool:
    """Whether a group of torch's has parameters that have slots in a state; any group, where the state has no slots."""
    paths = {path for tree in state.slots.values() for path in leaves_by_path(tree)}
    return not paths or not {numbers[path] for path in paths if path in numbers}.isdisjoint(group["params"])


def _options(kind: Kind, group: Mapping[str, Any], states: Sequence[OptState]) -> dict[str, Any]:
    """A group with jgd's numbers; those that jgd lacks are zero where zero means none."""
    hyper = {name: value for state in states for name, value in state.hyperparams.items()}
    slots = {slot for state in states for slot in state.slots}
    new = dict(group)
    for option, names in kind.hyperparams.items():
        if all(name in hyper for name in names):
            values = [_plain(value) for name in names for value in np.atleast_1d(hyper[name])]
            new[option] = tuple(values) if len(values) > 1 else values[0]
        elif option in _ZERO_IS_NONE and option in group:
            new[option] = 0.0
    return new | {flag: slot in slots for flag, slot in _FLAGS.items() if flag in group}


def _plain(value: Any) -> float:
    """The shortest number that rounds to this one: 0.001, where float32 has 0.0010000000474974513."""
    return float(str(value))


def _slots_at(states: Sequence[OptState], path: str) -> dict[str, Any]:
    slots = [(slot, leaves_by_path(tree)) for state in states for slot, tree in state.slots.items()]
    return {slot: leaves[path] for slot, leaves in slots if path in leaves}


def _as_numpy(value: Any) -> np.ndarray:
    """A tensor of torch or JAX, or anything else, as a NumPy array of a dtype that NumPy itself has."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if "bfloat16" in str(value.dtype) else value
        value = value.numpy()
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def _tensor_maker(owner: str) -> Callable[[np.ndarray], Any]:
    torch = require("torch", "reference", f"{owner}(as_tensors=True)")
    return lambda array: torch.from_numpy(np.array(array))
