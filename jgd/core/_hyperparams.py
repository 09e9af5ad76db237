"""Hyperparameters are data: arrays in the optimizer's state, checked when they are given, changed without a recompile.

A hyperparameter given as a schedule, a function of the step count, is evaluated on the device at every update. Beside
it stands a second hyperparameter, `<name>_scale`, one at first, that multiplies the schedule: this is the handle by
which a scheduled run is changed, swept or differentiated.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core._containers import boxed_like, key_text, unboxed
from jgd.core._fixed import called_by_injection
from jgd.core._numerics import default_float
from jgd.core._ranges import (
    SCALE_SUFFIX,
    SHORT,
    Range,
    check_hyperparam,
    hyperparam_name,
    is_decay_rate,
    range_of,
    scale_of,
)
from jgd.core._rounding import SIXTEEN_BITS
from jgd.core._types import Array, PyTree, ScalarOrSchedule, is_traced


def _is_schedule(value: Any) -> bool:
    return callable(value) and not isinstance(value, type)


class _Settings(dict[str, Any]):
    """The fields of `Hyperparams` that are not numbers: settings to compare."""

    def __hash__(self) -> int:
        return hash(tuple(self))


@jax.tree_util.register_pytree_node_class
class Hyperparams:
    """The hyperparameters that a factory was given, ready to become arrays.

    A pytree of its numbers and schedules: a program compiled for an optimizer takes them as its arguments, where its
    library looks for them (optimistix does).

    What the state holds is what counts, with one exception: a factory called with a traced number, beside a state that
    its own optimizer did not make, as `optax.inject_hyperparams` calls it. That number is its caller's word on this
    very update. Which optimizer made a state is seen in the state: the keys of its hyperparameters are the names of
    that optimizer, the very objects.

    Args:
        owner: The factory's name, for messages.
        values: Numbers, arrays and schedules by name.
        arrays: Names whose values are arrays of any shape; all others are scalars.
        ranges: Ranges that differ from those of the names.
    """

    def __init__(
        self,
        owner: str,
        values: Mapping[str, ScalarOrSchedule],
        arrays: Sequence[str] = (),
        ranges: Mapping[str, Range] | None = None,
    ):
        self.owner = owner
        self.names = tuple(hyperparam_name(name, (ranges or {}).get(name, range_of(name))) for name in values)
        self.schedules: dict[str, Any] = {name: values[name] for name in self.names if _is_schedule(values[name])}
        self.values: dict[str, Any] = {name: values[name] for name in self.names if not _is_schedule(values[name])}
        for name, value in self.values.items():
            shape = np.shape(value) if name in arrays else ()
            check_hyperparam(owner, name, value, shape=shape)
        # Outside of jit the numbers of optax.inject_hyperparams are plain arrays.
        arrays_given = any(isinstance(value, jax.Array) for value in self.values.values())
        injected = arrays_given and called_by_injection()
        self._injected = {name: value for name, value in self.values.items() if injected or is_traced(value)}

    def tree_flatten(self) -> tuple[Any, Any]:
        """For JAX."""
        numbers = ("values", "schedules")
        settings = {name: value for name, value in vars(self).items() if name not in (*numbers, "_injected")}
        return tuple(getattr(self, name) for name in numbers), _Settings(settings)

    @classmethod
    def tree_unflatten(cls, settings: _Settings, children: tuple[Any, ...]) -> "Hyperparams":
        """For JAX. What was flattened may have been traced on the way: the state's numbers are what counts."""
        made = object.__new__(cls)
        vars(made).update(settings, values=children[0], schedules=children[1], _injected={})
        return made

    def text(self) -> str:
        """As one would write them in the factory's call."""
        shown = dict.fromkeys(self.schedules, "<schedule>")
        shown |= {name: "<traced>" if is_traced(value) else value for name, value in self.values.items()}
        return ", ".join(f"{name}={shown[name]}" for name in self.names)

    def init(self) -> dict[str, Array]:
        """Fresh arrays, none shared with the caller's, so that the state may be donated."""
        for name, value in self.values.items():
            if is_traced(value) and jnp.result_type(value) in SIXTEEN_BITS and is_decay_rate(name):
                raise TypeError(f"{self.owner}: {name} is a traced {jnp.result_type(value)}, which may be 1.{SHORT}")
        dtype = default_float()
        arrays: dict[str, Array] = {
            name: jnp.array(value, dtype=dtype, copy=True) for name, value in self.values.items()
        }
        for name in self.schedules:
            arrays[scale_of(name)] = jnp.ones((), dtype)
            arrays[name] = self._scheduled(name, jnp.zeros((), jnp.int32))
            if not is_traced(arrays[name]):
                self._scheduled(name, jnp.ones((), jnp.int32))  # the one value more that every run comes to
        return arrays

    def at_step(self, stored: Mapping[str, Array], count: Array) -> dict[str, Array]:
        """The values for the update that follows `count` updates.

        Args:
            stored: The state's hyperparameters. They are what counts, not the numbers that the factory was given.
            count: Updates made so far.

        Raises:
            ValueError: `stored` has other names than the factory's: the state is another optimizer's.
        """
        expected = {*self.names, *(scale_of(name) for name in self.schedules)}
        if set(stored) != expected:
            raise ValueError(
                f"{self.owner}: the state holds the hyperparameters {sorted(stored)}, this optimizer has"
                f" {sorted(expected)}. Pass the state that this optimizer's init made."
            )
        from_elsewhere = bool(self._injected) and not self._made(stored)
        # The names of a restored state may have lost their ranges; copies of names keep "from elsewhere" true.
        names: dict[str, str] = {
            name: hyperparam_name(name, name.bounds) if from_elsewhere else name for name in expected
        }
        used: dict[str, Array] = {names[name]: value for name, value in stored.items()}
        for name in self.schedules:
            used[name] = self._scheduled(name, count) * stored[name + SCALE_SUFFIX]
        if from_elsewhere:
            used |= {name: jnp.asarray(value, dtype=stored[name].dtype) for name, value in self._injected.items()}
        return used

    def _made(self, stored: Mapping[str, Array]) -> bool:
        """Whether these are hyperparameters that `init` made, or `at_step` of such."""
        keys = set(map(id, stored))
        return all(id(name) in keys for name in self.names)

    def complements(self, used: Mapping[str, Array]) -> dict[str, Array]:
        """For each decay rate `b` its complement, under the name `1-b`.

        Rounding 0.999 to float32 puts `1 - 0.999` off by 1e-5. Where the state still holds the rounded form of the
        number that the factory was given, the complement is that number's; its derivative is -1 in either case.
        """
        return {f"1-{name}": self._complement(name, value) for name, value in used.items() if is_decay_rate(name)}

    def _complement(self, name: str, used: Array) -> Array:
        number = self.values.get(name)
        if number is None or isinstance(number, jax.Array):
            return 1 - used
        rounded = np.asarray(number, used.dtype)
        missing = np.asarray((1.0 - float(number)) - (1.0 - float(rounded)), used.dtype)
        return (1 - used) + jnp.where(used == rounded, missing, 0)

    def _scheduled(self, name: str, count: Array) -> Array:
        value = self.schedules[name](count)
        check_hyperparam(self.owner, name, value, shown=f"the schedule of {name}", at=count)
        return jnp.array(value, dtype=default_float())


def _is_node(node: Any) -> bool:
    # jgd's OptState, and optax's inject_hyperparams states as well
    return isinstance(getattr(node, "hyperparams", None), dict) and hasattr(node, "_replace")


def _nodes(opt_state: PyTree) -> list[tuple[str, Any]]:
    nodes = jax.tree_util.tree_flatten_with_path(opt_state, is_leaf=_is_node)[0]
    # The names in a training state are those in its optimizer's state.
    is_training = not _is_node(opt_state) and hasattr(opt_state, "opt_state") and hasattr(opt_state, "params")
    names = [[key_text(key) for key in path] for path, _ in nodes]
    short = [keys[1:] if is_training and keys[:1] == ["opt_state"] else keys for keys in names]
    return [(".".join(keys), node) for keys, (_, node) in zip(short, nodes, strict=True) if _is_node(node)]


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
        TypeError: A value that is not a real number.

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
        check_hyperparam("set_hyperparams", name, value, shape=jnp.shape(old) if np.shape(value) else ())
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
