"""The product with a matrix."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from jgd.core import Array, ArrayLike, DTypeLike, checked
from jgd.gradients.probes._parts import Part, Products
from jgd.gradients.probes._recorder import Probe, call


class Dense(NamedTuple):
    """See `dense`."""

    axes: int
    transposed: bool
    dtype: Any
    name: str = "dense"

    def apply(self, x: Array, w: Array) -> Array:
        """`x w`, or `x w^T`."""
        dtype = self.dtype or jnp.result_type(x, w)
        first = x.ndim - self.axes
        kept = jnp.ndim(w) - self.axes if self.transposed else 0
        over = (tuple(range(first, x.ndim)), tuple(range(kept, kept + self.axes)))
        return jnp.tensordot(x.astype(dtype), jnp.asarray(w).astype(dtype), over)

    def part(self, x: Array, w: Array, delta: Array) -> Part:
        """Products of inputs and cotangents, in the order of the weight's axes."""
        kept = w.ndim - self.axes
        x = x.reshape(len(x), -1, math.prod(x.shape[x.ndim - self.axes :])).astype(delta.dtype)
        delta = delta.reshape(len(x), -1, math.prod(delta.shape[delta.ndim - kept :]))
        return Products((delta,), x) if self.transposed else Products((x,), delta)


@checked
def dense(
    x: ArrayLike,
    w: ArrayLike,
    probe: Probe | None = None,
    *,
    axes: int = 1,
    transposed: bool = False,
    dtype: DTypeLike | None = None,
) -> Array:
    """The product of inputs with a matrix: `x @ w`.

    Args:
        x: `[B, ..., I]`: examples, any further axes, and the features that the product sums over.
        w: `[I, O]`. It may have more axes, as the weights of attention heads do: `[I, H, O]`.
        probe: What the loss was given; `None` computes the product and no more.
        axes: How many of the last axes of `x` are summed over, and with them as many of the first axes of `w`: 2 for
            `x` `[B, T, H, I]` and `w` `[H, I, O]`.
        transposed: Sum over the last axes of `w` instead: `x @ w.T` with the leaf as it stands, as for an embedding
            table that is the last layer, too.
        dtype: What both are cast to, for a product in low precision; that of their promotion unless given.

    Returns:
        `[B, ..., O]`.

    Raises:
        ValueError: Shapes that do not fit; with a probe also a weight that is no leaf of the params.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import probes
        >>> print(probes.dense(jnp.ones((2, 3)), jnp.ones((3, 4))).shape)
        (2, 4)
    """
    shape, x_shape = jnp.shape(w), jnp.shape(x)
    summed = shape[len(shape) - axes :] if transposed else shape[:axes]
    if axes < 1 or len(shape) <= axes or len(x_shape) <= axes or x_shape[len(x_shape) - axes :] != summed:
        raise ValueError(
            f"probes.dense: x has shape {x_shape} and w {shape}; expected the last {axes} axes of x, behind that of the"
            f" examples, to be the {'last' if transposed else 'first'} {axes} of w, and w to have further axes."
        )
    return call(Dense(axes, transposed, dtype), x, w, probe)
