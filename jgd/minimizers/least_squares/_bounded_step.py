r"""Levenberg-Marquardt within bounds $l \le x \le u$.

Params at a bound that the gradient pushes outward stay there. The others make the step of the trust region; those that
it takes out of the box are put on their bounds, and the rest make theirs again, with those held. Where this is worse
for the linear model than a step along the projected, scaled gradient, that is made instead: short ones lead downhill.

References:
    - Kanzow, Yamashita and Fukushima, "Levenberg-Marquardt methods with strong local convergence properties for solving
      nonlinear equations with convex constraints", https://doi.org/10.1016/j.cam.2004.02.013, 2004.
    - Moré, "The Levenberg-Marquardt algorithm: implementation and theory", https://doi.org/10.1007/BFb0067700, 1978.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.least_squares._damped_system import Linear
from jgd.minimizers.least_squares._trust_step import Region, TrustStep, trust_step
from jgd.minimizers.problem._inner_loop import inner_loop
from jgd.minimizers.problem._problem import dot, norm

Bounds = tuple[Array, Array]


class _State(NamedTuple):
    held: Array
    moves: Array
    found: TrustStep
    gain: Array
    first: Array
    done: Array


def _along_gradient(params: Array, grad: Array, linear: Linear, scale: Array, radius: Array, bounds: Bounds) -> Array:
    """Along the projected, scaled gradient as far as the radius and the model go [n]."""
    descent = -grad / scale**2
    inside = jnp.clip(params + descent, *bounds) - params
    direction = jnp.where(inside == 0, 0, descent)
    slope, change, size = dot(grad, direction), dot(linear.matrix, direction), norm(scale * direction)
    bend = dot(change, change)
    best = jnp.where(bend > 0, -slope / jnp.where(bend > 0, bend, 1), jnp.inf)
    furthest = radius / jnp.where(size > 0, size, 1)
    return jnp.clip(params + jnp.minimum(best, furthest) * direction, *bounds) - params


def bounded_step(
    params: Array,
    grad: Array,
    linear: Linear,
    scale: Array,
    region: Region,
    bounds: Bounds,
    running: Any,
    unroll: bool,
) -> TrustStep:
    r"""The step.

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
    residuals, matrix = linear
    held = ((params <= lower) & (grad > 0)) | ((params >= upper) & (grad < 0)) | (lower == upper)

    def turn(s: _State) -> _State:
        rest = residuals + dot(matrix, s.moves)
        found = trust_step(jnp.where(s.held, 0, matrix), rest, scale, region, running, unroll)
        wanted = jnp.where(s.held, s.moves, found.step)
        inside = jnp.clip(params + wanted, lower, upper) - params
        out = ~s.held & ((params + wanted < lower) | (params + wanted > upper))
        gain = jnp.where(s.first, found.gain, s.gain)
        moves = jnp.where(s.held | out, inside, 0)
        return _State(s.held | out, moves, found._replace(step=inside), gain, jnp.array(False), ~jnp.any(out))

    zero = jnp.zeros((), params.dtype)
    nothing = TrustStep(jnp.zeros_like(params), zero, zero)
    start = _State(held, jnp.zeros_like(params), nothing, zero, jnp.array(True), ~jnp.asarray(running))
    s = inner_loop(lambda s: ~s.done, turn, start, params.size + 1, unroll)
    other = _along_gradient(params, grad, linear, scale, region.radius, bounds)

    def promised(step: Array) -> Array:
        change = dot(matrix, step)
        return -dot(grad, step) - 0.5 * dot(change, change)

    better = promised(s.found.step) >= promised(other)
    return TrustStep(jnp.where(better, s.found.step, other), s.found.damping, s.gain)
