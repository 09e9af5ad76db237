"""Which label each leaf has."""

from collections.abc import Hashable, Mapping
from typing import Any

import jax

from jgd.core import PyTree, path_text, shown


def spread_labels(
    owner: str, labels: PyTree, params: PyTree, known: Mapping[Any, Any], default: Hashable | None = None
) -> PyTree:
    """The label of each leaf, from a tree that is a prefix of the params; `default` where a label is not known.

    Raises:
        ValueError: The tree is not a prefix, or a label is not known and there is no default.
    """
    try:
        spread = jax.tree.map(lambda label, part: jax.tree.map(lambda _: label, part), labels, params)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{owner}: the labels are not a prefix of the params: {error}") from error

    def checked_label(path: tuple[Any, ...], label: Any) -> Any:
        if isinstance(label, Hashable) and label in known:
            return label
        if default is not None:
            return default
        expected = sorted(map(repr, known))
        raise ValueError(
            f"{owner}: the leaf at {path_text(path)} has the label {shown(label)}; expected one of"
            f" [{', '.join(expected)}]."
        )

    return jax.tree_util.tree_map_with_path(checked_label, spread)
