r"""The quasi-Newton matrix of a memory of pairs in compact form: products, and systems with a part of its rows.

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
from jgd.minimizers.methods._lbfgs import LBFGSState
from jgd.minimizers.problem._problem import dot


class Compact(NamedTuple):
    """A quasi-Newton matrix over its first scale.

    Attributes:
        changes: The scaled $y_i$ [memory, n]; zero where there is no pair.
        moves: The scaled $s_i$ [memory, n].
        images: The $q_i$ [memory, n].
    """

    changes: Array
    moves: Array
    images: Array


def product(a: Array, b: Array) -> Array:
    """The matrix product, in full precision on every device."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def compact(state: LBFGSState) -> Compact:
    """The compact form of a memory, its oldest pair first."""
    known = state.weights > 0
    roots = jnp.where(known, jnp.sqrt(jnp.where(known, state.weights, 1)), 0)[:, None]
    scale = jnp.sqrt(state.scale)
    changes, moves = state.changes * roots * scale, state.moves * roots / scale
    eps = jnp.finfo(moves.dtype).eps

    def turn(i: Array, images: Array) -> Array:
        move = moves[i]
        earlier = jnp.arange(len(moves)) < i
        # rows of images that are not known yet are zero
        image = move + product(jnp.where(earlier, product(changes, move), 0), changes)
        image = image - product(product(images, move), images)
        bend, least = dot(move, image), eps * dot(move, move)
        usable = bend > least
        return images.at[i].set(jnp.where(usable, image / jnp.sqrt(jnp.where(usable, bend, 1)), 0))

    return Compact(changes, moves, jax.lax.fori_loop(0, len(moves), turn, jnp.zeros_like(moves)))


def times(matrix: Compact, vector: Array) -> Array:
    """The matrix over its first scale times a vector [n]."""
    up = product(product(matrix.changes, vector), matrix.changes)
    return vector + up - product(product(matrix.images, vector), matrix.images)


def solve(matrix: Compact, free: Array, vector: Array) -> Array:
    """The solution of a system with the matrix over its first scale, its rows and columns those of a free set.

    Args:
        matrix: The matrix.
        free: Whether each entry is in the set [n].
        vector: The right side [n], zero outside of the set.

    Returns:
        The solution [n], zero outside of the set.
    """
    kept = free.astype(vector.dtype)
    changes, moves = matrix.changes * kept, matrix.moves * kept
    held = matrix.moves * (1 - kept)
    row = jnp.arange(len(moves))
    below = row[:, None] > row
    cross = jnp.where(below, product(held, matrix.changes.T), -product(moves, changes.T))
    empty = jnp.diag(jnp.where(jnp.any(matrix.moves != 0, axis=1), 0, 1).astype(vector.dtype))
    top = jnp.concatenate([-jnp.eye(len(moves), dtype=vector.dtype) - product(changes, changes.T), cross.T], axis=1)
    bottom = jnp.concatenate([cross, product(held, held.T) + empty], axis=1)
    rows = jnp.concatenate([changes, moves])
    factors = jax.scipy.linalg.lu_factor(jnp.concatenate([top, bottom]))

    def inverse(vector: Array) -> Array:
        return vector + product(jax.scipy.linalg.lu_solve(factors, product(rows, vector)), rows)

    # the pairs may be nearly dependent, those of more than n always are: one round of refinement
    found = inverse(vector)
    return found + inverse(jnp.where(free, vector - times(matrix, found), 0))
