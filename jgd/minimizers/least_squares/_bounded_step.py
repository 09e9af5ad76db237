r"""Levenberg-Marquardt within bounds $l \le x \le u$.

Params at a bound that the negative gradient points out of are fixed. The others make the step of the trust region;
those that it takes out of the bounds are fixed on them, and the step of the rest is computed again. Where the linear
model predicts less of it than of a step along the projected, scaled gradient, that one is made: short ones decrease the
value.

References:
    - Kanzow, Yamashita and Fukushima, "Levenberg-Marquardt methods with strong local convergence properties for solving
      nonlinear equations with convex constraints", https://doi.org/10.1016/j.cam.2004.02.013, 2004.
    - Moré, "The Levenberg-Marquardt algorithm: implementation and theory", https://doi.org/10.1007/BFb0067700, 1978.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jgd.core import Array, ArrayLike
from jgd.minimizers.least_squares._damped_system import LinearModel
from jgd.minimizers.least_squares._trust_step import TrustRegion, TrustStep, trust_step
from jgd.minimizers.problem._inner_loop import inner_loop
from jgd.minimizers.problem._problem import dot, norm

Bounds = tuple[Array, Array]


class _State(NamedTuple):
    """The params that are fixed and their steps, the step of the last iteration, and the gain of the first."""

    fixed: Array
    fixed_step: Array
    last: TrustStep
    gain: Array
    first: Array
    done: Array


def _gradient_step(
    params: Array, grad: Array, linear: LinearModel, scale: Array, radius: Array, bounds: Bounds
) -> Array:
    """The step along the projected, scaled gradient to the minimizer of the model, or to the radius [n]."""
    negative = -grad / scale**2
    inside = jnp.clip(params + negative, *bounds) - params
    direction = jnp.where(inside == 0, 0, negative)
    slope, change, size = dot(grad, direction), dot(linear.jacobian, direction), norm(scale * direction)
    curvature = dot(change, change)
    to_minimizer = jnp.where(curvature > 0, -slope / jnp.where(curvature > 0, curvature, 1), jnp.inf)
    to_radius = radius / jnp.where(size > 0, size, 1)
    return jnp.clip(params + jnp.minimum(to_minimizer, to_radius) * direction, *bounds) - params


def bounded_step(
    params: Array,
    grad: Array,
    linear: LinearModel,
    scale: Array,
    region: TrustRegion,
    bounds: Bounds,
    running: ArrayLike,
    unroll: bool,
) -> TrustStep:
    r"""A step within a trust region and bounds.

    Args:
        params: The params [n], inside the bounds.
        grad: $J^\top r$ [n].
        linear: $r$ [m] and $J$ [m, n].
        scale: $D$ [n], positive.
        region: The trust region.
        bounds: Lower and upper bounds [n].
        running: False to do little.
        unroll: Whether to loop so that reverse mode can pass.

    Returns:
        The step, whose gain is that of the params that are free to move.
    """
    lower, upper = bounds
    residuals, jacobian = linear
    fixed = ((params <= lower) & (grad > 0)) | ((params >= upper) & (grad < 0)) | (lower == upper)

    def body(s: _State) -> _State:
        after_fixed = residuals + dot(jacobian, s.fixed_step)
        free = trust_step(jnp.where(s.fixed, 0, jacobian), after_fixed, scale, region, running, unroll)
        step = jnp.where(s.fixed, s.fixed_step, free.step)
        inside = jnp.clip(params + step, lower, upper) - params
        outside = ~s.fixed & ((params + step < lower) | (params + step > upper))
        gain = jnp.where(s.first, free.gain, s.gain)
        fixed_step = jnp.where(s.fixed | outside, inside, 0)
        last = free._replace(step=inside)
        return _State(s.fixed | outside, fixed_step, last, gain, jnp.array(False), ~jnp.any(outside))

    zero, no_step = jnp.zeros((), params.dtype), jnp.zeros_like(params)
    start = _State(fixed, no_step, TrustStep(no_step, zero, zero), zero, jnp.array(True), ~jnp.asarray(running))
    s = inner_loop(lambda s: ~s.done, body, start, params.size + 1, unroll)
    fallback = _gradient_step(params, grad, linear, scale, region.radius, bounds)

    def predicted(step: Array) -> Array:
        change = dot(jacobian, step)
        return -dot(grad, step) - 0.5 * dot(change, change)

    better = predicted(s.last.step) >= predicted(fallback)
    return TrustStep(jnp.where(better, s.last.step, fallback), s.last.damping, s.gain)
