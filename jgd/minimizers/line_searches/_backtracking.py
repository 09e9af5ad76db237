r"""Backtracking for steps with a divergence: a step length of at most one over the curvature relative to it.

A step of length $t$ from $y$ to $x$ minimizes $\langle g(y), x \rangle + \frac{1}{t} B(x, y)$, and a penalty where
there is one, with $B$ half the squared distance or another divergence of Bregman. It is accepted where

$$
f(x) - f(y) - \langle g(y), x - y \rangle \le \frac{1}{t} B(x, y)
$$

and else tried again with a shorter one. Near a solution rounding hides the left side; there the gradients decide:

$$
\langle g(x) - g(y), x - y \rangle \le \frac{1}{t} \left( B(x, y) + B(y, x) \right)
$$

which is the same for a quadratic function and half the squared distance.

References:
    - Beck and Teboulle, "A fast iterative shrinkage-thresholding algorithm", https://doi.org/10.1137/080716542, 2009
      (the first test).
    - Bauschke, Bolte and Teboulle, "A descent lemma beyond Lipschitz gradient continuity",
      https://doi.org/10.1287/moor.2016.0817, 2017 (with a divergence).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree
from jgd.minimizers.loop._stop import is_finite
from jgd.minimizers.problem._problem import Point, Problem, dot

#: Trial steps at most.
MAX_TRIALS = 30


class Trial(NamedTuple):
    """A trial step.

    Attributes:
        point: Params, value and gradient of the smooth function where it ends.
        divergence: $B(x, y) / t$, a scalar.
        symmetric: $(B(x, y) + B(y, x)) / t$, a scalar.
        data: What else the caller wants of it, any tree of arrays.
    """

    point: Point
    divergence: Array
    symmetric: Array
    data: PyTree = ()


class BacktrackingResult(NamedTuple):
    """Where backtracking ended.

    Attributes:
        trial: The last trial step.
        step_size: Its length.
        next_step_size: The length to try first in the next step.
        evaluations: Trial steps made, int32.
        success: Whether the last one is accepted.
    """

    trial: Trial
    step_size: Array
    next_step_size: Array
    evaluations: Array
    success: Array


def curvature_ratios(problem: Problem, origin: Point, trial: Trial) -> tuple[Array, Array]:
    """The step length over the largest that would be accepted along this step: the bounds that rounding allows."""
    s, y = trial.point.params - origin.params, trial.point.grad - origin.grad
    excess = (trial.point.value - origin.value - dot(origin.grad, s)).astype(s.dtype)
    rounded = dot(jnp.abs(origin.grad), jnp.abs(s)) + dot(jnp.abs(y), jnp.abs(origin.params))
    noise = 10 * jnp.finfo(s.dtype).eps * rounded
    hidden = problem.at_floor(origin, trial.divergence)
    right = jnp.where(hidden, trial.symmetric, trial.divergence)

    def ratio(noise: Array) -> Array:
        left = jnp.where(hidden, dot(y, s) + noise, excess)
        ratio = jnp.where(right > 0, left / jnp.where(right > 0, right, 1), jnp.where(left > 0, jnp.inf, 0))
        return jnp.where(is_finite(trial.point), ratio, jnp.inf)

    return ratio(-noise), ratio(noise)


def backtrack(
    problem: Problem, origin: Point, try_step: Callable[[Array], Trial], step0: Array, growth: Array | float
) -> BacktrackingResult:
    """Tries shorter and shorter steps, until one is accepted.

    Args:
        problem: The problem; where it does not run, nothing is evaluated.
        origin: Params, value and gradient of the smooth function where the step begins.
        try_step: From a step length to the trial step.
        step0: The first length.
        growth: The factor by which the next step may be longer, at least 1.

    Returns:
        Where it ended.
    """
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(try_step, step0))
    running = jnp.asarray(problem.running)
    start = BacktrackingResult(
        trial=zeros,
        step_size=jnp.zeros_like(step0),
        next_step_size=step0,
        evaluations=jnp.zeros((), jnp.int32),
        success=jnp.array(False),
    )

    def cond(s: BacktrackingResult) -> Array:
        return running & ~s.success & (s.evaluations < MAX_TRIALS) & (s.next_step_size > 0)

    def body(s: BacktrackingResult) -> BacktrackingResult:
        step_size = s.next_step_size
        trial = try_step(step_size)
        least, most = curvature_ratios(problem, origin, trial)
        success = least <= 1
        longer = jnp.clip(0.9 / jnp.where(most > 0, most, 0.1), 1, growth)
        shorter = jnp.clip(0.9 / jnp.where(least > 0, least, 1), 0.1, 0.8)
        factor = jnp.where(success, longer, shorter)
        next_step_size = (step_size * factor).astype(step_size.dtype)
        return BacktrackingResult(trial, step_size, next_step_size, s.evaluations + 1, success)

    return jax.lax.while_loop(cond, body, start)
