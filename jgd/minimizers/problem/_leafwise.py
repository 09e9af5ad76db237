"""Functions of each float leaf of a tree and its strength: the parts of penalties."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jgd.core import Array, ArrayLike, ArrayTree, PyTree, is_float, path_text


def map_floats(what: str, fun: Callable[..., Array], params: PyTree, *strengths: ArrayTree) -> PyTree:
    """`fun(leaf, *strengths)` of each float leaf; others stay as they are.

    Args:
        what: The penalty and the argument, for errors.
        fun: From a leaf and arrays that broadcast to it.
        params: A tree.
        strengths: Numbers, arrays that broadcast to each leaf, or trees of these with the first levels of `params`.

    Returns:
        A tree as `params`.

    Raises:
        ValueError: A strength does not fit, or is a negative number.
        TypeError: A strength is not a number.
    """

    def spread(strength: ArrayTree) -> PyTree:
        try:
            full = jax.tree.map(lambda s, part: jax.tree.map(lambda _: s, part), strength, params)
        except ValueError as error:
            raise ValueError(f"{what} must be a number, an array, or a tree as params: {error}") from error
        return jax.tree_util.tree_map_with_path(checked, params, full)

    def checked(path: Any, leaf: Any, strength: Any) -> Any:
        if not is_float(leaf):
            return leaf
        # arrays are data, of which nothing is known here
        if isinstance(strength, int | float) and not strength >= 0:
            raise ValueError(f"{what} at {path_text(path)} is {strength}; expected at least 0.")
        if jnp.iscomplexobj(strength):
            raise TypeError(f"{what} at {path_text(path)} is complex; expected real numbers.")
        try:
            jnp.broadcast_to(strength, jnp.shape(leaf))
        except TypeError:
            kind = type(strength).__name__
            raise TypeError(f"{what} at {path_text(path)} is a {kind}; expected a number or an array.") from None
        except ValueError:
            raise ValueError(
                f"{what} at {path_text(path)} has the shape {jnp.shape(strength)}; expected one that broadcasts to the"
                f" leaf's {jnp.shape(leaf)}."
            ) from None
        return jnp.asarray(strength, jnp.finfo(jnp.result_type(leaf)).dtype)

    def each(leaf: ArrayLike, *strengths: ArrayLike) -> ArrayLike:
        return fun(jnp.asarray(leaf), *strengths) if is_float(leaf) else leaf

    return jax.tree.map(each, params, *(spread(strength) for strength in strengths))


def total(params: PyTree, terms: PyTree) -> Array:
    """The sum of the terms of all float leaves."""
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(terms), strict=True)
    return sum((jnp.sum(term) for leaf, term in pairs if is_float(leaf)), jnp.zeros(()))
