"""The length of a step against that of the leaf it changes, for LARS and LAMB."""

import jax.numpy as jnp

from jgd.core import Array, global_norm, squares


def trust_ratio(
    param: Array, direction: Array, coefficient: Array | float = 1.0, eps: Array | float = 0.0
) -> tuple[Array, Array]:
    """Two factors, of product `coefficient * |param| / (|direction| + eps)`, or one where either norm is zero."""
    size, found = global_norm(param), squares([direction])
    unusable = (size == 0) | (found.total == 0)
    ratio = coefficient * size / (jnp.where(unusable, 1, found.length) + eps * found.scale)
    return jnp.where(unusable, 1, found.scale), jnp.where(unusable, 1, ratio)
