"""The ratio of a step's decrease to that which its model predicts: what trust regions follow."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.least_squares._trust_step import TrustRegion, adapted_region
from jgd.minimizers.loop._stop import is_finite
from jgd.minimizers.problem._problem import Point, Problem, dot, max_norm


class TrialStep(NamedTuple):
    """A trial step.

    Attributes:
        step: The step [n].
        length: Its scaled length.
        damping: Its damping.
        predicted: The decrease that its model predicts.
    """

    step: Array
    length: Array
    damping: Array
    predicted: Array


def gain_ratio(problem: Problem, before: Point, after: Point, predicted: Array) -> Array:
    """The decrease over the predicted one; -1 where the new point is not finite.

    Where rounding hides both, the gradient decides: 0.5 where it has become smaller (accept the step, change nothing),
    else -1.

    Args:
        problem: The problem.
        before: Where the step began.
        after: Where it ended.
        predicted: The decrease of the model, at least 0.

    Returns:
        A scalar.
    """
    decrease, noise = before.value - after.value, problem.noise(before.value)
    hidden = (jnp.abs(decrease) <= noise) & (predicted <= noise)
    smaller = max_norm(after.grad) < max_norm(before.grad)
    ratio = decrease / jnp.where(predicted > 0, predicted, jnp.inf)
    ratio = jnp.where(hidden, jnp.where(smaller, 0.5, -1.0), ratio)
    return jnp.where(is_finite(after), ratio, -1.0)


def next_region(
    problem: Problem, before: Point, after: Point, region: TrustRegion, initial: Array, trial: TrialStep
) -> tuple[TrustRegion, Array, Array]:
    """The region of the next step, whether this one is accepted, and by how much it decreases the value.

    Args:
        problem: The problem.
        before: Where the step began.
        after: Where it ended.
        region: The region of the step.
        initial: Whether no step has been accepted yet: then the radius is at most the length of the step.
        trial: The step.
    """
    dtype = before.params.dtype
    ratio = gain_ratio(problem, before, after, trial.predicted)
    decrease = jnp.where(jnp.isfinite(after.value), before.value - after.value, -jnp.inf).astype(dtype)
    radius = jnp.where(initial, jnp.minimum(region.radius, trial.length), region.radius)
    slope = dot(before.grad, trial.step)
    new = adapted_region(region._replace(radius=radius), trial.damping, trial.length, ratio, slope, decrease)
    return jax.tree.map(lambda number: number.astype(dtype), new), ratio > 1e-4, decrease
