"""Trees as vectors: float leaves go into one vector [n], all others stay as they are."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree, path_text


class Flattener(NamedTuple):
    """How a tree becomes a vector and back.

    Attributes:
        treedef: The tree's structure.
        leaves: Its leaves; those that are no floats are what `unravel` puts in their places.
        moving: For each leaf whether it is a float.
        dtype: The vector's dtype: float32, or wider where a leaf is wider.
    """

    treedef: Any
    leaves: list[Any]
    moving: list[bool]
    dtype: Any

    def ravel(self, tree: PyTree) -> Array:
        """The float leaves as one vector."""
        leaves = self.treedef.flatten_up_to(tree)
        parts = [jnp.ravel(leaf).astype(self.dtype) for leaf, moves in zip(leaves, self.moving, strict=True) if moves]
        return jnp.concatenate(parts)

    def unravel(self, vector: Array) -> PyTree:
        """A tree of the vector's entries, each leaf in its dtype."""
        out, start = [], 0
        for leaf, moves in zip(self.leaves, self.moving, strict=True):
            if not moves:
                out.append(leaf)
                continue
            stop = start + jnp.size(leaf)
            out.append(vector[start:stop].reshape(jnp.shape(leaf)).astype(jnp.result_type(leaf)))
            start = stop
        return jax.tree.unflatten(self.treedef, out)


def flattener(params: PyTree) -> Flattener:
    """Makes one.

    Raises:
        TypeError: A leaf is complex or no array, or no leaf is a float.
    """
    with_paths, treedef = jax.tree_util.tree_flatten_with_path(params)
    moving, dtype = [], jnp.dtype(jnp.float32)
    for path, leaf in with_paths:
        try:
            found = jnp.result_type(leaf)
        except (TypeError, ValueError):
            where, kind = path_text(path), type(leaf).__name__
            raise TypeError(f"minimize: the leaf of params at {where} is a {kind}; expected an array.") from None
        if jnp.issubdtype(found, jnp.complexfloating):
            raise TypeError(
                f"minimize: the leaf of params at {path_text(path)} is complex ({found}); expected real leaves. Keep"
                " the real and imaginary parts as two leaves."
            )
        moving.append(jnp.issubdtype(found, jnp.floating))
        dtype = jnp.promote_types(dtype, found) if moving[-1] else dtype
    if not any(moving):
        raise TypeError(f"minimize: params have no float leaf; found {[jnp.result_type(x) for _, x in with_paths]}.")
    return Flattener(treedef, [leaf for _, leaf in with_paths], moving, dtype)
