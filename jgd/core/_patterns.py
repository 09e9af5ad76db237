"""Patterns for the paths of leaves."""

import fnmatch
import re
from collections.abc import Sequence
from typing import Any

import jax

from jgd.core._checks import path_keys

_SHOWN = 6


def path_matches(path: str, pattern: str) -> bool:
    """Whether a path such as `"dense/kernel"` fits a pattern: as in a shell, or `"re:"` and a regular expression.

    Examples:
        >>> from jgd.core import path_matches
        >>> print(path_matches("dense/kernel", "*kernel"), path_matches("dense/kernel", "re:.*/(bias|scale)"))
        True False
    """
    if pattern.startswith("re:"):
        try:
            return re.fullmatch(pattern[3:], path) is not None
        except re.error as error:
            raise ValueError(f"the pattern {pattern!r} is not a regular expression: {error}.") from None
    return fnmatch.fnmatchcase(path, pattern)


def check_pattern(owner: str, pattern: Any) -> None:
    """Refuses what is not a pattern.

    Raises:
        TypeError: It is not a string.
        ValueError: It is not a regular expression, though it says so.
    """
    if not isinstance(pattern, str):
        raise TypeError(f"{owner}: a pattern must be text; got {pattern!r}.")
    if pattern.startswith("re:"):
        try:
            re.compile(pattern[3:])
        except re.error as error:
            raise ValueError(f"{owner}: the pattern {pattern!r} is not a regular expression: {error}.") from None


def path_spellings(path: tuple[Any, ...]) -> tuple[str, ...]:
    """How a leaf's path may be written in a pattern; the first is what messages show.

    The arrays of flax's nnx are at the attribute `value` of a variable: `dense/kernel/value` is `dense/kernel` too.
    """
    keys = path_keys(path)
    full = "/".join(map(str, keys))
    is_boxed = len(path) > 1 and isinstance(path[-1], jax.tree_util.GetAttrKey) and keys[-1] == "value"
    return ("/".join(map(str, keys[:-1])), full) if is_boxed else (full,)


def assign_patterns(
    owner: str, leaves: Sequence[tuple[str, ...]], patterns: Sequence[str], default: str | None = None
) -> list[str]:
    """For each leaf its pattern: the most specific of those that it matches.

    One pattern is more specific than another if it matches some of the other's leaves and no leaf besides.

    Args:
        owner: Whose patterns they are, for messages.
        leaves: The `path_spellings` of each leaf.
        patterns: At least one.
        default: What a leaf gets that matches none, one of the patterns; it is not matched itself.

    Raises:
        ValueError: A leaf matches none, or several of which none is the most specific; a pattern matches no leaf.
    """
    matches = {
        pattern: {i for i, names in enumerate(leaves) if any(path_matches(name, pattern) for name in names)}
        for pattern in patterns
        if pattern != default
    }
    for pattern, places in matches.items():
        if leaves and not places:
            raise ValueError(f"{owner}: the pattern {pattern!r} matches no leaf; the leaves are {_shown(leaves)}.")
    return [_most_specific(owner, names[0], i, matches, default) for i, names in enumerate(leaves)]


def _most_specific(owner: str, leaf: str, i: int, matches: dict[str, set[int]], default: str | None) -> str:
    matching = [pattern for pattern, places in matches.items() if i in places]
    best = [p for p in matching if all(matches[p] < matches[other] for other in matching if other != p)]
    if best:
        return best[0]
    if matching:
        raise ValueError(
            f"{owner}: the leaf {leaf!r} matches several patterns: {', '.join(map(repr, matching))}; none of them is"
            " the most specific, whose leaves the others match too."
        )
    if default is None:
        known = ", ".join(map(repr, matches))
        raise ValueError(f"{owner}: the leaf {leaf!r} matches none of {known}; give a default, or a pattern for it.")
    return default


def _shown(leaves: Sequence[tuple[str, ...]]) -> str:
    more = f" and {len(leaves) - _SHOWN} more" if len(leaves) > _SHOWN else ""
    return ", ".join(repr(names[0]) for names in leaves[:_SHOWN]) + more
