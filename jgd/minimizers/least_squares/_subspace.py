r"""The linear model of residuals in a Krylov subspace, for Jacobians that are not formed.

Golub and Kahan's process makes orthonormal $V$ [n, k], $U$ [m, k + 1] and a lower bidiagonal $B$ with

$$
J D^{-1} V = U B, \qquad U^\top r = \beta_1 e_1,
$$

from $k$ products with $J$ and as many with $J^\top$. A step $D^{-1} V y$ then has the model $\lVert \beta_1 e_1 + B y
\rVert$ and the scaled length $\lVert y \rVert$: a small dense system, to be solved as one where the Jacobian is formed.
LSQR makes its step of the same numbers. Each column is made orthogonal to all before it again, since in float32 they
would not stay so.

References:
    - Golub and Kahan, "Calculating the singular values and pseudo-inverse of a matrix",
      https://doi.org/10.1137/0702016, 1965.
    - Paige and Saunders, "LSQR: an algorithm for sparse linear equations and sparse least squares",
      https://doi.org/10.1145/355984.355989, 1982: the residual of the normal equations.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, ArrayLike
from jgd.minimizers.least_squares._damped_system import column_norms, least_norm_damping, residuals_of, solve_by_qr
from jgd.minimizers.problem._inner_loop import inner_loop
from jgd.minimizers.problem._problem import Point, Problem, dot, norm

#: The dimensions of a subspace at most.
MAX_DIMENSIONS = 50
#: Random probes of the columns' norms; up to so many columns are measured one by one.
PROBES = 8


class Subspace(NamedTuple):
    """The linear model in a subspace of k dimensions; the columns of those that were not needed are zeros.

    Attributes:
        basis: $V$, transposed [k, n].
        images: $U$, transposed [k + 1, m].
        matrix: $B$ [k + 1, k].
        residuals: The residuals in the basis of $U$ [k + 1].
        products: Products with the Jacobian or its transpose, those that measure the columns among them, int32.
    """

    basis: Array
    images: Array
    matrix: Array
    residuals: Array
    products: Array

    def step(self, coordinates: Array, scale: Array) -> Array:
        """The step [n] of coordinates [k] in the basis."""
        return dot(coordinates, self.basis) / scale

    def image(self, vector: Array) -> Array:
        """The coordinates [k + 1] in the basis of $U$ of a vector like the residuals [m]."""
        return dot(self.images, vector.astype(self.images.dtype))


class MatrixFreeModel(NamedTuple):
    r"""The residuals of a point [m] and products with their Jacobian.

    Attributes:
        residuals: $r$ [m].
        jvp: $v \mapsto J v$, from [n] to [m].
        vjp: $w \mapsto J^\top w$, from [m] to [n].
    """

    residuals: Array
    jvp: Callable[[Array], Array]
    vjp: Callable[[Array], Array]


class _State(NamedTuple):
    r"""The process after `count` columns, and LSQR's rotations of them.

    Attributes:
        v: $V$, transposed [k + 1, n].
        u: $U$, transposed [k + 1, m].
        b: $B$ [k + 1, k].
        residual: The norm of the residual of the model.
        rotated: The diagonal entry that the next rotation acts on.
        count: Columns made.
        grad_norm: The norm of the scaled gradient of the model.
    """

    v: Array
    u: Array
    b: Array
    residual: Array
    rotated: Array
    count: Array
    grad_norm: Array


def _normalized(vector: Array) -> tuple[Array, Array]:
    size = norm(vector)
    return vector / jnp.where(size > 0, size, 1), size


def _orthogonalized(vector: Array, rows: Array) -> tuple[Array, Array]:
    """The part of a vector orthogonal to orthonormal rows, as a unit vector and its norm; 0 where it is rounding."""
    part = vector
    for _ in range(2):  # the second pass removes what rounding has left of the first
        part = part - dot(dot(rows, part), rows)
    unit, size = _normalized(part)
    above_rounding = size > 10 * jnp.finfo(vector.dtype).eps * norm(vector)
    return jnp.where(above_rounding, unit, 0), jnp.where(above_rounding, size, 0)


def matrix_free_model_at(problem: Problem, params: Array) -> MatrixFreeModel:
    """The residuals and products with their Jacobian."""
    residuals, jvp = jax.linearize(residuals_of(problem), params)
    vjp = jax.linear_transpose(jvp, params)
    return MatrixFreeModel(
        residuals,
        lambda vector: jvp(vector.astype(params.dtype)),
        lambda vector: vjp(vector)[0].astype(residuals.dtype),
    )


def estimate_column_norms(linear: MatrixFreeModel, columns: int) -> Array:
    r"""The norms of the columns of the Jacobian [n]: exact for few columns, else estimated from random signs $w$.

    $\mathbb{E}\,(J^\top w)_j^2 = \lVert J_j \rVert^2$. The signs are the same at each step: an estimate changes only
    with the Jacobian.
    """
    dtype = linear.residuals.dtype
    if columns <= PROBES:
        return column_norms(jax.vmap(linear.jvp, out_axes=1)(jnp.eye(columns, dtype=dtype)))
    signs = jax.random.rademacher(jax.random.key(0), (PROBES, linear.residuals.size), dtype)
    return column_norms(jax.vmap(linear.vjp)(signs)) / PROBES**0.5


def krylov_subspace(linear: MatrixFreeModel, scale: Array, tol: Array, running: ArrayLike, unroll: bool) -> Subspace:
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
    residuals, jvp, vjp = linear
    dtype, dimensions = residuals.dtype, min(MAX_DIMENSIONS, scale.size, residuals.size)
    least = 0 if scale.size <= MAX_DIMENSIONS else tol
    u1, beta1 = _normalized(residuals)
    v1, alpha1 = _normalized(vjp(u1) / scale)
    start = _State(
        v=jnp.zeros((dimensions + 1, scale.size), dtype).at[0].set(v1),
        u=jnp.zeros((dimensions + 1, residuals.size), dtype).at[0].set(u1),
        b=jnp.zeros((dimensions + 1, dimensions), dtype),
        residual=beta1,
        rotated=alpha1,
        count=jnp.zeros((), jnp.int32),
        grad_norm=alpha1 * beta1,
    )

    def cond(s: _State) -> Array:
        return jnp.asarray(running) & (s.grad_norm > least * alpha1 * beta1) & (s.count < dimensions)

    def body(s: _State) -> _State:
        image = jvp(s.v[s.count] / scale)
        column = dot(s.u, image)
        u, beta = _orthogonalized(image, s.u)
        v, alpha = _orthogonalized(vjp(u) / scale, s.v)
        diagonal = norm(jnp.stack([s.rotated, beta]))
        sine, cosine = jnp.stack([beta, s.rotated]) / jnp.where(diagonal > 0, diagonal, 1)
        residual = s.residual * sine
        return _State(
            v=s.v.at[s.count + 1].set(v),
            u=s.u.at[s.count + 1].set(u),
            b=s.b.at[:, s.count].set(column.at[s.count + 1].set(beta)),
            residual=residual,
            rotated=-cosine * alpha,
            count=s.count + 1,
            grad_norm=jnp.abs(residual * alpha * cosine),
        )

    s = inner_loop(cond, body, start, dimensions, unroll)
    basis = jnp.where(jnp.arange(dimensions)[:, None] < s.count, s.v[:-1], 0)
    products = 2 * s.count + 1 + min(PROBES, scale.size)
    return Subspace(basis, s.u, s.b, jnp.zeros(dimensions + 1, dtype).at[0].set(beta1), products)


def gauss_newton_step(problem: Problem, point: Point) -> tuple[Array, Array]:
    """The step [n] that minimizes the linear model in a Krylov subspace, and products made."""
    linear = matrix_free_model_at(problem, point.params)
    norms = estimate_column_norms(linear, point.params.size)
    scale = jnp.where(norms > 0, norms, 1)
    gradient, residual = norm(point.grad / scale), norm(linear.residuals)
    tol = jnp.minimum(0.1, jnp.sqrt(gradient / jnp.where(residual > 0, residual, 1)))
    space = krylov_subspace(linear, scale, tol, problem.running, problem.unrolled)
    ones = jnp.ones(space.matrix.shape[1], space.matrix.dtype)
    coordinates = solve_by_qr(space.matrix, space.residuals, least_norm_damping(space.matrix), ones)
    return space.step(coordinates, scale), space.products
