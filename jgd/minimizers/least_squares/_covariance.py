r"""The covariance of fitted params, $s^2 (J^\top J)^{-1}$, from the Jacobian of the residuals.

References:
    - Press, Teukolsky, Vetterling and Flannery, "Numerical recipes", 2007, section 15.4.
"""

import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.least_squares._damped_system import column_norms


def covariance_of(jacobian: Array, value: Array, absolute_sigma: bool) -> Array:
    """The covariance matrix.

    Args:
        jacobian: The Jacobian of the residuals [..., m, n].
        value: Half the sum of their squares [...].
        absolute_sigma: Whether the residuals are in units of their standard deviations; else the variance is estimated.

    Returns:
        Covariances [..., n, n]; infinite in rows and columns of params that the data do not determine.
    """
    rows, columns = jacobian.shape[-2:]
    eps = float(jnp.finfo(jacobian.dtype).eps)
    norms = column_norms(jacobian)
    norms = jnp.where(norms > 0, norms, 1)
    # of columns of norm one: what counts as dependent does not depend on the units of the params
    _, sizes, axes = jnp.linalg.svd(jacobian / norms[..., None, :], full_matrices=columns > rows)
    sizes = jnp.pad(sizes, [(0, 0)] * (sizes.ndim - 1) + [(0, columns - sizes.shape[-1])])
    determined = sizes > eps * max(rows, columns) * sizes[..., :1]
    weighted = jnp.where(determined, 1 / jnp.where(determined, sizes, 1), 0)[..., None] * axes / norms[..., None, :]
    covariance = jnp.einsum("...ki,...kj->...ij", weighted, weighted, precision="highest")
    if not absolute_sigma:
        variance = 2 * value / (rows - columns) if rows > columns else jnp.full_like(value, jnp.inf)
        covariance = covariance * variance[..., None, None].astype(covariance.dtype)
    undetermined = jnp.any(~determined[..., None] & (jnp.abs(axes) > eps**0.5), axis=-2)
    covariance = jnp.where(undetermined[..., :, None] | undetermined[..., None, :], jnp.inf, covariance)
    return jnp.full_like(covariance, jnp.inf) if rows <= columns and not absolute_sigma else covariance
