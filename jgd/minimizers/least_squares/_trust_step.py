r"""The step of a linear model of residuals within a trust region.

$$
\min_p\; \lVert r + J p \rVert^2 + p^\top S\, p, \qquad \lVert D p \rVert \le \delta
$$

$S$ is the diagonal of the curvature of the value that the linear model lacks. The step is undamped where that is within
the region; else its damping $\lambda$ is one for which it has the length $\delta$ to a tenth, found by a safeguarded
Newton iteration (Hebden, Moré). The Jacobian is factorized once, and a matrix of $2n$ rows for each trial damping.

References:
    - Moré, "The Levenberg-Marquardt algorithm: implementation and theory", https://doi.org/10.1007/BFb0067700, 1978.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, ArrayLike
from jgd.minimizers.least_squares._damped_system import column_norms, least_norm_damping
from jgd.minimizers.problem._inner_loop import inner_loop
from jgd.minimizers.problem._problem import dot, norm

#: Trial dampings at most, and by how much the length of a step may differ from the radius, relative to it.
MAX_DAMPINGS, TOLERANCE = 10, 0.1


class TrustRegion(NamedTuple):
    """A trust region and its model.

    Attributes:
        radius: The radius, in scaled params.
        damping: The damping of the last step, the first one to try.
        missing: The diagonal of the curvature of the value that the linear model lacks [n].
    """

    radius: Array
    damping: Array
    missing: Array


class TrustStep(NamedTuple):
    """A step within a trust region.

    Attributes:
        step: The step [n].
        damping: Its damping, 0 where the radius does not bind.
        gain: The decrease that the linear model predicts without damping, radius or $S$.
    """

    step: Array
    damping: Array
    gain: Array


class _State(NamedTuple):
    """The damping and its bounds, and the step of the last one with its length."""

    damping: Array
    lower: Array
    upper: Array
    step: Array
    length: Array
    gain: Array
    count: Array
    done: Array


def _factorized(matrix: Array, target: Array, unroll: bool) -> tuple[Array, Array]:
    """A system of no more rows than it has columns, with the same least-squares solutions."""
    rows, columns = matrix.shape
    if rows <= 2 * columns or unroll:  # the derivative of the factors is not finite where the columns are dependent
        return matrix, target
    joined = jnp.linalg.qr(jnp.concatenate([matrix, target[:, None]], axis=1), mode="r")
    return joined[:columns, :columns], joined[:columns, columns]


def trust_step(
    jacobian: Array, residuals: Array, scale: Array, region: TrustRegion, running: ArrayLike, unroll: bool
) -> TrustStep:
    r"""The step.

    Args:
        jacobian: $J$ [m, n].
        residuals: $r$ [m].
        scale: $D$ [n], positive.
        region: The region.
        running: False to do little.
        unroll: Whether to loop so that reverse mode can pass.

    Returns:
        The step.
    """
    columns, dtype = jacobian.shape[1], jacobian.dtype
    radius, last_damping, missing = region
    scaled_missing, corrected = missing / scale**2, jnp.any(missing > 0)
    system, target = _factorized(jacobian / scale, -residuals, unroll)
    gradient = dot(system.T, target)
    norms = column_norms(system)
    least = least_norm_damping(jacobian) * jnp.where(norms > 0, norms, 1) ** 2
    padded = jnp.concatenate([target, jnp.zeros(columns, dtype)])

    def body(s: _State) -> _State:
        first = s.count == 0  # without damping and S
        rows = jnp.diag(jnp.sqrt(s.damping + least + jnp.where(first, 0, scaled_missing)))
        q, r = jnp.linalg.qr(jnp.concatenate([system, rows]))
        step = jax.scipy.linalg.solve_triangular(r, dot(q.T, padded))
        length = norm(step)
        slope = norm(jax.scipy.linalg.solve_triangular(r, step, trans=1)) / jnp.where(length > 0, length, 1)
        within = length <= (1 + TOLERANCE) * radius
        at_radius = jnp.abs(length - radius) <= TOLERANCE * radius
        solved = (within & (s.damping <= 0) & ~(first & corrected)) | (at_radius & ~first)
        newton = s.damping + (length - radius) / radius / jnp.where(slope > 0, slope, 1) ** 2
        lower = jnp.where(
            first,
            jnp.where(corrected, 0, jnp.maximum(newton, 0)),
            jnp.where(length > radius, jnp.maximum(s.lower, s.damping), s.lower),
        )
        upper = jnp.where(first | (length > radius), s.upper, jnp.minimum(s.upper, s.damping))
        damping = jnp.where(first, jnp.where(within, 0, last_damping), newton)
        damping = jnp.clip(damping, lower, jnp.maximum(lower, upper)).astype(dtype)
        change = dot(system, step)
        gain = jnp.where(first, dot(gradient, step) - 0.5 * dot(change, change), s.gain)
        done = solved | (s.count >= MAX_DAMPINGS) | ~jnp.isfinite(length)
        return _State(
            damping=jnp.where(done, s.damping, damping),
            lower=lower,
            upper=upper,
            step=step,
            length=length,
            gain=gain,
            count=s.count + 1,
            done=done,
        )

    zero = jnp.zeros((), dtype)
    start = _State(
        damping=zero,
        lower=zero,
        upper=norm(gradient) / radius,
        step=jnp.zeros(columns, dtype),
        length=zero,
        gain=zero,
        count=jnp.zeros((), jnp.int32),
        done=~jnp.asarray(running),
    )
    s = inner_loop(lambda s: ~s.done, body, start, MAX_DAMPINGS + 1, unroll)
    return TrustStep(s.step / scale, s.damping, s.gain)


def adapted_region(
    region: TrustRegion, damping: Array, length: Array, ratio: Array, slope: Array, decrease: Array
) -> TrustRegion:
    """The region of the next step.

    Args:
        region: That of the last one.
        damping: The damping of the step.
        length: The scaled length of the step.
        ratio: The decrease of the value over that of the model.
        slope: The derivative of the value along the step.
        decrease: The decrease of the value.
    """
    radius = region.radius
    parabola = 0.5 * slope / jnp.where(slope + decrease < 0, slope + decrease, -1)
    shrinkage = jnp.clip(jnp.where(jnp.isfinite(parabola), parabola, 0.1), 0.1, 0.5)
    shrinkage = jnp.where(decrease >= 0, 0.5, shrinkage).astype(radius.dtype)
    poor, good = ratio < 0.25, (ratio >= 0.75) | (damping <= 0)
    new_radius = jnp.where(poor, shrinkage * jnp.minimum(radius, 10 * length), jnp.where(good, 2 * length, radius))
    new_damping = jnp.where(poor, damping / shrinkage, jnp.where(good, 0.5 * damping, damping))
    return TrustRegion(new_radius, new_damping, region.missing)
