"""Levenberg-Marquardt where the Jacobian is not formed: the step of the trust region in a Krylov subspace."""

from typing import NamedTuple

import jax.numpy as jnp

from jgd.core import Array, tree_where
from jgd.minimizers.least_squares._damped_system import residuals_of
from jgd.minimizers.least_squares._gain_ratio import TrialStep, next_region
from jgd.minimizers.least_squares._geodesic import acceleration, better_step, second_derivative
from jgd.minimizers.least_squares._subspace import estimate_column_norms, krylov_subspace, matrix_free_model_at
from jgd.minimizers.least_squares._trust_step import TrustRegion, trust_step
from jgd.minimizers.loop._fields import Evaluations
from jgd.minimizers.methods._base import StepInfo
from jgd.minimizers.problem._problem import Point, Problem, dot, norm

#: The norm of the scaled gradient to which the system of a step is solved at least, relative to that at its start.
LOOSEST = 0.1


class SubspaceState(NamedTuple):
    """What a step hands to the next.

    Attributes:
        radius: The radius of the trust region in scaled params; before the first step, relative to those of the start.
        damping: The damping of the last step.
        initial: Whether no step has been accepted yet.
        scale: The largest norm so far of each column of the Jacobian [n]; 0 before the first step.
        max_gradient: The largest norm so far of the scaled gradient: the smaller it has become since, the more exactly
            systems are solved.
    """

    radius: Array
    damping: Array
    initial: Array
    scale: Array
    max_gradient: Array


def first_state(point: Point, radius: Array | float) -> SubspaceState:
    """The state before the first step."""
    dtype = point.params.dtype
    zero = jnp.zeros((), dtype)
    return SubspaceState(jnp.asarray(radius, dtype), zero, jnp.array(True), jnp.zeros_like(point.params), zero)


def subspace_step(
    problem: Problem, point: Point, state: SubspaceState, by_columns: bool, geodesic: bool
) -> tuple[Point, SubspaceState, StepInfo]:
    """One step; without `by_columns` all params have the largest scale, with `geodesic` it is accelerated."""
    dtype, eps = point.params.dtype, jnp.finfo(point.params.dtype).eps
    linear = matrix_free_model_at(problem, point.params)
    norms = estimate_column_norms(linear, point.params.size)
    largest = jnp.maximum(state.scale, (norms if by_columns else jnp.full_like(norms, jnp.max(norms))).astype(dtype))
    scale = jnp.where(largest > 0, largest, 1)
    params_norm = norm(scale * point.params)
    first = jnp.all(state.scale == 0)
    radius = jnp.where(first, state.radius * jnp.where(params_norm > 0, params_norm, 1), state.radius)
    gradient = norm(point.grad / scale)
    max_gradient = jnp.maximum(state.max_gradient, gradient)
    tol = jnp.minimum(LOOSEST, jnp.sqrt(gradient / jnp.where(max_gradient > 0, max_gradient, 1)))
    space = krylov_subspace(linear, scale, tol, problem.running, problem.unrolled)
    region = TrustRegion(radius, state.damping, jnp.zeros(space.matrix.shape[1], space.matrix.dtype))
    unscaled = jnp.ones_like(region.missing)
    inner = trust_step(space.matrix, space.residuals, unscaled, region, problem.running, problem.unrolled)
    step = space.step(inner.step, scale).astype(dtype)
    change = dot(space.matrix, inner.step)
    predicted = -dot(point.grad, step) - 0.5 * dot(change, change)
    travel = step
    if geodesic:
        bend = space.image(second_derivative(residuals_of(problem), point.params, step))
        coordinates = acceleration(space.matrix, inner.damping * unscaled, bend)
        travel = better_step(problem, point.params, step, space.step(coordinates, scale).astype(dtype))
    new = problem.point(point.params + travel)
    trial = TrialStep(step, norm(inner.step), inner.damping, predicted)
    region, accepted, _ = next_region(problem, point, new, region, state.initial, trial)
    after = SubspaceState(region.radius, region.damping, state.initial & ~accepted, largest, max_gradient)
    # what rounding of the params makes of the residuals is not to be gained
    rounding = norm(2 * eps * norms * jnp.abs(point.params))
    remaining = jnp.maximum(inner.gain - 0.5 * rounding**2, 0)
    failed = ~accepted & (trial.length <= eps * params_norm)
    cost = Evaluations(4 if geodesic else 2, 1, space.products + int(geodesic))
    info = StepInfo(norm(step), cost, failed, accepted, jnp.abs(predicted), remaining)
    return tree_where(accepted, new, point), after, info
