"""Whether a step has done what its model promised: what trust regions and dampings follow."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.least_squares._trust_step import Region, changed_region
from jgd.minimizers.loop._stop import is_finite
from jgd.minimizers.problem._problem import Point, Problem, dot, max_norm


class Trial(NamedTuple):
    """A step that is tried.

    Attributes:
        step: The step [n].
        size: Its scaled length.
        damping: Its damping.
        model: The decrease that its model promises.
    """

    step: Array
    size: Array
    damping: Array
    model: Array


def gain_ratio(problem: Problem, before: Point, tried: Point, promised: Array) -> Array:
    """The decrease over the one promised; -1 where the new point is not finite.

    Where rounding hides both, the gradient decides: 0.5 where it has become smaller (take the step, change nothing),
    else -1.

    Args:
        problem: The problem.
        before: Where the step began.
        tried: Where it ended.
        promised: The decrease of the model, at least 0.

    Returns:
        A scalar.
    """
    decrease, noise = before.value - tried.value, problem.noise(before.value)
    hidden = (jnp.abs(decrease) <= noise) & (promised <= noise)
    smaller = max_norm(tried.grad) < max_norm(before.grad)
    ratio = decrease / jnp.where(promised > 0, promised, jnp.inf)
    ratio = jnp.where(hidden, jnp.where(smaller, 0.5, -1.0), ratio)
    return jnp.where(is_finite(tried), ratio, -1.0)


def region_after(
    problem: Problem, before: Point, tried: Point, region: Region, fresh: Array, trial: Trial
) -> tuple[Region, Array, Array]:
    """The region of the next step, whether this one is accepted, and by how much it decreases the value.

    Args:
        problem: The problem.
        before: Where the step began.
        tried: Where it ended.
        region: The region that it was made in.
        fresh: Whether no step has been accepted yet: then the radius is at most the length of the step.
        trial: The step.
    """
    dtype = before.params.dtype
    ratio = gain_ratio(problem, before, tried, trial.model)
    decrease = jnp.where(jnp.isfinite(tried.value), before.value - tried.value, -jnp.inf).astype(dtype)
    radius = jnp.where(fresh, jnp.minimum(region.radius, trial.size), region.radius)
    slope = dot(before.grad, trial.step)
    new = changed_region(region._replace(radius=radius), trial.damping, trial.size, ratio, slope, decrease)
    return jax.tree.map(lambda number: number.astype(dtype), new), ratio > 1e-4, decrease
