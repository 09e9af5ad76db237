"""Trees in which only some leaves are trained: integers, flags and random keys pass through everything untouched."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jgd.core._types import Array, ArrayLike, PyTree


def is_float(leaf: Any) -> bool:
    """Whether a leaf is updated: float and complex leaves are."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def is_key(leaf: Any) -> bool:
    """Whether a leaf is a key of `jax.random.key`, with which no arithmetic is done."""
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.extended)


def zero_update(leaf: ArrayLike) -> Array | None:
    """The update of a leaf that is left alone; None where zero has no meaning, as for random keys."""
    return None if is_key(leaf) else jnp.zeros_like(leaf)


def map_floats(
    formula: Callable[..., Any], tree: PyTree, *rest: PyTree, others: Callable[[Any], Any] = lambda leaf: leaf
) -> PyTree:
    """`jax.tree.map` over the leaves that are trained; a leaf that is not becomes `others(leaf)`.

    Args:
        formula: Called with a leaf of `tree` and what each of `rest` has in its place.
        tree: It says which leaves are trained.
        *rest: Trees of the same structure; where a leaf is not trained they may have anything, None as well.
        others: What becomes of a leaf that is not trained; by default it stays.
    """
    leaves, treedef = jax.tree.flatten(tree)
    beside = zip(*(treedef.flatten_up_to(other) for other in rest), strict=True) if rest else [()] * len(leaves)
    return treedef.unflatten(
        formula(leaf, *more) if is_float(leaf) else others(leaf) for leaf, more in zip(leaves, beside, strict=True)
    )


def cast_like(tree: PyTree, like: PyTree) -> PyTree:
    """The tree with the dtypes of another one, as a branch or a loop asks for it."""
    return jax.tree.map(lambda new, old: new if new.dtype == old.dtype else new.astype(old.dtype), tree, like)


def only_floats(tree: PyTree, like: PyTree) -> PyTree:
    """The tree with a marker without arrays where a leaf of `like` is not trained."""
    return map_floats(lambda _, leaf: leaf, like, tree, others=lambda _: optax.MaskedNode())
