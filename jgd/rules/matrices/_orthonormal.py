r"""The Q of a QR decomposition, out of matrix products.

$$
X = \begin{pmatrix} X_1 & X_2 \end{pmatrix}, \qquad Q_1 = \operatorname{q}(X_1), \qquad
Q_2 = \operatorname{q}(X_2 - Q_1 Q_1^\top X_2), \qquad
\operatorname{q}(W) = W R^{-1} \ \text{ with } \ R^\top R = W^\top W + \delta \quad \text{for narrow } W
$$

One sweep of this Gram-Schmidt loses digits where columns are nearly dependent; further sweeps over its result restore
them, as many as it takes. Columns that were nearly orthogonal need one. Where the shift $\delta$ does not outweigh the
roundings of $W^\top W$, the sweep is made again with a larger one.

Why not `jnp.linalg.qr`: LAPACK's threads wait for each other thousands of times in one decomposition, which takes a
hundred times as long where the cores have other work too; and on accelerators a stack of matrices is decomposed one by
one. Here all but the Cholesky factors of narrow blocks are products, of a stack as of one matrix.

References:
    - Barlow and Smoktunowicz, "Reorthogonalized block classical Gram-Schmidt", https://arxiv.org/abs/1108.4209, 2011.
    - Fukaya et al., "Shifted Cholesky QR for computing the QR factorization of ill-conditioned matrices",
      https://arxiv.org/abs/1809.11085, 2018.
"""

import functools
import math

import jax
import jax.numpy as jnp

from jgd.core import Array, DTypeLike, when
from jgd.rules.matrices._triangular import inverse_of_upper, precise_matmul

_WIDEST = 64  # columns; LAPACK makes the Cholesky factor of a matrix of twice that size in one thread
_SWEEPS, _GROWTH = 8, 64  # at most; and of a shift that was too small
_ANGLES = (1.0, 1.7, 2.3, 2.9)  # no multiples of each other


def orthonormal_to_within(columns: int, dtype: DTypeLike) -> float:
    """How far the product of that Q and its transpose may be from the identity."""
    return 32 * math.sqrt(columns) * float(jnp.finfo(dtype).eps)


_Carry = tuple[Array, Array, Array, Array]  # the matrix, how far it is from orthonormal, the shift, sweeps so far


@jax.custom_jvp
def orthonormal(x: Array) -> Array:
    """The Q of the QR decomposition of a matrix with independent columns, up to the columns' signs.

    Columns that depend on others to within rounding become some unit vectors, nearly orthogonal to the others.

    Args:
        x: Shape `[rows, columns]`, at least as many rows.

    Returns:
        Shape `[rows, columns]`.

    Examples:
        >>> import jax.numpy as jnp
        >>> print(orthonormal(jnp.array([[0.0, 2.0], [3.0, 1.0]])).round(2) + 0)
        [[0. 1.]
         [1. 0.]]
    """
    columns = x.shape[1]
    if x.size == 0:
        return x
    blocks = 1
    while columns > blocks * _WIDEST:
        blocks *= 2
    width = math.ceil(columns / blocks)
    x = jnp.pad(x, ((0, 0), (0, blocks * width - columns)))  # columns of zeros, which stay zeros
    tolerance = orthonormal_to_within(columns, x.dtype)
    # What the product of Q and its transpose does to a few vectors tells whether it is the identity.
    index = jnp.arange(blocks * width, dtype=x.dtype)[:, None]
    probes = jnp.where(index < columns, jnp.cos((index + 1) * jnp.array(_ANGLES, x.dtype)), 0)

    def is_unfinished(carry: _Carry) -> Array:
        return (carry[1] > tolerance) & (carry[3] < _SWEEPS)

    def sweep_once(carry: _Carry) -> _Carry:
        x, _, shift, sweeps = carry
        swept = _sweep(x, width, shift)
        defects = precise_matmul(swept.T, precise_matmul(swept, probes)) - probes
        # Equal columns have products with equal roundings, which add up: then a Cholesky factor is not a number.
        failed = ~jnp.all(jnp.isfinite(defects))
        defect = jnp.where(failed, jnp.inf, jnp.max(jnp.abs(defects)))  # XLA's maximum may pass a NaN over
        return jnp.where(failed, x, swept), defect, jnp.where(failed, _GROWTH * shift, first_shift), sweeps + 1

    first_shift = jnp.array(2 * max(width, 8) * jnp.finfo(x.dtype).eps, x.dtype)
    start = (x, jnp.full((), jnp.inf, x.dtype), first_shift, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(is_unfinished, sweep_once, start)[0][:, :columns]


@orthonormal.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    q = orthonormal(x)
    dx_r_inv = precise_matmul(dx, inverse_of_upper(precise_matmul(q.T, x)))
    rotation = precise_matmul(q.T, dx_r_inv)
    below = jnp.tril(rotation, -1)
    return q, dx_r_inv + precise_matmul(q, below - below.T - rotation)


def completed_basis(x: Array) -> Array:
    """An orthonormal basis of the columns, with other directions in the place of columns that depend on others."""
    largest = jnp.max(jnp.abs(x), initial=0)
    shift = 8 * jnp.finfo(x.dtype).eps
    return orthonormal(x / jnp.where(largest > 0, largest, 1) + shift * jnp.eye(*x.shape, dtype=x.dtype))


def _sweep(x: Array, width: int, shift: Array) -> Array:
    """Gram-Schmidt, by blocks of that width, each orthonormalized twice.

    Whenever the first half of a pair of equal ranges is finished, the second half is projected off it: the recursion
    of the formula, as a loop, whose body is compiled once.
    """
    count = x.shape[1] // width

    def projected_off(size: int, x: Array, end: Array) -> Array:
        left = jax.lax.dynamic_slice_in_dim(x, end - size, size, axis=1)
        right = jax.lax.dynamic_slice_in_dim(x, end, size, axis=1)
        return jax.lax.dynamic_update_slice_in_dim(
            x, right - precise_matmul(left, precise_matmul(left.T, right)), end, axis=1
        )

    sizes = [width << level for level in range(count.bit_length() - 1)]

    def finish(block: Array, x: Array) -> Array:
        columns = jax.lax.dynamic_slice_in_dim(x, block * width, width, axis=1)
        columns = jax.lax.fori_loop(0, 2, lambda _, columns: _narrow(columns, shift), columns)
        x = jax.lax.dynamic_update_slice_in_dim(x, columns, block * width, axis=1)
        finished_blocks = (block + 1).astype(jnp.int32)
        for level, size in enumerate(sizes):
            half_is_finished = (
                finished_blocks & (2 << level) - 1 == 1 << level
            )  # two divides the number of finished blocks so often
            x = when(half_is_finished, functools.partial(projected_off, size), x, finished_blocks * width)
        return x

    return jax.lax.fori_loop(0, count, finish, x)


def _narrow(x: Array, shift: Array) -> Array:
    """The same for few columns, by the Cholesky factor of their products, which is shifted to stay positive."""
    gram = precise_matmul(x.T, x)
    length = jnp.sqrt(jnp.diagonal(gram))
    scale = 1 / jnp.where(length > 0, length, 1)
    eye = jnp.eye(x.shape[1], dtype=x.dtype)
    # The factor of (C, I; I, large) holds the inverse factor of C below that of C: no triangle has to be solved.
    cosines = jnp.where(eye == 1, 1, gram * scale[:, None] * scale / (1 + shift))
    bordered = jnp.block([[cosines, eye], [eye, 4 / shift * eye]])
    inverse = jax.lax.linalg.cholesky(bordered, symmetrize_input=False)[x.shape[1] :, : x.shape[1]]
    return precise_matmul(x, scale[:, None] * inverse)
