r"""The quasi-Newton matrix of L-BFGS in compact form: its products, and systems with some of its rows and columns.

With $\theta = 1 / \gamma$ the first Hessian and pairs scaled so that $\langle s_i, y_i \rangle = 1$,

$$
B / \theta = I + \sum_i y_i y_i^\top - \sum_i q_i q_i^\top
           = I - W M W^\top, \qquad W = [Y, S], \quad
M^{-1} = \begin{pmatrix} -I & L^\top \\ L & S^\top S \end{pmatrix}
$$

where $q_i$ is $B_i s_i$ over the root of $s_i^\top B_i s_i$, and $L$ the part of $S^\top Y$ below its diagonal. The
first form gives products. The second one gives the inverse of the rows and columns $F$ of a free set, from one system
of twice the memory's size,

$$
B_{FF}^{-1} = \gamma \left( I + W_F (M^{-1} - W_F^\top W_F)^{-1} W_F^\top \right)
$$

whose blocks are sums over $F$ or over the other rows, so that nothing cancels.

References:
    - Byrd, Nocedal and Schnabel, "Representations of quasi-Newton matrices and their use in limited memory methods",
      https://doi.org/10.1007/BF01582063, 1994.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.methods._lbfgs import LBFGSMemory
from jgd.minimizers.problem._problem import dot


class CompactForm(NamedTuple):
    r"""The matrix $B / \theta$.

    Attributes:
        y: The scaled $y_i$ [memory, n]; zero where there is no pair.
        s: The scaled $s_i$ [memory, n].
        q: The $q_i$ [memory, n].
    """

    y: Array
    s: Array
    q: Array


def matmul(a: Array, b: Array) -> Array:
    """The matrix product, in full precision on every device."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def compact_form(memory: LBFGSMemory) -> CompactForm:
    """The compact form of a memory."""
    known = memory.rho > 0
    roots = jnp.where(known, jnp.sqrt(jnp.where(known, memory.rho, 1)), 0)[:, None]
    root_gamma = jnp.sqrt(memory.gamma)
    ys, ss = memory.y * roots * root_gamma, memory.s * roots / root_gamma
    eps = jnp.finfo(ss.dtype).eps

    def body(i: Array, qs: Array) -> Array:
        s = ss[i]
        earlier = jnp.arange(len(ss)) < i
        # the rows of q from i on are still zero
        image = s + matmul(jnp.where(earlier, matmul(ys, s), 0), ys)
        image = image - matmul(matmul(qs, s), qs)
        curvature, least = dot(s, image), eps * dot(s, s)
        usable = curvature > least
        return qs.at[i].set(jnp.where(usable, image / jnp.sqrt(jnp.where(usable, curvature, 1)), 0))

    return CompactForm(ys, ss, jax.lax.fori_loop(0, len(ss), body, jnp.zeros_like(ss)))


def times(matrix: CompactForm, vector: Array) -> Array:
    """The matrix times a vector [n]."""
    plus = matmul(matmul(matrix.y, vector), matrix.y)
    return vector + plus - matmul(matmul(matrix.q, vector), matrix.q)


def solve(matrix: CompactForm, free: Array, vector: Array) -> Array:
    """The solution of a system with the rows and columns of a free set.

    Args:
        matrix: The matrix.
        free: Whether each entry is in the set [n].
        vector: The right-hand side [n], zero outside of the set.

    Returns:
        The solution [n], zero outside of the set.
    """
    mask = free.astype(vector.dtype)
    y, s, s_fixed = matrix.y * mask, matrix.s * mask, matrix.s * (1 - mask)
    row = jnp.arange(len(s))
    below = row[:, None] > row
    cross = jnp.where(below, matmul(s_fixed, matrix.y.T), -matmul(s, y.T))
    no_pair = jnp.diag(jnp.where(jnp.any(matrix.s != 0, axis=1), 0, 1).astype(vector.dtype))
    top = jnp.concatenate([-jnp.eye(len(s), dtype=vector.dtype) - matmul(y, y.T), cross.T], axis=1)
    bottom = jnp.concatenate([cross, matmul(s_fixed, s_fixed.T) + no_pair], axis=1)
    rows = jnp.concatenate([y, s])
    factors = jax.scipy.linalg.lu_factor(jnp.concatenate([top, bottom]))

    def inverse(vector: Array) -> Array:
        return vector + matmul(jax.scipy.linalg.lu_solve(factors, matmul(rows, vector)), rows)

    # the pairs may be nearly dependent, those of more than n always are: one round of refinement
    solution = inverse(vector)
    return solution + inverse(jnp.where(free, vector - times(matrix, solution), 0))
