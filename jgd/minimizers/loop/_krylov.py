r"""Linear systems $A v = b$, singular ones too, from products with $A$: for implicit derivatives.

Conjugate gradients where $A$ is symmetric, else GMRES: it looks for $v$ in the space of $b, A b, A^2 b, \ldots$, as
$v = V y$ with orthonormal $V$ and the $y$ that makes the residual least. Where the space closes before the system is
solved, or $A$ maps a part of it to zero, the triangular system of the textbook has no solution; here $y$ is the one of
least norm from a singular value decomposition. The matrices of projected and proximal methods, $1 - P (1 - H)$ with
symmetric $P$ and $H$, map no vector of their range to zero, so that a solution is found wherever there is one.

Where there is none, the derivative does not exist: the result is NaN in all entries, since a program that runs on a
device cannot raise. `jax.config.update("jax_debug_nans", True)` and `checkify.nan_checks` find it.

References:
    - Saad and Schultz, "GMRES: a generalized minimal residual algorithm for solving nonsymmetric linear systems",
      https://doi.org/10.1137/0907058, 1986.
    - Brown and Walker, "GMRES on (nearly) singular systems", https://doi.org/10.1137/S0895479894262339, 1997.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.problem._problem import dot, norm

#: From a vector [n] to the matrix times it.
Matvec = Callable[[Array], Array]

#: Products in a cycle of GMRES at most.
CYCLE = 100


def solve_linear(matvec: Matvec, rhs: Array, symmetric: bool) -> Array:
    """The vector $v$ with $A v$ equal to `rhs` [n]; NaN where there is none."""
    if symmetric:
        return jax.lax.custom_linear_solve(matvec, rhs, conjugate_gradients, symmetric=True)
    return jax.lax.custom_linear_solve(matvec, rhs, gmres, transpose_solve=gmres)


def no_solution(solution: Array, residual: Array, rhs: Array) -> Array:
    """The solution, or NaN where the residual is a good part of the right-hand side."""
    unsolved = norm(residual) > float(jnp.finfo(rhs.dtype).eps) ** (1 / 6) * norm(rhs)
    return jnp.where(unsolved, jnp.nan, solution)


class _Cycle(NamedTuple):
    """The best solution so far, its residual and the norm of that, now and a cycle before."""

    solution: Array
    residual: Array
    size: Array
    last_size: Array
    count: Array


class _Space(NamedTuple):
    """The orthonormal rows so far, and the matrix among them; `closed` where the next row would be zero."""

    basis: Array
    matrix: Array
    count: Array
    closed: Array


def gmres(matvec: Matvec, rhs: Array) -> Array:
    """The solution of a system that need not be symmetric nor regular."""
    eps, length = float(jnp.finfo(rhs.dtype).eps), min(rhs.size, CYCLE)
    goal = eps**0.8 * norm(rhs)

    def cond(s: _Cycle) -> Array:
        return (s.size > goal) & (s.size < 0.9 * s.last_size) & (s.count < max(2, rhs.size))

    def cycle(s: _Cycle) -> _Cycle:
        space = _krylov_space(matvec, s.residual / s.size, length)
        target = jnp.zeros(length + 1, rhs.dtype).at[0].set(s.size)
        solution = s.solution + dot(space.basis[:length].T, jnp.linalg.lstsq(space.matrix, target)[0])
        residual = rhs - matvec(solution)
        size = norm(residual)
        better = size < s.size
        return _Cycle(
            jnp.where(better, solution, s.solution),
            jnp.where(better, residual, s.residual),
            jnp.where(better, size, s.size),
            s.size,
            s.count + 1,
        )

    infinity = jnp.full((), jnp.inf, rhs.dtype)
    start = _Cycle(jnp.zeros_like(rhs), rhs, norm(rhs), infinity, jnp.zeros((), jnp.int32))
    end = jax.lax.while_loop(cond, cycle, start)
    return no_solution(end.solution, end.residual, rhs)


def _krylov_space(matvec: Matvec, first: Array, length: int) -> _Space:
    """Orthonormal rows [length + 1, n], and what the matrix is among them; zeros once the space is closed."""
    eps = float(jnp.finfo(first.dtype).eps)
    rows = jnp.zeros((length + 1, first.size), first.dtype).at[0].set(first)
    start = _Space(rows, jnp.zeros((length + 1, length), first.dtype), jnp.zeros((), jnp.int32), jnp.array(False))

    def body(s: _Space) -> _Space:
        applied = matvec(s.basis[s.count])
        along, rest = jnp.zeros(length + 1, first.dtype), applied
        for _ in range(2):  # the second pass removes what rounding has left of the first
            part = dot(s.basis, rest)
            along, rest = along + part, rest - dot(s.basis.T, part)
        size = norm(rest)
        closed = ~(size > 10 * eps * norm(applied))
        column = along.at[s.count + 1].set(jnp.where(closed, 0, size))
        row = jnp.where(closed, 0, rest / jnp.where(closed, 1, size))
        return _Space(s.basis.at[s.count + 1].set(row), s.matrix.at[:, s.count].set(column), s.count + 1, closed)

    return jax.lax.while_loop(lambda s: ~s.closed & (s.count < length), body, start)


def conjugate_gradients(matvec: Matvec, rhs: Array) -> Array:
    """The solution of a symmetric system, from zero, to a relative residual of a few epsilons."""
    goal = (float(jnp.finfo(rhs.dtype).eps) ** 0.8) ** 2 * dot(rhs, rhs)
    max_iterations = max(100, 10 * rhs.size)

    def cond(state: tuple[Array, ...]) -> Array:
        return (state[3] > goal) & (state[4] < max_iterations)

    def body(state: tuple[Array, ...]) -> tuple[Array, ...]:
        solution, residual, direction, square, count = state
        applied = matvec(direction)
        curvature = dot(direction, applied)
        alpha = square / jnp.where(curvature == 0, jnp.inf, curvature)
        residual = residual - alpha * applied
        after = dot(residual, residual)
        return solution + alpha * direction, residual, residual + after / square * direction, after, count + 1

    start = (jnp.zeros_like(rhs), rhs, rhs, dot(rhs, rhs), jnp.zeros((), jnp.int32))
    solution = jax.lax.while_loop(cond, body, start)[0]
    return no_solution(solution, rhs - matvec(solution), rhs)
