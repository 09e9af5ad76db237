r"""Geodesic acceleration: where a step $p$ of Levenberg-Marquardt would lead if it followed the bend of the residuals.

$$
a = -\tfrac12 \bigl( J^\top J + \lambda D^2 + S \bigr)^{-1} J^\top\, r''(p, p)
$$

$r''(p, p)$ is the second derivative of the residuals along the step. The params move by $p + a$; where $2 \lVert D a
\rVert$ is above $\tfrac34 \lVert D p \rVert$ the expansion does not hold so far, and the step is rejected: the next
is shorter. In curved valleys that saves most steps.

References:
    - Transtrum and Sethna, "Improvements to the Levenberg-Marquardt algorithm for nonlinear least-squares
      minimization", https://arxiv.org/abs/1201.5885, 2012.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.least_squares._damped_system import column_norms, least_norm_damping
from jgd.minimizers.problem._problem import dot, norm

#: The largest length of twice the acceleration, relative to that of the step.
LONGEST = 0.75


def second_derivative(residuals: Callable[[Array], Array], params: Array, step: Array) -> Array:
    """The second derivative of the residuals along a step [m]."""

    def along(params: Array) -> Array:
        return jax.jvp(residuals, (params,), (step,))[1]

    return jax.jvp(along, (params,), (step,))[1]


def acceleration(matrix: Array, weights: Array, bend: Array, step: Array) -> tuple[Array, Array]:
    r"""The acceleration of a step, in the same scaled params, and whether it may be made.

    Args:
        matrix: $J D^{-1}$ [m, n].
        weights: The diagonal of $\lambda + D^{-2} S$ [n].
        bend: $r''(p, p)$ [m].
        step: $D p$ [n].

    Returns:
        $D a$ [n], 0 where it is too long; and False there.
    """
    norms = column_norms(matrix)
    least = least_norm_damping(matrix) * jnp.where(norms > 0, norms, 1) ** 2
    q, r = jnp.linalg.qr(jnp.concatenate([matrix, jnp.diag(jnp.sqrt(weights + least))]))
    target = jnp.concatenate([-0.5 * bend.astype(matrix.dtype), jnp.zeros_like(norms)])
    found = jax.scipy.linalg.solve_triangular(r, dot(q.T, target))
    short = 2 * norm(found) <= LONGEST * norm(step)  # False for NaN
    return jnp.where(short, found, 0), short
