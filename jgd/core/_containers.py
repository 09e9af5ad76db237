"""States in other hands: what other libraries make of their containers, and how to read and write them all the same.

flax's `nnx.Optimizer` puts each array of a state into a box of its own, a `Variable`; after an update it has a mapping
of its own, by index or name, where a tuple or an `Int8Slot` was.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from jgd.core._checks import path_keys
from jgd.core._types import PyTree


def key_text(key: Any) -> str:
    """One step of a path: the key, index or name alone."""
    return str(path_keys((key,))[0])


def in_containers_of(like: PyTree, tree: PyTree) -> PyTree:
    """The leaves of `tree` in the containers of `like`, found by their paths, whatever the kinds of containers are."""
    paths, treedef = jax.tree_util.tree_flatten_with_path(like)
    by_path = {_names(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
    return treedef.unflatten(by_path[_names(path)] for path, _ in paths)


def as_made(stored: PyTree, made: Callable[[], PyTree]) -> PyTree:
    """What is stored, in the containers in which it was made."""
    return in_containers_of(made(), stored) if isinstance(stored, Mapping) else stored


def as_stored(value: PyTree, stored: PyTree) -> PyTree:
    """The inverse of `as_made`."""
    return in_containers_of(stored, value) if isinstance(stored, Mapping) else value


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(map(key_text, path))


def is_box(node: Any) -> bool:
    """Whether this is flax's box around one array."""
    return hasattr(node, "get_value") and hasattr(node, "get_metadata")


def unboxed(tree: PyTree) -> PyTree:
    """The tree with the arrays themselves in the place of their boxes."""
    return jax.tree.map(lambda node: jax.tree.leaves(node)[0] if is_box(node) else node, tree, is_leaf=is_box)


def boxed_like(old: PyTree, new: PyTree) -> PyTree:
    """The leaves of `new` in the structure of `old`, boxes included."""
    return jax.tree.unflatten(jax.tree.structure(old), jax.tree.leaves(new))
