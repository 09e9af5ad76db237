r"""The system of a Gauss-Newton step, $(J^\top J + \lambda D^2)\, p = -J^\top r$, solved without forming $J^\top J$."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.problem._problem import Point, Problem, dot
from jgd.minimizers.problem._value import half_sum_of_squares

#: With "auto", systems of up to so many params are solved by a QR factorization.
DENSE = 1000

Solver = Literal["auto", "qr", "cg"]


class Linear(NamedTuple):
    """The residuals of a point [m] and their Jacobian [m, n]."""

    residuals: Array
    matrix: Array


def residuals_of(problem: Problem) -> Any:
    """The function of the residuals.

    Raises:
        TypeError: There is none.
    """
    if problem.residuals is None:
        raise TypeError("minimize: this method needs residuals; fun must return them, not their sum of squares.")
    return problem.residuals


def is_dense(solver: Solver, params: Array) -> bool:
    """Whether the Jacobian is formed."""
    return solver == "qr" or (solver == "auto" and params.size <= DENSE)


def linear_at(problem: Problem, params: Array) -> Linear:
    """The residuals and their Jacobian."""
    return Linear(*jacobian(residuals_of(problem), params))


def point_of(problem: Problem, params: Array, linear: Linear) -> Point:
    """The point that belongs to residuals and Jacobian."""
    dtype = jax.eval_shape(problem.fun, params).dtype
    grad = dot(linear.matrix.T, linear.residuals).astype(params.dtype)
    return Point(params, half_sum_of_squares(linear.residuals, dtype), grad)


def jacobian(residuals: Any, params: Array) -> tuple[Array, Array]:
    """The residuals [m] and their Jacobian [m, n], by columns or by rows, whichever are fewer."""
    rows = jax.eval_shape(residuals, params).shape[0]
    if params.size <= rows:
        values, push = jax.linearize(residuals, params)
        return values, jax.vmap(push, out_axes=1)(jnp.eye(params.size, dtype=params.dtype))
    values, pull = jax.vjp(residuals, params)
    return values, jax.vmap(pull)(jnp.eye(rows, dtype=values.dtype))[0]


def column_norms(matrix: Array) -> Array:
    """The Euclidean norms of the columns [..., n] of a matrix [..., m, n]."""
    largest = jnp.max(jnp.abs(matrix), axis=-2, initial=0.0)
    safe = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    squares = jnp.sum((matrix / safe[..., None, :]) ** 2, axis=-2)  # of large units there would be no squares
    return safe * jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)


def solve_dense(matrix: Array, residuals: Array, damping: Array, scale: Array) -> Array:
    r"""The step by a QR factorization of $J / D$ over $\sqrt\lambda$ times the identity.

    Args:
        matrix: $J$ [m, n].
        residuals: $r$ [m].
        damping: $\lambda$, positive.
        scale: $D$ [n], positive.

    Returns:
        The step [n].
    """
    columns = matrix.shape[1]
    stacked = jnp.concatenate([matrix / scale, jnp.sqrt(damping) * jnp.eye(columns, dtype=matrix.dtype)])
    target = jnp.concatenate([-residuals, jnp.zeros(columns, residuals.dtype)])
    q, r = jnp.linalg.qr(stacked)
    return jax.scipy.linalg.solve_triangular(r, dot(q.T, target)) / scale


def least_norm_damping(matrix: Array) -> Array:
    """A damping so small that it makes a step one of least norm where J is rank deficient, and changes no other.

    It is relative to columns of norm one: far above the square of their rounding, far below that of what matters.
    """
    return jnp.asarray(float(jnp.finfo(matrix.dtype).eps) ** 1.5, matrix.dtype)
