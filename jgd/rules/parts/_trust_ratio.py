"""The length of a step against that of the leaf it changes, for LARS and LAMB."""

import jax.numpy as jnp

from jgd.core import Array, global_norm, squares


def trust_ratio(
    param: Array, direction: Array, coefficient: Array | float = 1.0, eps: Array | float = 0.0
) -> tuple[Array, Array]:
    """Two factors, of product `coefficient * |param| / (|direction| + eps)`, or one where either norm is zero."""
    param_norm, direction_sq = global_norm(param), squares([direction])
    unusable = (param_norm == 0) | (direction_sq.total == 0)
    ratio = coefficient * param_norm / (jnp.where(unusable, 1, direction_sq.length) + eps * direction_sq.scale)
    return jnp.where(unusable, 1, direction_sq.scale), jnp.where(unusable, 1, ratio)
