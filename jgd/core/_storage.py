"""How slots are stored between updates. A rule sees arrays of the compute dtype, whatever stands in the state."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core._alias import show_by_name
from jgd.core._int8 import LEAST_SIZE, Int8Slot, decode, encode
from jgd.core._rounding import SIXTEEN_BITS, stochastic_round
from jgd.core._rule import Rule, TreeRule
from jgd.core._types import Array, PyTree


class Storage(NamedTuple):
    """Three functions; the stored form may be any tree of arrays.

    Attributes:
        create: `create(value, param_dtype) -> stored`, when the state is made.
        load: `load(stored) -> array`, before each update.
        save: `save(value, stored, seed) -> stored`, after each update, in the form and dtype of the one before. `seed`
            is a uint32 scalar, another one for each update, slot and leaf: what rounds at random starts from it.
        by_row: Whether entries share something, such as a scale, so that it matters which of them stand together.
    """

    create: Callable[[PyTree, jnp.dtype], PyTree]
    load: Callable[[PyTree], PyTree]
    save: Callable[[PyTree, PyTree, Array], PyTree]
    by_row: bool = False


#: How one slot is stored: a dtype, `"auto"` for float32 or wider where the param is wider, or functions. Whoever stores
#: it says what is wrong with it, not the door of a public function.
SlotDtype = Annotated[jax.typing.DTypeLike | Storage, "slot"]

#: How all slots are stored, or by their names some.
StateDtype = Annotated[jax.typing.DTypeLike | Storage | Mapping[str, SlotDtype | None], "state"]
show_by_name(globals(), "SlotDtype", "StateDtype")


def cast_storage(dtype: Any) -> Storage:
    """Slots stored as arrays of one dtype, rounded to nearest.

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


def stochastic_storage(dtype: Any, nonnegative: bool = False) -> Storage:
    """Slots stored in a 16-bit dtype, rounded stochastically: small changes add up, as they do in float32.

    Args:
        dtype: `bfloat16` or `float16`.
        nonnegative: Whether the slot is never below zero. What is not zero then stays so; `float16` would lose second
            moments below 6e-8, and steps would be divided by `eps`.
    """
    plain, least = cast_storage(dtype), jnp.finfo(dtype).smallest_subnormal

    def save_leaf(value: Array, stored: Array, seed: Array) -> Array:
        if stored.dtype not in SIXTEEN_BITS or jnp.iscomplexobj(value):
            return _saved(value, stored)
        rounded = stochastic_round(value, stored.dtype, seed)
        return jnp.where((value > 0) & (rounded == 0), least.astype(stored.dtype), rounded) if nonnegative else rounded

    def save(value: PyTree, stored: PyTree, seed: Array) -> PyTree:
        leaves, treedef = jax.tree.flatten(value)
        seeds = [seed + jnp.uint32(0x27D4EB2F * i % 2**32) for i in range(len(leaves))]
        return treedef.unflatten(map(save_leaf, leaves, treedef.flatten_up_to(stored), seeds))

    return Storage(create=plain.create, load=plain.load, save=save)


def int8_storage(nonnegative: bool = False) -> Storage:
    """Slots stored as eight-bit codes with a float32 scale for each row; see `jgd.core._int8`.

    What is small or no single array of real numbers is stored as under `"auto"`.

    Args:
        nonnegative: Whether the slot is never below zero, as a second moment is: twice as many codes for its range.
    """
    plain = cast_storage("auto")

    def create(value: PyTree, param_dtype: jnp.dtype) -> PyTree:
        if not _is_large_real_array(value):
            return plain.create(value, param_dtype)
        # No row lies between two codes at the start: the seed decides nothing where all entries are zero or alike.
        return encode(value, jnp.zeros((), jnp.uint32), nonnegative)

    def load(stored: PyTree) -> PyTree:
        return decode(stored) if isinstance(stored, Int8Slot) else plain.load(stored)

    def save(value: PyTree, stored: PyTree, seed: Array) -> PyTree:
        return encode(value, seed, nonnegative) if isinstance(stored, Int8Slot) else plain.save(value, stored, seed)

    return Storage(create=create, load=load, save=save, by_row=True)


def _is_large_real_array(value: PyTree) -> bool:
    leaves = jax.tree.leaves(value)
    return (
        len(leaves) == 1
        and leaves[0] is value
        and jnp.issubdtype(value.dtype, jnp.floating)
        and value.size >= LEAST_SIZE
    )


def _stored(value: Array, dtype: Any, param_dtype: jnp.dtype) -> Array:
    if dtype == "auto" or not jnp.issubdtype(value.dtype, jnp.inexact):
        return value  # in the compute dtype already; counters and random keys are not fractions
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


def resolve_storages(
    owner: str,
    rules: Sequence[Rule | TreeRule],
    slot_dtypes: Mapping[str, SlotDtype | None],
    state_dtype: StateDtype | None,
) -> dict[str, Storage]:
    """The storage of each slot that the rules of one optimizer have.

    Args:
        owner: The factory's name, for messages.
        rules: Their slots, and what they say of them.
        slot_dtypes: For each slot with a dtype argument of its own that argument; it is rounded to nearest.
        state_dtype: `"bfloat16"` or `"float16"` (rounded stochastically), `"int8"`, `"float32"`, another float dtype or
            a `Storage`, for all slots; or a mapping from names of slots to these. Slots that it does not name are
            stored as `slot_dtypes` says, else as `"auto"`, and so are those that the rule declares `exact` where it is
            one dtype of fewer than 32 bits for all.

    Raises:
        TypeError: What is given is not a dtype, or cannot hold fractions.
        ValueError: A mapping names a slot that there is not, or wants int8 for one that is exact; or all slots are
            exact, and the dtype asked for would do nothing.
    """
    slots = dict.fromkeys(slot for rule in rules for slot in rule.slots)
    exact = {slot for rule in rules for slot in rule.exact}
    named = state_dtype if isinstance(state_dtype, Mapping) else {}
    requested = dict(named) if isinstance(state_dtype, Mapping) else dict.fromkeys(slots, state_dtype)
    for slot in named:
        if slot not in slots:
            known = ", ".join(repr(name) for name in slots) or "none"
            raise ValueError(f"{owner}: state_dtype names the slot {slot!r}; this rule's slots are {known}.")
        if slot in exact and _is_narrow(slot, named[slot], 2):
            raise ValueError(f"{owner}: slot {slot!r} cannot be stored as {named[slot]!r}: the rule needs it exactly.")
    if not named:
        too_narrow = [slot for slot in slots if slot in exact and _is_narrow(slot, requested.get(slot), 4)]
        if slots and len(too_narrow) == len(slots):
            raise ValueError(
                f"{owner}: state_dtype={state_dtype!r} would change nothing: this rule needs its slots exactly"
                f" ({', '.join(too_narrow)}). Leave state_dtype out."
            )
        requested |= dict.fromkeys(too_narrow)
    storages = {}
    for slot in slots:
        nonnegative = all(slot in rule.nonnegative for rule in rules if slot in rule.slots)
        if requested.get(slot) is not None:
            storages[slot] = _storage(slot, requested[slot], nonnegative, stochastic=True)
        else:
            storages[slot] = _storage(slot, slot_dtypes.get(slot, "auto"), nonnegative, stochastic=False)
    return storages


def _storage(slot: str, requested: Any, nonnegative: bool, stochastic: bool) -> Storage:
    if isinstance(requested, Storage):
        return requested
    if requested is None or (isinstance(requested, str) and requested == "auto"):
        return cast_storage(requested)
    dtype = _dtype_of(slot, requested)
    if dtype == jnp.int8:
        return int8_storage(nonnegative)
    return stochastic_storage(dtype, nonnegative) if stochastic and dtype in SIXTEEN_BITS else cast_storage(dtype)


def _is_narrow(slot: str, requested: Any, least_bytes: int) -> bool:
    """Whether a dtype is asked for that has fewer bytes than that."""
    if requested is None or isinstance(requested, Storage) or (isinstance(requested, str) and requested == "auto"):
        return False
    return _dtype_of(slot, requested).itemsize < least_bytes


def _dtype_of(slot: str, requested: Any) -> Any:
    try:
        dtype = jnp.dtype(requested)
    except TypeError:
        dtype = None
    if dtype is None or not (jnp.issubdtype(dtype, jnp.inexact) or dtype == jnp.int8):
        raise TypeError(
            f"slot {slot!r} cannot be stored as {requested!r}: expected a float dtype ('float32', 'bfloat16',"
            " 'float16', 'float64'), or 'int8'."
        )
    return dtype if dtype == jnp.int8 else jnp.dtype(jnp.zeros((), dtype).dtype)  # float64 is float32 without x64
