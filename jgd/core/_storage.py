"""How slots are stored between updates. A rule sees arrays of the compute dtype, whatever stands in the state."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core._types import Array, PyTree


class Storage(NamedTuple):
    """Three functions; the stored form may be any tree of arrays.

    Attributes:
        create: `create(value, param_dtype) -> stored`, when the state is made.
        load: `load(stored) -> array`, before each update.
        save: `save(value, stored, seed) -> stored`, after each update, in the form and dtype of the one before. `seed`
            is a uint32 scalar, another one for each update, slot and leaf: what rounds at random starts from it.
    """

    create: Callable[[PyTree, jnp.dtype], PyTree]
    load: Callable[[PyTree], PyTree]
    save: Callable[[PyTree, PyTree, Array], PyTree]


def cast_storage(dtype: Any) -> Storage:
    """Slots stored as arrays of one dtype.

    Args:
        dtype: `"auto"` for float32, or wider where the param is wider; None for the dtype of the param, which is
            what optax's `mu_dtype=None` means; or a dtype.
    """

    def create(value: PyTree, param_dtype: jnp.dtype) -> PyTree:
        return jax.tree.map(lambda leaf: _stored(leaf, dtype, param_dtype), value)

    def save(value: PyTree, stored: PyTree, seed: Array) -> PyTree:
        del seed
        return jax.tree.map(_saved, value, stored)

    return Storage(create=create, load=lambda stored: stored, save=save)


def _stored(value: Array, dtype: Any, param_dtype: jnp.dtype) -> Array:
    if dtype == "auto" or not jnp.issubdtype(value.dtype, jnp.inexact):
        return value  # in the compute dtype already; counters and random keys are no fractions
    if dtype is not None:
        return jnp.zeros_like(value, dtype=dtype) if _drops_imaginary(value, dtype) else value.astype(dtype)
    # The slot of squared magnitudes stays real where the param is complex.
    return value if _drops_imaginary(jnp.zeros((), param_dtype), value.dtype) else value.astype(param_dtype)


def _saved(value: Array, stored: Array) -> Array:
    if _drops_imaginary(value, stored.dtype):
        raise TypeError(f"a {value.dtype} slot cannot be stored as {stored.dtype}: it has an imaginary part.")
    return value.astype(stored.dtype)


def _drops_imaginary(value: Array, dtype: Any) -> bool:
    return jnp.iscomplexobj(value) and not jnp.issubdtype(dtype, jnp.complexfloating)


def resolve_storage(slot: str, slot_dtypes: Mapping[str, Any], state_dtype: Any) -> Storage:
    """The storage of one slot: what `state_dtype` says, else the slot's own dtype argument, else `"auto"`.

    Raises:
        TypeError: The dtype asked for is none, or cannot hold fractions.
    """
    asked = state_dtype if state_dtype is not None else slot_dtypes.get(slot, "auto")
    if isinstance(asked, Storage):
        return asked
    if asked is None or asked == "auto":
        return cast_storage(asked)
    try:
        dtype = jnp.dtype(asked)
        is_float = jnp.issubdtype(dtype, jnp.inexact)
    except TypeError:
        is_float = False
    if not is_float:
        raise TypeError(f"slot {slot!r} cannot be stored as {asked!r}: expected a float dtype, such as 'bfloat16'.")
    return cast_storage(jnp.dtype(jnp.zeros((), dtype).dtype))  # float64 becomes float32 where x64 is off
