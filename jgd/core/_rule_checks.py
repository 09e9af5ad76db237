"""What a rule says of itself, and what `lift` is given beside it: checked when the optimizer is made.

What its functions return is seen when a step is traced; see `jgd.core._mistakes`.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import jax

from jgd.core._arguments import shown
from jgd.core._checks import path_text
from jgd.core._mistakes import MistakeError, in_words
from jgd.core._types import PyTree


def function_name(function: Any) -> str:
    """A function's name, for messages."""
    return getattr(function, "__name__", None) or type(function).__name__


def check_declared(rule: Any, kinds: Any = None) -> None:
    """Refuses a rule whose fields cannot be right.

    Raises:
        TypeError, ValueError: A field of another kind, a slot without a function that makes it, a name of no slot.
    """
    owner = f"{type(rule).__name__} of {function_name(rule.update)}"
    if not callable(rule.update):
        raise TypeError(f"{type(rule).__name__}: update must be a function; got {shown(rule.update)}.")
    _check_takes(owner, "update", rule.update, ("grad", "slots", "param", "hyper", "step"))
    _check_takes(owner, "prepare", rule.prepare, ("hyper", "step"))
    if kinds is not None and rule.kind not in get_args(kinds):
        known = ", ".join(map(repr, get_args(kinds)))
        raise ValueError(f"{owner}: kind must be one of {known}; got {rule.kind!r}.")
    for field in ("needs_params", "supports_complex"):
        if not isinstance(getattr(rule, field), bool):
            raise TypeError(f"{owner}: {field} must be True or False; got {shown(getattr(rule, field))}.")
    made = [field for field in ("slots", "scalars") if hasattr(rule, field)]
    for field in made:
        _check_makers(owner, field, getattr(rule, field))
    for field in ("needs", "nonnegative", "exact"):
        _check_names(owner, field, getattr(rule, field))
    names = [name for field in made for name in getattr(rule, field)]
    for name in (name for field in ("nonnegative", "exact") for name in getattr(rule, field)):
        if name not in names:
            known = ", ".join(map(repr, names)) or "none"
            raise ValueError(f"{owner}: {name!r} is declared nonnegative or exact; the rule's slots are: {known}.")
    if len(set(names)) < len(names):
        raise ValueError(f"{owner}: a name stands in slots and in scalars: {names}.")


def _check_takes(owner: str, name: str, function: Any, arguments: Sequence[str]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # not written in Python
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        wanted = ", ".join(arguments)
        raise TypeError(f"{owner}: {name} must take ({wanted}), by position; it takes {signature}.") from None


def _check_makers(owner: str, field: str, slots: Any) -> None:
    if not isinstance(slots, Mapping):
        raise TypeError(f"{owner}: {field} must be a dict of functions, one a name; got {shown(slots)}.")
    for name, make in slots.items():
        if not isinstance(name, str):
            raise TypeError(f"{owner}: the name of a slot must be a string; got {shown(name)}.")
        if not callable(make):
            raise TypeError(
                f"{owner}: {field}[{name!r}] must be a function that makes the first value, such as jnp.zeros_like;"
                f" got {shown(make)}."
            )


def _check_names(owner: str, field: str, names: Any) -> None:
    is_sequence = isinstance(names, Sequence | set | frozenset) and not isinstance(names, str)
    if not (is_sequence and all(isinstance(name, str) for name in names)):
        raise TypeError(f"{owner}: {field} must be a tuple of names, such as ('nu',); got {shown(names)}.")


def check_blocks(blocks: Any, leaves: int) -> Any:
    """The blocks of a layout, each leaf in one of them.

    Raises:
        MistakeError: A leaf is left out, or stands in several.
    """
    try:
        placed = sorted(i for block in blocks for i in block.indices)
    except (AttributeError, TypeError):
        raise MistakeError(TypeError, f"returned {in_words(blocks)}; expected a list of jgd.core.Block") from None
    if placed != list(range(leaves)):
        raise MistakeError(ValueError, f"placed the leaves {placed}; expected each of {leaves} once")
    return blocks


def check_lifted(owner: str, rules: Any, kinds: tuple[type, ...], hyperparams: Any) -> None:
    """Refuses what `lift` cannot make an optimizer of.

    Raises:
        TypeError, ValueError: No rules, or hyperparameters that are not a dict or have a name that a rule `needs`.
    """
    if not isinstance(owner, str):
        raise TypeError(f"lift: name must be a string; got {shown(owner)}.")
    rules = [rules] if isinstance(rules, kinds) else rules
    if not (isinstance(rules, list | tuple) and rules and all(isinstance(rule, kinds) for rule in rules)):
        hint = f" Make one of it: Rule({function_name(rules)})." if inspect.isfunction(rules) else ""
        raise TypeError(
            f"{owner}: rules must be a jgd.core.Rule, a TreeRule or a list of rules; got {shown(rules)}.{hint}"
        )
    if not isinstance(hyperparams, Mapping) or not all(isinstance(key, str) for key in hyperparams):
        raise TypeError(f"{owner}: hyperparams must be a dict of numbers by name; got {shown(hyperparams)}.")
    for rule in rules:
        for need in rule.needs:
            if need in hyperparams:
                raise ValueError(f"{owner}: {need!r} is a hyperparameter and among what the rule needs of its caller.")


def check_chosen(owner: str, rules: Sequence[Any], chosen: PyTree, paths: Sequence[Any]) -> list[Any]:
    """The rules that `choose` picked, one a leaf.

    Raises:
        TypeError, ValueError: They are not rules, too few or too many, or one has a slot that `lift` knows nothing of.
    """
    leaves = jax.tree.leaves(chosen)
    if len(leaves) != len(paths):
        raise ValueError(f"{owner}: choose returned {len(leaves)} rules; expected one for each of {len(paths)} leaves.")
    known = {slot for rule in rules for slot in rule.slots}
    for path, leaf in zip(paths, leaves, strict=True):
        if not hasattr(leaf, "slots") or not hasattr(leaf, "update"):
            raise TypeError(
                f"{owner}: choose returned {in_words(leaf)} for the leaf at {path_text(path)}; expected a rule."
            )
        if not known.issuperset(leaf.slots):
            raise ValueError(
                f"{owner}: choose gave the leaf at {path_text(path)} a rule with the slots {sorted(leaf.slots)}; the"
                f" rules given to lift have {sorted(known)}."
            )
    return leaves
