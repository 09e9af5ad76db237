r"""Levenberg-Marquardt where the Jacobian is not formed: a damping that follows the gain ratio (Nielsen).

References:
    - Nielsen, "Damping parameter in Marquardt's method", IMM-REP-1999-05, 1999.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.least_squares._damped_system import step_by_cg
from jgd.minimizers.least_squares._gain_ratio import gain_ratio
from jgd.minimizers.loop._fields import Evaluations
from jgd.minimizers.methods._base import StepInfo
from jgd.minimizers.problem._problem import Point, Problem, choose, dot, norm

#: By how much a damping falls at most after a good step, and by what it grows after the first bad one.
FALL, RISE = 0.1, 4.0
#: The smallest damping: below it, its root may vanish in float32.
LEAST = 1e-30


class DampedState(NamedTuple):
    """What a step hands to the next.

    Attributes:
        damping: The damping, relative to the squared scale.
        growth: What to multiply it by after a rejection.
        widest: The largest norm met of what the Jacobian makes of a unit vector.
    """

    damping: Array
    growth: Array
    widest: Array


def first_state(damping: float | Array, point: Point) -> DampedState:
    """The state before the first step."""
    dtype = point.params.dtype
    return DampedState(jnp.asarray(damping, dtype), jnp.asarray(RISE, dtype), jnp.zeros((), dtype))


def damped_step(problem: Problem, point: Point, state: DampedState) -> tuple[Point, DampedState, StepInfo]:
    """One step."""
    dtype = point.params.dtype
    step, change, widest, count = step_by_cg(problem, point, state.damping, state.widest)
    step = step.astype(dtype)
    model = -dot(point.grad, step) - 0.5 * dot(change, change)
    tried, cost = problem.point(point.params + step), Evaluations(2, 1, count)
    ratio = gain_ratio(problem, point, tried, model)
    accepted = ratio > 1e-4
    shrunk = state.damping * jnp.clip(1 - (2 * ratio - 1) ** 3, FALL, 2.0)
    damping = jnp.maximum(jnp.where(accepted, shrunk, state.damping * state.growth), LEAST)
    growth = jnp.where(accepted, RISE, 2 * state.growth)
    eps = jnp.finfo(dtype).eps
    failed = ~accepted & (norm(step) <= eps * jnp.maximum(norm(point.params), eps))
    info = StepInfo(norm(step), cost, failed, accepted, jnp.abs(model))
    after = DampedState(damping.astype(dtype), growth.astype(dtype), widest)
    return choose(accepted, tried, point), after, info
