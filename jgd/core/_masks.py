"""Masks: which leaves a rule, or a part of it, applies to."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core._alias import show_by_name
from jgd.core._checks import path_text
from jgd.core._packing import refuse_packed
from jgd.core._types import PyTree

#: A tree of booleans shaped like the params or a prefix of them, a function from params to such a tree, None for all
#: leaves, or "matrices": leaves of two axes and more, which leaves out biases and the scales of norms.
Mask = PyTree | Callable[[PyTree], PyTree] | None

#: Something for each leaf: a tree shaped like the params or a prefix of them, or a function from params to such a tree.
TreeOrFunction = PyTree | Callable[[PyTree], PyTree]
show_by_name(globals(), "Mask", "TreeOrFunction")


def tree_from(tree: TreeOrFunction, params: PyTree) -> PyTree:
    """The tree that was given, or that a function makes from the params.

    A model that can be called, such as an `equinox.nn.MLP` of booleans, is a tree: it has leaves (None counts) that
    cannot be called.
    """
    if not callable(tree):
        return tree
    leaves = jax.tree.leaves(tree, is_leaf=lambda node: node is None)
    return tree(params) if isinstance(tree, jax.tree_util.Partial) or all(map(callable, leaves)) else tree


def broadcast_mask(owner: str, mask: Mask, tree: PyTree) -> PyTree:
    """A tree of Python booleans shaped like `tree`; all true where the mask is None.

    Raises:
        ValueError: The mask is not a prefix of the tree, or the tree is packed.
        TypeError: An entry is not a boolean known at trace time.
    """
    if mask is None:
        return jax.tree.map(lambda _: True, tree)
    refuse_packed(owner, tree, "a mask picks leaves")
    if isinstance(mask, str):
        if mask != "matrices":
            raise ValueError(f"{owner}: the one mask that has a name is 'matrices'; got {mask!r}.")
        return jax.tree.map(lambda leaf: jnp.ndim(leaf) >= 2, tree)
    resolved = tree_from(mask, tree)

    def spread(path: tuple[Any, ...], flag: Any, subtree: PyTree) -> PyTree:
        if not isinstance(flag, bool | np.bool_):
            raise TypeError(f"{owner}: the mask at {path_text(path)} is {flag!r}; expected True or False.")
        return jax.tree.map(lambda _: bool(flag), subtree)

    try:
        return jax.tree_util.tree_map_with_path(spread, resolved, tree)
    except ValueError as error:
        raise ValueError(f"{owner}: the mask is not a prefix of the params: {error}") from error
