r"""The linear model of residuals in a Krylov subspace, for Jacobians that are not formed.

Golub and Kahan's process makes orthonormal $V$ [n, k], $U$ [m, k + 1] and a lower bidiagonal $B$ with

$$
J D^{-1} V = U B, \qquad U^\top r = \beta_1 e_1,
$$

from $k$ products with $J$ and as many with $J^\top$. A step $D^{-1} V y$ then has the model $\lVert \beta_1 e_1 + B y
\rVert$ and the scaled length $\lVert y \rVert$: a small dense system, to be solved as one where the Jacobian is formed.
LSQR makes its step of the same numbers. The columns are made orthogonal to all before them, since in float32 they would
not stay so.

References:
    - Golub and Kahan, "Calculating the singular values and pseudo-inverse of a matrix",
      https://doi.org/10.1137/0702016, 1965.
    - Paige and Saunders, "LSQR: an algorithm for sparse linear equations and sparse least squares",
      https://doi.org/10.1145/355984.355989, 1982: the residual of the normal equations.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.least_squares._damped_system import column_norms, least_norm_damping, residuals_of, solve_dense
from jgd.minimizers.problem._inner_loop import inner_loop
from jgd.minimizers.problem._problem import Point, Problem, dot, norm

#: The most dimensions of a subspace.
LARGEST = 50
#: Random probes of the columns' norms; up to so many columns are measured one by one.
PROBES = 8


class Subspace(NamedTuple):
    """The linear model in a subspace of k dimensions; those that were not needed are columns of zeros.

    Attributes:
        basis: $V$, transposed [k, n].
        matrix: $B$ [k + 1, k].
        residuals: The residuals in the basis of $U$ [k + 1].
        products: Products with the Jacobian or its transpose, those that measure the columns among them, int32.
    """

    basis: Array
    matrix: Array
    residuals: Array
    products: Array

    def step(self, coordinates: Array, scale: Array) -> Array:
        """The step [n] of coordinates [k] in the basis."""
        return dot(coordinates, self.basis) / scale


class LinearMap(NamedTuple):
    r"""The residuals of a point [m] and products with their Jacobian.

    Attributes:
        residuals: $r$ [m].
        push: $v \mapsto J v$, from [n] to [m].
        pull: $w \mapsto J^\top w$, from [m] to [n].
    """

    residuals: Array
    push: Callable[[Array], Array]
    pull: Callable[[Array], Array]


class _State(NamedTuple):
    """The process after `count` columns; of LSQR, what its next rotation acts on, and the gradient left."""

    basis: Array
    images: Array
    matrix: Array
    residual: Array
    rotated: Array
    count: Array
    grad_norm: Array


def _normal(vector: Array) -> tuple[Array, Array]:
    size = norm(vector)
    return vector / jnp.where(size > 0, size, 1), size


def _next(vector: Array, basis: Array) -> tuple[Array, Array]:
    """The part of a vector across the rows of a basis, as a unit vector and a size; 0 where it is rounding."""
    across = vector
    for _ in range(2):  # once is not enough, twice is
        across = across - dot(dot(basis, across), basis)
    unit, size = _normal(across)
    counts = size > 10 * jnp.finfo(vector.dtype).eps * norm(vector)
    return jnp.where(counts, unit, 0), jnp.where(counts, size, 0)


def linear_map_at(problem: Problem, params: Array) -> LinearMap:
    """The residuals and products with their Jacobian."""
    residuals, push = jax.linearize(residuals_of(problem), params)
    pull = jax.linear_transpose(push, params)
    return LinearMap(
        residuals,
        lambda vector: push(vector.astype(params.dtype)),
        lambda vector: pull(vector)[0].astype(residuals.dtype),
    )


def column_sizes(linear: LinearMap, columns: int) -> Array:
    r"""The norms of the columns of the Jacobian [n]: exact for few columns, else estimated from random signs $w$.

    $\mathbb{E}\,(J^\top w)_j^2 = \lVert J_j \rVert^2$. The signs are the same at each step: an estimate changes only
    with the Jacobian.
    """
    dtype = linear.residuals.dtype
    if columns <= PROBES:
        return column_norms(jax.vmap(linear.push, out_axes=1)(jnp.eye(columns, dtype=dtype)))
    signs = jax.random.rademacher(jax.random.key(0), (PROBES, linear.residuals.size), dtype)
    return column_norms(jax.vmap(linear.pull)(signs)) / PROBES**0.5


def krylov_subspace(linear: LinearMap, scale: Array, tol: Array, running: Any, unroll: bool) -> Subspace:
    r"""The Krylov subspace of $J D^{-1}$ and the residuals.

    Args:
        linear: $r$ and $J$.
        scale: $D$ [n], positive.
        tol: The norm of the scaled gradient of the model, relative to that at its start, at which the subspace is large
            enough. Where it may hold all params it holds them: that costs about as much as the Jacobian, and on badly
            scaled problems it is the directions of small gradients that matter.
        running: False to do little.
        unroll: Whether to loop so that reverse mode can pass.
    """
    residuals, push, pull = linear
    tol = jnp.where(scale.size <= LARGEST, 0, tol)
    dtype, most = residuals.dtype, min(LARGEST, scale.size, residuals.size)
    first, size = _normal(residuals)
    direction, slope = _normal(pull(first) / scale)

    def more(s: _State) -> _State:
        image = push(s.basis[s.count] / scale)
        column = dot(s.images, image)
        image, below = _next(image, s.images)
        back, ahead = _next(pull(image) / scale, s.basis)
        diagonal = norm(jnp.stack([s.rotated, below]))
        sine, cosine = jnp.stack([below, s.rotated]) / jnp.where(diagonal > 0, diagonal, 1)
        residual = s.residual * sine
        return _State(
            s.basis.at[s.count + 1].set(back),
            s.images.at[s.count + 1].set(image),
            s.matrix.at[:, s.count].set(column.at[s.count + 1].set(below)),
            residual,
            -cosine * ahead,
            s.count + 1,
            jnp.abs(residual * ahead * cosine),
        )

    def unfinished(s: _State) -> Array:
        return jnp.asarray(running) & (s.grad_norm > tol * slope * size) & (s.count < most)

    start = _State(
        jnp.zeros((most + 1, scale.size), dtype).at[0].set(direction),
        jnp.zeros((most + 1, residuals.size), dtype).at[0].set(first),
        jnp.zeros((most + 1, most), dtype),
        size,
        slope,
        jnp.zeros((), jnp.int32),
        slope * size,
    )
    s = inner_loop(unfinished, more, start, most, unroll)
    basis = jnp.where(jnp.arange(most)[:, None] < s.count, s.basis[:-1], 0)
    return Subspace(
        basis, s.matrix, jnp.zeros(most + 1, dtype).at[0].set(size), 2 * s.count + 1 + min(PROBES, scale.size)
    )


def newton_step(problem: Problem, point: Point) -> tuple[Array, Array]:
    """The step [n] that minimizes the linear model in a Krylov subspace, and products made."""
    linear = linear_map_at(problem, point.params)
    norms = column_sizes(linear, point.params.size)
    units = jnp.where(norms > 0, norms, 1)
    gradient = norm(point.grad / units)
    residual = norm(linear.residuals)
    tol = jnp.minimum(0.1, jnp.sqrt(gradient / jnp.where(residual > 0, residual, 1)))
    space = krylov_subspace(linear, units, tol, problem.running, problem.unrolled)
    ones = jnp.ones(space.matrix.shape[1], space.matrix.dtype)
    return space.step(
        solve_dense(space.matrix, space.residuals, least_norm_damping(space.matrix), ones), units
    ), space.products
