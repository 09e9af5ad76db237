r"""The system of a Gauss-Newton step, $(J^\top J + \lambda D^2)\, p = -J^\top r$, solved without forming $J^\top J$."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.problem._problem import Point, Problem, dot
from jgd.minimizers.problem._value import half_sum_of_squares

#: With "auto", systems of up to so many params are solved by a QR factorization.
DENSE = 1000

Solver = Literal["auto", "qr", "cg"]


class LinearModel(NamedTuple):
    """The residuals of a point [m] and their Jacobian [m, n]."""

    residuals: Array
    jacobian: Array


def residuals_of(problem: Problem) -> Callable[[Array], Array]:
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


def linear_model_at(problem: Problem, params: Array) -> LinearModel:
    """The residuals and their Jacobian, by columns or by rows, whichever are fewer."""
    residuals = residuals_of(problem)
    rows = jax.eval_shape(residuals, params).shape[0]
    if params.size <= rows:
        values, jvp = jax.linearize(residuals, params)
        return LinearModel(values, jax.vmap(jvp, out_axes=1)(jnp.eye(params.size, dtype=params.dtype)))
    values, vjp = jax.vjp(residuals, params)
    return LinearModel(values, jax.vmap(vjp)(jnp.eye(rows, dtype=values.dtype))[0])


def point_of(problem: Problem, params: Array, linear: LinearModel) -> Point:
    """The point with these residuals and this Jacobian."""
    dtype = jax.eval_shape(problem.fun, params).dtype
    grad = dot(linear.jacobian.T, linear.residuals).astype(params.dtype)
    return Point(params, half_sum_of_squares(linear.residuals, dtype), grad)


def column_norms(matrix: Array) -> Array:
    """The Euclidean norms of the columns [..., n] of a matrix [..., m, n]."""
    largest = jnp.max(jnp.abs(matrix), axis=-2, initial=0.0)
    safe = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    squares = jnp.sum((matrix / safe[..., None, :]) ** 2, axis=-2)  # scaled, so that no square overflows
    return safe * jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)


def solve_by_qr(jacobian: Array, residuals: Array, damping: Array, scale: Array) -> Array:
    r"""The step by a QR factorization of $J / D$ over $\sqrt\lambda$ times the identity.

    Args:
        jacobian: $J$ [m, n].
        residuals: $r$ [m].
        damping: $\lambda$, positive; or one for each param [n].
        scale: $D$ [n], positive.

    Returns:
        The step [n].
    """
    columns = jacobian.shape[1]
    stacked = jnp.concatenate([jacobian / scale, jnp.sqrt(damping) * jnp.eye(columns, dtype=jacobian.dtype)])
    target = jnp.concatenate([-residuals, jnp.zeros(columns, residuals.dtype)])
    q, r = jnp.linalg.qr(stacked)
    return jax.scipy.linalg.solve_triangular(r, dot(q.T, target)) / scale


def least_norm_damping(jacobian: Array) -> Array:
    """A damping so small that it makes a step one of least norm where J is rank deficient, and changes no other.

    It is relative to columns of norm one: far above the square of their rounding, far below that of what matters.
    """
    return jnp.asarray(float(jnp.finfo(jacobian.dtype).eps) ** 1.5, jacobian.dtype)
