r"""The inverse of a triangle, out of matrix products.

$$
\begin{pmatrix} A & B \\ 0 & C \end{pmatrix}^{-1}
= \begin{pmatrix} A^{-1} & -A^{-1} B\, C^{-1} \\ 0 & C^{-1} \end{pmatrix}
$$

from the diagonal's inverse up, blocks of twice the size each time, all blocks of one size at once.

Why not `solve_triangular`: as for QR, see `jgd.rules.matrices._orthonormal`.
"""

import jax
import jax.numpy as jnp

from jgd.core import Array

_SMALL = 64  # up to this size blocks are inverted in a loop over sizes, whose body is compiled once


def precise_matmul(a: Array, b: Array) -> Array:
    """`a @ b` in full precision: accelerators' default products are too coarse for orthogonality."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def inverse_of_upper(triangle: Array) -> Array:
    """The inverse of an upper triangle.

    Args:
        triangle: Shape `[n, n]`, no zeros on the diagonal; what is below it is not read.

    Returns:
        Shape `[n, n]`, an upper triangle.

    Examples:
        >>> import jax.numpy as jnp
        >>> print(inverse_of_upper(jnp.array([[2.0, 4.0], [0.0, 1.0]])))
        [[ 0.5 -2. ]
         [ 0.   1. ]]
    """
    n = len(triangle)
    size = 1
    while size < n:
        size *= 2
    full = jnp.eye(size, dtype=triangle.dtype).at[:n, :n].set(jnp.triu(triangle))
    small = min(size, _SMALL)
    index = jnp.arange(small)

    def doubled(level: Array, inverse: Array) -> Array:
        pair = index >> level  # which block a row or a column belongs to; the first of a pair is even
        beside = (pair[:, None] + 1 == pair) & (pair[:, None] % 2 == 0)
        return inverse - precise_matmul(precise_matmul(inverse, jnp.where(beside, diagonal, 0)), inverse)

    diagonal = _on_the_diagonal(full, small)
    start = jnp.eye(small, dtype=full.dtype) / jnp.diagonal(diagonal, axis1=1, axis2=2)[:, None, :]
    inverse = jax.lax.fori_loop(0, small.bit_length() - 1, doubled, start)
    while small < size:
        beside = _on_the_diagonal(full, 2 * small)[:, :small, small:]
        first, second = inverse[::2], inverse[1::2]
        corner = -precise_matmul(precise_matmul(first, beside), second)
        top = jnp.concatenate([first, corner], axis=2)
        bottom = jnp.concatenate([jnp.zeros_like(corner), second], axis=2)
        inverse, small = jnp.concatenate([top, bottom], axis=1), 2 * small
    return inverse[0, :n, :n]


def _on_the_diagonal(matrix: Array, size: int) -> Array:
    """The square blocks along the diagonal, shape `[count, size, size]`."""
    count = len(matrix) // size
    blocks = matrix.reshape(count, size, count, size)
    return blocks[jnp.arange(count), :, jnp.arange(count)]
