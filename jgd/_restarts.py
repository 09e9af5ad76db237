"""Where the rounds of a schedule with restarts begin, exactly."""

import decimal
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jgd.core import Array, ArrayLike

MOST_ROUNDS = 16384


def as_float(value: ArrayLike) -> Array:
    """A value in JAX's default float dtype."""
    return jnp.asarray(value, jnp.result_type(float))


def rounds(period: int, factor: decimal.Decimal) -> Callable[[Array], tuple[Array, Array]]:
    """From a step to the number of its round, a float, and the share of that round that is over.

    Each round is `factor` times as long as the one before, for the first 16384; those after it have its length.
    """
    if factor == 1:
        return lambda t: (as_float(t // period), as_float(t % period) / period)
    with decimal.localcontext(prec=100):
        starts, lengths, start, length = [], [], decimal.Decimal(0), decimal.Decimal(period)
        while len(starts) < MOST_ROUNDS and start < 2**31:
            starts.append(start)
            lengths.append(length)
            start, length = start + length, length * factor
        first_steps = [int(start.to_integral_value(decimal.ROUND_CEILING)) for start in starts]
        ahead = [float(step - start) for step, start in zip(first_steps, starts, strict=True)]
    # A floor of a quotient or of a logarithm may be off by one wherever it is rounded; a comparison of integers is not.
    steps = np.asarray(np.minimum(first_steps, np.iinfo(np.int32).max), np.int32)
    floats = np.asarray([ahead, [float(length) for length in lengths]])

    def find(t: Array) -> tuple[Array, Array]:
        number = jnp.sum(jnp.asarray(steps) <= t) - 1
        late, length = as_float(floats)[:, number]
        share = (as_float(t - jnp.asarray(steps)[number]) + late) / length
        more = jnp.where(number == MOST_ROUNDS - 1, jnp.floor(share), 0)
        return number + more, share - more

    return find
