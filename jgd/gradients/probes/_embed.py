"""The look-up in a table."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jgd.core import Array, ArrayLike, DTypeLike, checked
from jgd.gradients.probes._parts import Part, Rows
from jgd.gradients.probes._recorder import Probe, call


class Embed(NamedTuple):
    """See `embed`."""

    dtype: Any
    name: str = "embed"

    def apply(self, x: Array, w: Array) -> Array:
        """The rows."""
        return jnp.take(jnp.asarray(w), x, axis=0).astype(self.dtype or w.dtype)

    def part(self, x: Array, w: Array, delta: Array) -> Part:
        """The cotangents, and the rows that they belong to."""
        ids = x.reshape(len(x), -1)
        return Rows(jnp.where(ids < 0, ids + w.shape[0], ids), delta.reshape(*ids.shape, -1))


@checked
def embed(ids: ArrayLike, table: ArrayLike, probe: Probe | None = None, *, dtype: DTypeLike | None = None) -> Array:
    """Rows of a table: `table[ids]`.

    Args:
        ids: Integers `[B, ...]` below the length of the table.
        table: `[V, ...]`.
        probe: What the loss was given; `None` looks up and no more.
        dtype: What the rows are cast to; the table's unless given.

    Returns:
        `[B, ..., ...]`: a row for each id. The row of an id outside of the table is NaN.

    Raises:
        TypeError: `ids` are no integers.
        ValueError: The table is a scalar; with a probe also one that is no leaf of the params.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import probes
        >>> print(probes.embed(jnp.array([[2, 0]]), jnp.array([[1.0], [2.0], [3.0]]))[0, :, 0])
        [3. 1.]
    """
    if not jnp.issubdtype(jnp.result_type(ids), jnp.integer):
        raise TypeError(f"probes.embed: ids have dtype {jnp.result_type(ids)}; expected integers.")
    if not jnp.ndim(table):
        raise ValueError("probes.embed: the table is a scalar; expected an array [V, ...].")
    return call(Embed(dtype), ids, table, probe)
