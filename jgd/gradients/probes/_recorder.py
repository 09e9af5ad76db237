"""The probe: notes what every probed operation was given, and taps what it returns."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state

from jgd.core import Array
from jgd.gradients.probes._parts import Part

#: What an error says to use where an operation has no probe.
OPERATIONS = "probes.dense, conv, embed, scale, bias and each"


class Operation(Protocol):
    """An operation with a weight: how it is computed, and what one use of it gives to the weight's gradient."""

    @property
    def name(self) -> str:
        """Its name, for messages."""
        ...

    def apply(self, x: Array, w: Array) -> Array:
        """The output, affine in `w`."""
        ...

    def part(self, x: Array, w: Array, delta: Array) -> Part:
        """Each example's gradient with respect to `w`, from the output's cotangent."""
        ...


class Use(NamedTuple):
    """One call of a probed operation: which leaf it used, and the shape and dtype of its output."""

    leaf: int
    operation: Operation
    output: jax.ShapeDtypeStruct


class Probe:
    """Passed to a loss in place of `None`; a loss does no more with it than pass it on to the operations.

    Args:
        leaves: The leaves of the params as the loss sees them. A weight is found by which object it is.
        stand_ins: What the operations compute with instead of the leaves, to see where else a leaf is used.
        taps: Zeros that are added to the outputs, whose gradients are the outputs' cotangents.
        size: How many examples there are.
    """

    def __init__(
        self, leaves: Sequence[Any], size: int, stand_ins: Sequence[Any] | None = None, taps: Sequence[Any] = ()
    ):
        self._places = {id(leaf): i for i, leaf in enumerate(leaves)}
        self._leaves = tuple(leaves)  # kept, so that no other object gets one of these ids
        self._stand_ins = stand_ins
        self._taps = taps
        self._size = size
        self._trace = get_opaque_trace_state()
        self.uses: list[Use] = []
        self.inputs: list[Array] = []

    def record(self, operation: Operation, x: Array, w: Any) -> Array:
        """The output of an operation, tapped."""
        where = f"probes.{operation.name} (call {len(self.uses)}, x {_text(x)}, weight {_text(w)})"
        if get_opaque_trace_state() != self._trace:
            raise ValueError(
                f"{where}: called inside another transformation (jit, scan, cond, vmap, checkpoint or grad) within"
                " losses_fn; expected a call on the whole batch. Write loops in Python and leave jit to the outside."
            )
        if id(w) not in self._places:
            raise ValueError(
                f"{where}: the weight is not a float leaf of params as it stands; expected the very array that params"
                " holds. For w.T use dense(..., transposed=True), for w.astype(dtype) the argument dtype=dtype, for a"
                " reshaped or sliced weight leaves of that shape, for an array that is no parameter the plain operation"
                " (probe=None)."
            )
        if jnp.ndim(x) < 1 or x.shape[0] != self._size:
            raise ValueError(f"{where}: expected the {self._size} examples of the batch as the first axis of x.")
        leaf = self._places[id(w)]
        y = operation.apply(x, w if self._stand_ins is None else self._stand_ins[leaf])
        place = len(self.uses)
        self.uses.append(Use(leaf, operation, jax.ShapeDtypeStruct(y.shape, y.dtype)))
        self.inputs.append(x)
        return y + self._taps[place] if self._taps else y


def call(operation: Operation, x: Any, w: Any, probe: Probe | None) -> Array:
    """An operation with or without a probe."""
    x = jnp.asarray(x)
    return operation.apply(x, w) if probe is None else probe.record(operation, x, w)


def _text(array: Any) -> str:
    return f"{jnp.result_type(array)}{list(jnp.shape(array))}"
