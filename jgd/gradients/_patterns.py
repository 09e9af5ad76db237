"""Leaves by the group that their path belongs to, with the patterns of `jgd.groups`."""

from collections.abc import Sequence

import jax

from jgd.core import PyTree, is_float, path_matches


def groups_of_floats(owner: str, patterns: Sequence[str], tree: PyTree) -> list[str]:
    """For each float leaf, in order, the one pattern that its path matches.

    Raises:
        ValueError: A leaf matches none, or several.
    """
    found = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if not is_float(leaf):
            continue
        text = jax.tree_util.keystr(path, simple=True, separator="/")
        matches = [pattern for pattern in patterns if path_matches(text, pattern)]
        if len(matches) != 1:
            known = ", ".join(map(repr, matches or patterns))
            raise ValueError(
                f"{owner}: the leaf {text!r} matches {'several of' if matches else 'none of'} the patterns {known};"
                " expected exactly one that it matches."
            )
        found.append(matches[0])
    return found
