"""Hyperparameters are data: arrays in the optimizer's state, checked when they are given, changed without a recompile.

A hyperparameter given as a schedule, a function of the step count, is evaluated on the device at every update. Beside
it stands a second hyperparameter, `<name>_scale`, one at first, that multiplies the schedule: this is the handle by
which a scheduled run is changed, swept or differentiated.
"""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core._containers import boxed_like, key_text, unboxed
from jgd.core._fixed import called_by_injection
from jgd.core._numerics import default_float
from jgd.core._rounding import SIXTEEN_BITS
from jgd.core._types import Array, PyTree, ScalarOrSchedule, is_traced

# Where each hyperparameter may lie: lowest value, whether it is allowed, and the bound that it stays below.
Range = tuple[float, bool, float]
NOT_NEGATIVE: Range = (0.0, True, math.inf)
DECAY_RATE: Range = (0.0, True, 1.0)
POSITIVE: Range = (0.0, False, math.inf)
_RANGES: dict[str, Range] = {
    **dict.fromkeys(("learning_rate", "max_learning_rate", "weight_decay", "eps", "eps_root"), NOT_NEGATIVE),
    **dict.fromkeys(("consistent_rms", "max_norm", "threshold", "clip_threshold", "max_delta", "clipping"), POSITIVE),
    **dict.fromkeys(("momentum", "beta", "b1", "b2", "b3", "rho", "decay", "shampoo_beta"), DECAY_RATE),
}
_HINTS = {
    "learning_rate": " To climb instead of descend, negate the loss.",
    "weight_decay": " A positive value shrinks the params.",
}
_SHORT = (
    " It came in 16 bits, which round 0.999 to 1. Give it as a float32; to optax.inject_hyperparams, which casts"
    " numbers to the params' dtype, give hyperparam_dtype=jnp.float32."
)
SCALE_SUFFIX = "_scale"


def _range_of(name: str) -> Range | None:
    return _RANGES.get(name, _RANGES.get(name.removeprefix("adam_")))


def is_decay_rate(name: str) -> bool:
    """Whether a hyperparameter of this name is the decay rate of an average, between 0 and 1."""
    return _range_of(name) is DECAY_RATE


def check_hyperparam(
    owner: str, name: str, value: Any, *, shape: tuple[int, ...] = (), bounds: Range | None = None
) -> None:
    """Refuses a value that cannot be right; a traced value is checked for its shape and dtype alone.

    `bounds` are the range, where it is not that of the name.

    Raises:
        TypeError: It is no real number.
        ValueError: It has another shape than `shape`, is not finite, or lies outside the range of its name.
    """
    where = f"{owner}: {name}"
    if isinstance(value, str | bytes) or value is None:
        raise TypeError(f"{where} must be a number, a scalar array or a schedule; got {value!r}.")
    try:
        if isinstance(value, type | dict) or (isinstance(value, int) and abs(value) >= 2**63):
            raise TypeError  # NumPy would take them for a dtype, or for objects
        dtype, found_shape = jnp.result_type(value), jnp.shape(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"{where} must be a number, a scalar array or a schedule; got {value!r} of type {type(value).__name__}."
        ) from None
    if not (jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)):
        raise TypeError(f"{where} must be a real number; got dtype {dtype}.")
    if found_shape != shape:
        expected = "a scalar" if shape == () else f"an array of shape {shape}"
        raise ValueError(
            f"{where} must be {expected}; got shape {found_shape}. To sweep several values, vmap over the state."
        )
    if not is_traced(value):
        hint = _SHORT if dtype in SIXTEEN_BITS else _HINTS.get(name, "")
        # In float64: a bound a little above one would be one in float32.
        _check_range(where, np.asarray(value).astype(np.float64), bounds or _range_of(name), hint)


def _check_range(where: str, value: np.ndarray, bounds: Range | None, hint: str) -> None:
    shown = value.item() if value.ndim == 0 else value.tolist()
    if not np.all(np.isfinite(value)):
        raise ValueError(f"{where} must be finite; got {shown}.")
    if bounds is None:
        return
    low, low_allowed, high = bounds
    inside = ((value >= low) if low_allowed else (value > low)) & (value < high)
    if not np.all(inside):
        at_least = f"at least {low:g}" if low_allowed else f"above {low:g}"
        below = "" if math.isinf(high) else f" and below {high:g}"
        raise ValueError(f"{where} must be {at_least}{below}; got {shown}.{hint}")


class Hyperparams:
    """The hyperparameters that a factory was given, ready to become arrays.

    Args:
        owner: The factory's name, for messages.
        given: Numbers, arrays and schedules by name.
        arrays: Names whose values are arrays of any shape; all others are scalars.
        ranges: Ranges that differ from those of the names.
    """

    def __init__(
        self,
        owner: str,
        given: Mapping[str, ScalarOrSchedule],
        arrays: Sequence[str] = (),
        ranges: Mapping[str, Range] | None = None,
    ):
        self.schedules = {name: value for name, value in given.items() if callable(value)}
        self.values = {name: value for name, value in given.items() if not callable(value)}
        self.owner = owner
        self.names = tuple(given)
        for name, value in self.values.items():
            shape = np.shape(value) if name in arrays else ()
            check_hyperparam(owner, name, value, shape=shape, bounds=(ranges or {}).get(name))
        # A traced value given to an optimizer that did not make the state is its caller's word on this very update:
        # so does optax.inject_hyperparams call a factory, outside of jit too, where its numbers are plain arrays.
        arrays_given = any(isinstance(value, jax.Array) for value in self.values.values())
        injected = arrays_given and called_by_injection()
        self._of_this_update = {name: value for name, value in self.values.items() if injected or is_traced(value)}
        self._made_a_state = False

    def text(self) -> str:
        """As one would write them in the factory's call."""
        shown = dict.fromkeys(self.schedules, "<schedule>")
        shown |= {name: "<traced>" if is_traced(value) else value for name, value in self.values.items()}
        return ", ".join(f"{name}={shown[name]}" for name in self.names)

    def init(self) -> dict[str, Array]:
        """Fresh arrays, none shared with the caller's, so that the state may be donated."""
        self._made_a_state = True
        for name, value in self.values.items():
            if is_traced(value) and jnp.result_type(value) in SIXTEEN_BITS and is_decay_rate(name):
                raise TypeError(f"{self.owner}: {name} is a traced {jnp.result_type(value)}, which may be 1.{_SHORT}")
        dtype = default_float()
        arrays = {name: jnp.array(value, dtype=dtype, copy=True) for name, value in self.values.items()}
        for name in self.schedules:
            arrays[name + SCALE_SUFFIX] = jnp.ones((), dtype)
            arrays[name] = self._scheduled(name, jnp.zeros((), jnp.int32))
        return arrays

    def at_step(self, stored: Mapping[str, Array], count: Array) -> dict[str, Array]:
        """The values for the update that follows `count` updates.

        Args:
            stored: The state's hyperparameters. They are what counts, not the numbers that the factory was given.
            count: Updates made so far.

        Raises:
            ValueError: `stored` has other names than the factory's: the state is another optimizer's.
        """
        expected = set(self.names) | {name + SCALE_SUFFIX for name in self.schedules}
        if set(stored) != expected:
            raise ValueError(
                f"{self.owner}: the state holds the hyperparameters {sorted(stored)}, this optimizer has"
                f" {sorted(expected)}. Pass the state that this optimizer's init made."
            )
        used = dict(stored)
        for name in self.schedules:
            used[name] = self._scheduled(name, count) * stored[name + SCALE_SUFFIX]
        if not self._made_a_state:
            given = self._of_this_update
            used |= {name: jnp.asarray(value, dtype=stored[name].dtype) for name, value in given.items()}
        return used

    def complements(self, used: Mapping[str, Array]) -> dict[str, Array]:
        """For each decay rate `b` its complement, under the name `1-b`.

        Rounding 0.999 to float32 puts `1 - 0.999` off by 1e-5. Where the state still holds the rounded form of the
        number that the factory was given, the complement is that number's; its derivative is -1 in either case.
        """
        return {f"1-{name}": self._complement(name, value) for name, value in used.items() if is_decay_rate(name)}

    def _complement(self, name: str, used: Array) -> Array:
        given = self.values.get(name)
        if given is None or isinstance(given, jax.Array):
            return 1 - used
        rounded = np.asarray(given, used.dtype)
        missing = np.asarray((1.0 - float(given)) - (1.0 - float(rounded)), used.dtype)
        return (1 - used) + jnp.where(used == rounded, missing, 0)

    def _scheduled(self, name: str, count: Array) -> Array:
        value = self.schedules[name](count)
        check_hyperparam(self.owner, f"the schedule of {name}", value)
        return jnp.array(value, dtype=default_float())


def _is_node(node: Any) -> bool:
    # jgd's OptState, and optax's inject_hyperparams states as well
    return isinstance(getattr(node, "hyperparams", None), dict) and hasattr(node, "_replace")


def _nodes(opt_state: PyTree) -> list[tuple[str, Any]]:
    found = jax.tree_util.tree_flatten_with_path(opt_state, is_leaf=_is_node)[0]
    return [(".".join(key_text(key) for key in path), node) for path, node in found if _is_node(node)]


def _addresses(opt_state: PyTree) -> dict[str, tuple[int, str]]:
    """For each public name where it stands: the number of the node, and the name within it."""
    nodes = _nodes(opt_state)
    counts = collections.Counter(name for _, node in nodes for name in node.hyperparams)
    return {
        name if counts[name] == 1 else f"{path}.{name}": (i, name)
        for i, (path, node) in enumerate(nodes)
        for name in node.hyperparams
    }


def get_hyperparams(opt_state: PyTree) -> dict[str, Array]:
    """All hyperparameters of an optimizer state, by name.

    Args:
        opt_state: The state of a jgd optimizer, or any tree that holds such states: of `jgd.chain`, of
            `optax.chain`, a `jgd.TrainState`. States of `optax.inject_hyperparams` are read as well.

    Returns:
        Name to array (default float dtype), as the last update used them. A name that two parts of a chain share is
        preceded by the part's position, as in `"1.learning_rate"`.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.chain(jgd.clip_by_global_norm(1.0), jgd.sgd(0.5))
        >>> state = optimizer.init(jnp.zeros(3))
        >>> {name: float(value) for name, value in jgd.get_hyperparams(state).items()}
        {'max_norm': 1.0, 'learning_rate': 0.5}
    """
    nodes = _nodes(opt_state)
    return {public: unboxed(nodes[i][1].hyperparams[name]) for public, (i, name) in _addresses(opt_state).items()}


def set_hyperparams(opt_state: PyTree, **values: Any) -> PyTree:
    """The same state with other hyperparameters. Nothing is recompiled by it: they are data.

    Args:
        opt_state: As for `get_hyperparams`.
        **values: Numbers or arrays by name. Each takes the dtype and shape of the value that it replaces; a scalar
            is broadcast where the state was `vmap`-ped over.

    Returns:
        A new state; the given one is unchanged.

    Raises:
        ValueError: A name that the state does not have (the message lists those that it has), a name that several
            parts share, a value outside its range, a wrong shape; or a hyperparameter that follows a schedule, whose
            next value would overwrite the one given: set `<name>_scale`, the factor on the schedule, instead.
        TypeError: A value that is no real number.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> state = jgd.adam(1e-3).init(jnp.zeros(3))
        >>> state = jgd.set_hyperparams(state, learning_rate=1e-4)
        >>> print(state.hyperparams["learning_rate"])
        1e-04
    """
    addresses = _addresses(opt_state)
    known = get_hyperparams(opt_state)
    changes: dict[tuple[int, str], Array] = {}
    for public, value in values.items():
        if public not in addresses:
            raise ValueError(_unknown_name(public, addresses))
        if public + SCALE_SUFFIX in addresses:
            raise ValueError(
                f"set_hyperparams: {public} follows a schedule, and the next update would overwrite the value."
                f" Set {public + SCALE_SUFFIX}, which multiplies the schedule, or build the optimizer with a number."
            )
        old = known[public]
        _, name = addresses[public]
        check_hyperparam("set_hyperparams", name, value, shape=jnp.shape(old) if jnp.shape(value) else ())
        changes[addresses[public]] = in_place_of(old, value)
    position = iter(range(len(_nodes(opt_state))))

    def change(node: Any) -> Any:
        if not _is_node(node):
            return node
        i = next(position)
        new = {name: boxed_like(value, changes.get((i, name), value)) for name, value in node.hyperparams.items()}
        return node._replace(hyperparams=new)

    return jax.tree.map(change, opt_state, is_leaf=_is_node)


def in_place_of(old: Array, value: Any) -> Array:
    """A value as an array that a compiled program takes for the old one: of its shape, dtype, weakness and place."""
    shape = jnp.shape(old)
    if is_traced(old) or is_traced(value):
        return jnp.broadcast_to(jnp.array(value, dtype=old.dtype, copy=True), shape)
    host = np.asarray(value)  # from wherever it lies: where it goes is the old one's affair
    weak = getattr(old, "weak_type", False) and host.ndim == 0
    new = jnp.full(shape, host.item()) if weak else jnp.array(np.broadcast_to(host, shape), dtype=old.dtype)
    new = new if new.dtype == old.dtype else new.astype(old.dtype)
    return jax.device_put(new, old.sharding) if getattr(old, "committed", False) else new


def _unknown_name(name: str, addresses: Mapping[str, Any]) -> str:
    shared = [public for public in addresses if public.endswith(f".{name}")]
    if shared:
        return f"set_hyperparams: {name} stands in several parts of the state; say which: {', '.join(shared)}."
    known = ", ".join(addresses) or "none"
    return f"set_hyperparams: unknown hyperparameter {name!r}; this state has: {known}."
