"""Adding updates to params."""

from typing import Any

import jax
import jax.numpy as jnp

from jgd.core._checks import flatten, path_text, refuse_non_array
from jgd.core._floats import is_key
from jgd.core._types import PyTree, is_array


def apply_updates(params: PyTree, updates: PyTree) -> PyTree:
    """`params + updates`, leaf by leaf; every param keeps its dtype.

    Args:
        params: A tree of arrays.
        updates: A tree of the same structure and shapes, as an optimizer's `update` returns it. A leaf may be None:
            its param stays as it is.

    Returns:
        The new params. The sum is taken in the wider of both dtypes and rounded once to the param's.

    Raises:
        ValueError: The trees or the shapes of two leaves differ.
        TypeError: A leaf is not an array. What a model holds besides, such as a function, has None for its update.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> print(jgd.apply_updates({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([0.5, -0.5])}))
        {'w': Array([1.5, 1.5], dtype=float32)}
    """
    paths, leaves, treedef = flatten(params)
    try:
        update_leaves = treedef.flatten_up_to(updates)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"apply_updates: the trees of updates and params differ: {error}") from error

    def add(path: tuple[Any, ...], param: Any, update: Any) -> Any:
        if update is None or getattr(update, "dtype", None) == jax.dtypes.float0 or (is_array(param) and is_key(param)):
            return param
        for leaf, what in ((param, "param"), (update, "update")):
            if not is_array(leaf):
                refuse_non_array("apply_updates", path, leaf, what)
        if jnp.shape(update) != jnp.shape(param):
            raise ValueError(
                f"apply_updates: the update at {path_text(path)} has shape {jnp.shape(update)};"
                f" expected that of its param, {jnp.shape(param)}."
            )
        param, update = jnp.asarray(param), jnp.asarray(update)
        if param.dtype == update.dtype:
            return param + update
        dtype = jnp.promote_types(param.dtype, update.dtype)
        return (param.astype(dtype) + update.astype(dtype)).astype(param.dtype)

    return treedef.unflatten(add(*leaf) for leaf in zip(paths, leaves, update_leaves, strict=True))
