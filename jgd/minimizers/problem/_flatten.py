"""Trees as vectors: float leaves go into one vector [n], all others stay as they are.

A complex leaf is two real ones, its real parts and its imaginary parts: so every method sees a function of real
numbers and its gradient, and no formula of a method needs a conjugate.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, ArrayLike, DTypeLike, PyTree, is_float, path_text


class Flattener(NamedTuple):
    """How a tree becomes a vector and back.

    Attributes:
        treedef: The tree's structure.
        leaves: Its leaves; `unravel` puts those that are not floats in their places.
        floats: For each leaf whether it is a float or complex.
        dtype: The vector's dtype, a real one: float32, or wider where a leaf is wider.
    """

    treedef: Any
    leaves: list[Any]
    floats: list[bool]
    dtype: DTypeLike

    @property
    def size(self) -> int:
        """The vector's length, n."""
        return jax.eval_shape(self.ravel, jax.tree.unflatten(self.treedef, self.leaves)).size

    def ravel(self, tree: PyTree) -> Array:
        """The float leaves as one vector."""
        leaves = self.treedef.flatten_up_to(tree)
        moving = [leaf for leaf, floating in zip(leaves, self.floats, strict=True) if floating]
        return jnp.concatenate([part.astype(self.dtype) for leaf in moving for part in _parts(leaf)])

    def unravel(self, vector: Array) -> PyTree:
        """A tree of the vector's entries, each leaf in its dtype."""
        leaves, start = [], 0
        for leaf, floating in zip(self.leaves, self.floats, strict=True):
            if not floating:
                leaves.append(leaf)
                continue
            size, shape, dtype = jnp.size(leaf), jnp.shape(leaf), jnp.result_type(leaf)
            entries = vector[start : start + size]
            start += size
            if _is_complex(dtype):
                entries = jax.lax.complex(entries, vector[start : start + size])
                start += size
            leaves.append(entries.reshape(shape).astype(dtype))
        return jax.tree.unflatten(self.treedef, leaves)


def _is_complex(dtype: DTypeLike) -> bool:
    return jnp.issubdtype(dtype, jnp.complexfloating)


def _parts(leaf: ArrayLike) -> list[Array]:
    """The real numbers that a leaf is made of, as vectors."""
    flat = jnp.ravel(leaf)
    return [flat.real, flat.imag] if _is_complex(flat.dtype) else [flat]


def flattener(params: PyTree) -> Flattener:
    """The flattener of a tree.

    Raises:
        TypeError: A leaf is not an array, or no leaf is a float.
    """
    with_paths, treedef = jax.tree_util.tree_flatten_with_path(params)
    floats, dtype = [], jnp.dtype(jnp.float32)
    for path, leaf in with_paths:
        try:
            leaf_dtype = jnp.result_type(leaf)
        except (TypeError, ValueError):
            where, kind = path_text(path), type(leaf).__name__
            raise TypeError(f"minimize: the leaf of params at {where} is a {kind}; expected an array.") from None
        floats.append(is_float(leaf))
        if floats[-1]:
            dtype = jnp.promote_types(dtype, jnp.finfo(leaf_dtype).dtype)
    if not any(floats):
        dtypes = [str(jnp.result_type(leaf)) for _, leaf in with_paths]
        raise TypeError(
            f"minimize: params have no float leaf; found {dtypes}. Integers do not move: start from floats, such as"
            " params.astype(float)."
        )
    return Flattener(treedef, [leaf for _, leaf in with_paths], floats, dtype)


def refuse_complex(what: str, params: PyTree) -> None:
    """Refuses complex leaves where an order of the numbers is needed.

    Raises:
        TypeError: There is one.
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        if _is_complex(jnp.result_type(leaf)):
            raise TypeError(
                f"{what} cannot be of the complex leaf of params at {path_text(path)} ({jnp.result_type(leaf)}):"
                " complex numbers have no order. Keep its real and imaginary parts as two leaves."
            )
