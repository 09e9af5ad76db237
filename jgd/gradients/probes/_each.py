"""Any function of one example and one weight."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from jgd.core import Array, ArrayLike, checked
from jgd.gradients.probes._parts import Full, Part
from jgd.gradients.probes._recorder import Probe, call


class Each(NamedTuple):
    """See `each`."""

    fun: Callable[[Array, Array], Array]
    name: str = "each"

    def apply(self, x: Array, w: Array) -> Array:
        """The function, example by example."""
        return jax.vmap(self.fun, in_axes=(0, None))(x, w)

    def part(self, x: Array, w: Array, delta: Array) -> Part:
        """The gradient of every example."""

        def pulled(x: Array, delta: Array) -> Array:
            return jax.vjp(lambda w: self.fun(x, w), w)[1](delta)[0]

        return Full(jax.vmap(pulled)(x, delta))


@checked
def each(fun: Callable[[Array, Array], Array], x: ArrayLike, w: ArrayLike, probe: Probe | None = None) -> Array:
    """Any other operation with a weight: `fun(x_i, w)` for every example `x_i`.

    The norm comes from the examples' gradients themselves: it takes the memory of B times this one leaf for a moment.

    Args:
        fun: From one example of `x` and the weight to an array.
        x: `[B, ...]`.
        w: The weight.
        probe: What the loss was given; `None` computes the outputs and no more.

    Returns:
        `[B, ...]`.

    Raises:
        ValueError: With a probe a weight that is no leaf of the params.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import probes
        >>> print(probes.each(lambda x, w: jnp.exp(-w * x), jnp.array([[0.0], [1.0]]), jnp.array(0.0))[:, 0])
        [1. 1.]
    """
    return call(Each(fun), x, w, probe)
