"""First values of slots."""

import jax.numpy as jnp

from jgd.core import Array


def initial_param(param: Array) -> Array:
    """A slot that starts as the param."""
    return param


def zero(params: list[Array]) -> Array:
    """A slot of the whole tree that starts as the number zero."""
    del params
    return jnp.zeros(())
