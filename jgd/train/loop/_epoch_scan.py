"""Steps over data on the device, many in one compiled loop.

The arrays are placed on the device once, and the loop gathers each batch by its indices. It runs as many steps as it
is told to without compiling anew, and writes the scalars of each into buffers.
"""

import weakref
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import Array, PyTree, programs_inside
from jgd.train._state import TrainState
from jgd.train.data._array_loader import ArrayLoader, padded
from jgd.train.data._position import Data, Place
from jgd.train.loop._history import scalars_of
from jgd.train.step._make_step import Step

#: The scalars of the steps by name, and their `bad_leaf`.
Numbers = tuple[dict[str, Array], Array]

Scan = bool | Literal["auto"]

# A loop of steps cannot be interrupted, so that it should not take long.
SECONDS = 0.25
# "auto" copies data of at most this size, and at most a quarter of the device's memory where that is known.
_MOST_BYTES = 1 << 30


class ScanResult(NamedTuple):
    """What some steps gave: the numbers of each in front of buffers that may be longer."""

    state: TrainState
    running: Array
    scalars: dict[str, Array]
    bad_leaves: Array


class EpochScan:
    """A step as a compiled loop over the batches of a loader.

    Args:
        step: What `make_step` returned.
        loader: The data.
        length: The most steps at once.

    Attributes:
        names: The names of the scalars that are not from `aux`, as `Recorder` wants them.
        batches: How many batches of an epoch it can run: those of full size.
    """

    def __init__(self, step: Step, loader: ArrayLoader, length: int):
        self._loader, self._length, self._step = loader, length, step
        padded = loader.remainder == "pad"
        self.batches = len(loader) if padded else loader.size // loader.batch_size
        self.names: set[str] = set()
        self._compiled = _program(step, length, loader.size if padded else None)
        self._arrays: PyTree = None
        self._order: tuple[int, Array | None] = (-1, None)

    def holds_convolutions(self, state: TrainState) -> bool:
        """Whether a convolution is among what the step computes. Compiles nothing; the trace is used again."""
        self._upload(0)
        zero = np.int32(0)
        traced = self._compiled.trace(state, np.array(True), self._arrays, self._order[1], zero, zero)
        return any(equation.primitive.name == "conv_general_dilated" for equation in _equations(traced.jaxpr.jaxpr))

    def __call__(self, state: TrainState, running: Array, epoch: int, first: int, count: int) -> ScanResult:
        """Runs the batches `first`, ..., `first + count - 1` of an epoch."""
        self._upload(epoch)
        out = self._compiled(state, running, self._arrays, self._order[1], np.int32(first), np.int32(count))
        state, running, scalars, bad_leaves, names = out
        self.names = set(names)
        return ScanResult(state, running, scalars, bad_leaves)

    def place(self, epoch: int, batch: int) -> Place:
        """The place after so many batches of an epoch."""
        self._loader.seek(epoch, batch)
        return Place(epoch, batch, self._loader.state())

    def batch(self, epoch: int, batch: int) -> PyTree:
        """One of the batches, for a report."""
        return self._loader.batch(epoch, batch)

    def _upload(self, epoch: int) -> None:
        """Places the arrays and the order of an epoch on the device, unless they are there."""
        if self._arrays is None:
            self._arrays = jax.tree.map(jax.device_put, self._loader.arrays)
        if self._order[0] != epoch:
            size = self._loader.batch_size
            order = self._loader.order(epoch)[: self.batches * size].astype(np.int32)
            order = np.pad(order, (0, self.batches * size - order.size), mode="edge")
            self._order = epoch, jax.device_put(order.reshape(self.batches, size))


def epoch_scan(scan: Scan, step: Step, data: Data, state: TrainState, length: int) -> EpochScan | None:
    """The compiled loop, where `scan` asks for it or `"auto"` finds it safe; None for one step at a time.

    Raises:
        ValueError: It is asked for, and the data is no `ArrayLoader` with a full batch.
    """
    if not isinstance(scan, bool | np.bool_) and not (isinstance(scan, str) and scan == "auto"):
        raise ValueError(f"fit: scan must be True, False or 'auto'; got {scan!r}.")
    if not scan:
        return None
    if not _can_gather(data):
        if scan != "auto":
            raise ValueError(
                "fit: scan=True runs over a jgd.ArrayLoader with at least one full batch, and over no subclass that"
                f" makes its batches otherwise; got a {type(data).__name__}. scan='auto' takes single steps there."
            )
        return None
    loop = EpochScan(step, data, length)
    if scan != "auto":
        return loop
    devices = {device for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array) for device in leaf.devices()}
    if len(devices) != 1 or not _fits_in_memory(data.arrays, next(iter(devices))):
        return None
    # XLA runs convolutions within a loop on a CPU several times slower than outside of one.
    return None if next(iter(devices)).platform == "cpu" and loop.holds_convolutions(state) else loop


def _can_gather(data: Data) -> TypeGuard[ArrayLoader]:
    """Whether the data's batches are those that the loop gathers."""
    if not isinstance(data, ArrayLoader):
        return False
    names = ("batch", "indices", "order", "__len__", "__iter__")
    as_here = all(getattr(type(data), name) is getattr(ArrayLoader, name) for name in names)
    return as_here and (data.remainder == "pad" or data.size >= data.batch_size)


def _fits_in_memory(arrays: PyTree, device: Any) -> bool:
    size = sum(array.nbytes for array in jax.tree.leaves(arrays))
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return size <= (_MOST_BYTES if limit is None else min(_MOST_BYTES, limit // 4))


# One compiled program for all calls of `fit` with the same step.
_programs: "weakref.WeakKeyDictionary[Step, dict[Any, Any]]" = weakref.WeakKeyDictionary()


def _program(step: Step, length: int, real: int | None) -> Any:
    of_step = _programs.setdefault(step, {})
    if (length, real) not in of_step:
        of_step[length, real] = jax.jit(_loop(step.advance, length, real), donate_argnums=(0,) if step.donate else ())
    return of_step[length, real]


def _loop(advance: Callable[..., Any], length: int, real: int | None) -> Callable[..., Any]:
    """The loop itself; `real` is how many examples there are where the last batch is padded."""

    def steps(
        state: TrainState, running: Array, arrays: PyTree, order: Array, first: Array, count: Array
    ) -> tuple[TrainState, Array, dict[str, Array], Array, dict[str, Array]]:
        names: set[str] = set()

        # Compiled on its own, so that the loss is traced once for the shapes and for the loop.
        @jax.jit
        def one(state: TrainState, running: Array, i: Array) -> ScanResult:
            indices = order[i]
            batch = jax.tree.map(lambda array: array.at[indices].get(mode="promise_in_bounds"), arrays)
            if real is not None:
                batch = padded(batch, i * indices.shape[0] + jnp.arange(indices.shape[0]) < real)
            state, metrics, bad_leaf, running = advance(state, batch, running)
            scalars, metric_names = scalars_of(metrics)
            names.update(metric_names)
            return ScanResult(state, running, scalars, bad_leaf)

        def body(carry: tuple[Array, TrainState, Array, Numbers]) -> tuple[Array, TrainState, Array, Numbers]:
            i, state, running, buffers = carry
            state, running, *numbers = one(state, running, first + i)
            return i + 1, state, running, jax.tree.map(lambda row, x: row.at[i].set(x), buffers, tuple(numbers))

        _, _, *shapes = jax.eval_shape(one, state, running, first)
        buffers = jax.tree.map(lambda scalar: jnp.zeros((length,), scalar.dtype), tuple(shapes))
        start = (jnp.zeros((), jnp.int32), state, jnp.asarray(running), buffers)
        _, state, running, (scalars, bad_leaves) = jax.lax.while_loop(lambda carry: carry[0] < count, body, start)
        # A jitted function returns arrays alone: the names are the keys of a dict of them.
        return state, running, scalars, bad_leaves, dict.fromkeys(sorted(names), jnp.zeros((), bool))

    return steps


def _equations(jaxpr: Any) -> Iterator[Any]:
    """All equations of a program, those of its inner programs included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in programs_inside(equation):
            yield from _equations(inner)
