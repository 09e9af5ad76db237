"""The optimizer states within a tree, and the leaves of their slots by path: what both converters walk over."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jgd.core import OptState, PyTree, is_key, path_text


def opt_states(owner: str, tree: PyTree) -> list[OptState]:
    """Every `OptState` in a tree, such as the state of a chain; in order.

    Raises:
        TypeError: There is none.
    """
    states = [node for node in jax.tree.leaves(tree, is_leaf=_is_opt_state) if _is_opt_state(node)]
    if not states:
        raise TypeError(f"{owner}: expected the state of a jgd optimizer, or a tree with one; got {_kind(tree)}.")
    return states


def replace_opt_states(tree: PyTree, new: Iterator[OptState]) -> PyTree:
    """The tree with the next of `new` in place of each of its `OptState`s; all else as it was."""
    return jax.tree.map(lambda node: next(new) if _is_opt_state(node) else node, tree, is_leaf=_is_opt_state)


def leaves_by_path(tree: PyTree) -> dict[str, Any]:
    """The arrays of one slot by their path within it; markers of no slot hold none."""
    return {path_text(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def with_leaves(tree: PyTree, change: Callable[[str, Any], Any]) -> PyTree:
    """The slot with each of its arrays changed by `change(path, array)`."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: change(path_text(path), leaf), tree)


def slot_paths(tree: PyTree) -> list[tuple[Any, ...]]:
    """The paths of a slot's leaves, those without the slot among them: in order the leaves of the params."""
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: isinstance(node, optax.MaskedNode))[0]
    return [path for path, _ in leaves]


def like_stored(where: str, value: Any, stored: Any) -> jax.Array:
    """A value as an array of the shape and dtype that stands in the state, in a buffer of its own.

    Raises:
        ValueError: It has another shape.
        TypeError: It is complex, and what it replaces is real.
    """
    value = _same_form_of_key(value, stored)
    if jnp.shape(value) != jnp.shape(stored):
        raise ValueError(f"{where} has shape {jnp.shape(value)}; expected {jnp.shape(stored)}.")
    dtype = jnp.result_type(stored)
    if is_key(stored):
        return jax.random.clone(value)
    if jnp.iscomplexobj(value) and not jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(f"{where} is complex ({jnp.result_type(value)}); expected {dtype}.")
    return jnp.array(value, dtype=dtype, copy=True)


def _same_form_of_key(value: Any, stored: Any) -> Any:
    """A random key in the form of the one that it replaces: typed, or its bare numbers."""
    is_key, was_key = (jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key) for x in (value, stored))
    if is_key and not was_key:
        return jax.random.key_data(value)
    if was_key and not is_key:
        return jax.random.wrap_key_data(jnp.asarray(value))
    return value


def _is_opt_state(node: Any) -> bool:
    return isinstance(node, OptState)


def _kind(tree: PyTree) -> str:
    return f"a {type(tree).__name__} without one"
