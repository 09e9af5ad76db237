r"""The system of a Gauss-Newton step, $(J^\top J + \lambda D^2)\, p = -J^\top r$, solved without forming $J^\top J$."""

from typing import Any

import jax
import jax.numpy as jnp

from jgd.core import Array
from jgd.minimize._problem import dot


def jacobian(residuals: Any, params: Array) -> tuple[Array, Array]:
    """The residuals [m] and their Jacobian [m, n], by columns or by rows, whichever are fewer."""
    rows = jax.eval_shape(residuals, params).shape[0]
    if params.size <= rows:
        values, push = jax.linearize(residuals, params)
        return values, jax.vmap(push, out_axes=1)(jnp.eye(params.size, dtype=params.dtype))
    values, pull = jax.vjp(residuals, params)
    return values, jax.vmap(pull)(jnp.eye(rows, dtype=values.dtype))[0]


def solve_dense(matrix: Array, residuals: Array, damping: Array, scale: Array) -> Array:
    r"""The step by a QR factorization of $J$ over $\sqrt\lambda D$; params that change nothing stay.

    Args:
        matrix: $J$ [m, n].
        residuals: $r$ [m].
        damping: $\lambda$, at least 0.
        scale: $D$ [n], positive.

    Returns:
        The step [n].
    """
    rows, columns = matrix.shape
    stacked = jnp.concatenate([matrix / scale, jnp.sqrt(damping) * jnp.eye(columns, dtype=matrix.dtype)])
    target = jnp.concatenate([-residuals, jnp.zeros(columns, residuals.dtype)])
    q, r = jnp.linalg.qr(stacked)
    diagonal = jnp.abs(jnp.diagonal(r))
    eps = jnp.finfo(matrix.dtype).eps
    floor = eps * max(rows, columns) * jnp.max(diagonal, initial=0.0)
    singular = diagonal <= floor
    safe = r + jnp.diag(jnp.where(singular, jnp.maximum(floor / eps, eps), 0).astype(r.dtype))
    step = jax.scipy.linalg.solve_triangular(safe, q.T @ target)
    return step / scale


def solve_by_cg(
    push: Any, pull: Any, gradient: Array, damping: Array, scale: Array, max_products: int, running: Any
) -> tuple[Array, Array]:
    """The step by conjugate gradients on the scaled normal equations, and the products made."""
    rhs = -gradient / scale
    square = dot(rhs, rhs)
    tol = jnp.minimum(0.1, jnp.sqrt(jnp.sqrt(square))) ** 2 * square
    zero = jnp.zeros_like(rhs)

    def turn(s: tuple[Array, ...]) -> tuple[Array, ...]:
        step, residual, direction, square, count = s
        applied = pull(push(direction / scale)) / scale + damping * direction
        curvature = dot(direction, applied)
        alpha = jnp.where(curvature > 0, square / jnp.where(curvature > 0, curvature, 1), 0)
        residual = residual - alpha * applied
        after = dot(residual, residual)
        direction = residual + after / jnp.where(square > 0, square, 1) * direction
        return step + alpha * s[2], residual, direction, after, count + 1

    def goes_on(s: tuple[Array, ...]) -> Array:
        return running & (s[3] > tol) & (s[4] < max_products)

    start = (zero, rhs, rhs, square, jnp.zeros((), jnp.int32))
    step, _, _, _, count = jax.lax.while_loop(goes_on, turn, start)
    return step / scale, count
