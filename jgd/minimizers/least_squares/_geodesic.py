r"""Geodesic acceleration: where a step $p$ of Levenberg-Marquardt would lead if it followed the bend of the residuals.

$$
a = -\tfrac12 \bigl( J^\top J + \lambda D^2 + S \bigr)^{-1} J^\top\, r''(p, p)
$$

$r''(p, p)$ is the second derivative of the residuals along the step. The params move by $p + a$ where that decreases
the value more than $p$, else by $p$ (the paper takes $a$ by its length alone, which leads some runs astray). In curved
valleys that saves most steps.

References:
    - Transtrum and Sethna, "Improvements to the Levenberg-Marquardt algorithm for nonlinear least-squares
      minimization", https://arxiv.org/abs/1201.5885, 2012.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.least_squares._damped_system import column_norms, least_norm_damping, solve_by_qr
from jgd.minimizers.problem._problem import Problem


def second_derivative(residuals: Callable[[Array], Array], params: Array, step: Array) -> Array:
    """The second derivative of the residuals along a step [m]."""

    def along(params: Array) -> Array:
        return jax.jvp(residuals, (params,), (step,))[1]

    return jax.jvp(along, (params,), (step,))[1]


def acceleration(matrix: Array, weights: Array, bend: Array) -> Array:
    r"""The acceleration of a step, $D a$ [n].

    Args:
        matrix: $J D^{-1}$ [m, n].
        weights: The diagonal of $\lambda + D^{-2} S$ [n].
        bend: $r''(p, p)$ [m].
    """
    norms = column_norms(matrix)
    least = least_norm_damping(matrix) * jnp.where(norms > 0, norms, 1) ** 2
    return solve_by_qr(matrix, 0.5 * bend.astype(matrix.dtype), weights + least, jnp.ones_like(norms))


def better_step(problem: Problem, params: Array, step: Array, extra: Array) -> Array:
    """A step with its acceleration or without [n], whichever decreases the value more by what rounding leaves."""
    without = problem.fun(params + step)
    return jnp.where(problem.fun(params + step + extra) < without - problem.noise(without), step + extra, step)
