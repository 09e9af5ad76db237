r"""Steps that a gradient method with a distance may take: no longer than one over the curvature relative to it.

A step of size $t$ from $y$ to $x$ minimizes $\langle g(y), x \rangle + \frac{1}{t} B(x, y)$ and more, where $B$ is half
the squared distance, or another divergence of Bregman. It is good where

$$
f(x) - f(y) - \langle g(y), x - y \rangle \le \frac{1}{t} B(x, y)
$$

and is tried again, shorter, where it is not. Near a solution rounding hides the left side; there the gradients decide:

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

#: Steps tried at most.
MAX_TRIALS = 30


class Trial(NamedTuple):
    """A step that was tried.

    Attributes:
        point: Params, value and gradient of the smooth function where it ended.
        divergence: $B(x, y) / t$, a scalar.
        symmetric: $(B(x, y) + B(y, x)) / t$, a scalar.
        data: What else the caller wants of it, any tree of arrays.
    """

    point: Point
    divergence: Array
    symmetric: Array
    data: PyTree = ()


class Tried(NamedTuple):
    """Where the search ended.

    Attributes:
        trial: The last step tried.
        step: Its size.
        next_step: The size to try first in the next step.
        count: How many were tried, int32.
        success: Whether the last is good.
    """

    trial: Trial
    step: Array
    next_step: Array
    count: Array
    success: Array


def curvature_ratios(problem: Problem, origin: Point, trial: Trial) -> tuple[Array, Array]:
    """The step's size over the largest that is good, along this step: the least and the most that rounding allows."""
    move, change = trial.point.params - origin.params, trial.point.grad - origin.grad
    rise = (trial.point.value - origin.value - dot(origin.grad, move)).astype(move.dtype)
    rounded = dot(jnp.abs(origin.grad), jnp.abs(move)) + dot(jnp.abs(change), jnp.abs(origin.params))
    noise = 10 * jnp.finfo(move.dtype).eps * rounded
    hidden = problem.at_floor(origin, trial.divergence)
    below = jnp.where(hidden, trial.symmetric, trial.divergence)

    def ratio(noise: Array) -> Array:
        above = jnp.where(hidden, dot(change, move) + noise, rise)
        ratio = jnp.where(below > 0, above / jnp.where(below > 0, below, 1), jnp.where(above > 0, jnp.inf, 0))
        return jnp.where(is_finite(trial.point), ratio, jnp.inf)

    return ratio(-noise), ratio(noise)


def backtrack(
    problem: Problem, origin: Point, try_step: Callable[[Array], Trial], step0: Array, growth: Array | float
) -> Tried:
    """The first good step of shorter and shorter ones.

    Args:
        problem: The problem; where it does not run, nothing is evaluated.
        origin: Params, value and gradient of the smooth function where the step begins.
        try_step: From a size to the step.
        step0: The size tried first.
        growth: By what factor the next step may be larger, at least 1.

    Returns:
        Where the search ended.
    """
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(try_step, step0))
    no, none = jnp.array(False), jnp.zeros((), jnp.int32)

    def goes_on(state: Tried) -> Array:
        return jnp.asarray(problem.running) & ~state.success & (state.count < MAX_TRIALS) & (state.next_step > 0)

    def turn(state: Tried) -> Tried:
        step = state.next_step
        trial = try_step(step)
        least, most = curvature_ratios(problem, origin, trial)
        good = least <= 1
        longer = jnp.clip(0.9 / jnp.where(most > 0, most, 0.1), 1, growth)
        shorter = jnp.clip(0.9 / jnp.where(least > 0, least, 1), 0.1, 0.8)
        factor = jnp.where(good, longer, shorter)
        return Tried(trial, step, (step * factor).astype(step.dtype), state.count + 1, good)

    return jax.lax.while_loop(goes_on, turn, Tried(zeros, jnp.zeros_like(step0), step0, none, no))
