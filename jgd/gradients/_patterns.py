"""Leaves by the group that their path belongs to, with the patterns of `jgd.groups`."""

from collections.abc import Sequence

import jax

from jgd.core import PyTree, assign_patterns, check_pattern, is_float, path_spellings


def groups_of_floats(owner: str, patterns: Sequence[str], tree: PyTree) -> list[str]:
    """For each float leaf, in order, its pattern: the most specific that it matches.

    Raises:
        TypeError, ValueError: A leaf matches no pattern, or several of which none is the most specific; a pattern
            matches no leaf, or is not a pattern.
    """
    for pattern in patterns:
        check_pattern(owner, pattern)
    paths = [path for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0] if is_float(leaf)]
    return assign_patterns(owner, [path_spellings(path) for path in paths], patterns)
