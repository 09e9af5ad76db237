"""Whether a step has done what its model promised: what trust regions and dampings follow."""

import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.loop._stop import is_finite
from jgd.minimizers.problem._problem import Point, Problem, max_norm


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
