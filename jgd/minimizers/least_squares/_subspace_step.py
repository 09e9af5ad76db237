"""Levenberg-Marquardt where the Jacobian is not formed: the step of the trust region in a Krylov subspace."""

from typing import NamedTuple

import jax.numpy as jnp

from jgd.core import Array, tree_where
from jgd.minimizers.least_squares._gain_ratio import Trial, region_after
from jgd.minimizers.least_squares._subspace import column_sizes, krylov_subspace, linear_map_at
from jgd.minimizers.least_squares._trust_step import Region, trust_step
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
        fresh: Whether no step has been accepted yet.
        scale: The largest norm so far of each column of the Jacobian [n]; 0 before the first step.
        steepest: The largest norm so far of the scaled gradient: where it has become small, systems are solved well.
    """

    radius: Array
    damping: Array
    fresh: Array
    scale: Array
    steepest: Array


def first_state(point: Point, radius: Array | float) -> SubspaceState:
    """The state before the first step."""
    dtype = point.params.dtype
    zero = jnp.zeros((), dtype)
    return SubspaceState(jnp.asarray(radius, dtype), zero, jnp.array(True), jnp.zeros_like(point.params), zero)


def subspace_step(
    problem: Problem, point: Point, state: SubspaceState, by_columns: bool
) -> tuple[Point, SubspaceState, StepInfo]:
    """One step; without `by_columns` all params have the largest scale."""
    dtype, eps = point.params.dtype, jnp.finfo(point.params.dtype).eps
    unroll = problem.unrolled
    linear = linear_map_at(problem, point.params)
    norms = column_sizes(linear, point.params.size)
    scale = jnp.maximum(state.scale, (norms if by_columns else jnp.full_like(norms, jnp.max(norms))).astype(dtype))
    units = jnp.where(scale > 0, scale, 1)
    extent = norm(units * point.params)
    first = jnp.all(state.scale == 0)
    radius = jnp.where(first, state.radius * jnp.where(extent > 0, extent, 1), state.radius)
    gradient = norm(point.grad / units)
    steepest = jnp.maximum(state.steepest, gradient)
    tol = jnp.minimum(LOOSEST, jnp.sqrt(gradient / jnp.where(steepest > 0, steepest, 1)))
    space = krylov_subspace(linear, units, tol, problem.running, unroll)
    region = Region(radius, state.damping, jnp.zeros(space.matrix.shape[1], space.matrix.dtype))
    found = trust_step(space.matrix, space.residuals, jnp.ones_like(region.missing), region, problem.running, unroll)
    step = space.step(found.step, units).astype(dtype)
    change = dot(space.matrix, found.step)
    model = -dot(point.grad, step) - 0.5 * dot(change, change)
    tried = problem.point(point.params + step)
    trial = Trial(step, norm(found.step), found.damping, model)
    region, accepted, _ = region_after(problem, point, tried, region, state.fresh, trial)
    after = SubspaceState(region.radius, region.damping, state.fresh & ~accepted, scale, steepest)
    rounded = norm(2 * eps * norms * jnp.abs(point.params))
    left = jnp.maximum(found.gain - 0.5 * rounded**2, 0)
    failed = ~accepted & (trial.size <= eps * extent)
    cost = Evaluations(2, 1, space.products)
    return tree_where(accepted, tried, point), after, StepInfo(norm(step), cost, failed, accepted, jnp.abs(model), left)
