r"""The step of a linear model of residuals within a trust region.

$$
\min_p\; \lVert r + J p \rVert^2 + p^\top S\, p, \qquad \lVert D p \rVert \le \delta
$$

$S$ is the diagonal of what the linear model lacks of the curvature of the value. The step is undamped where that is
inside; else that of the damping $\lambda$ whose step has the length $\delta$ to
a tenth, found by a safeguarded Newton iteration (Hebden, Moré). The Jacobian is factorized once, and a matrix of
$2n$ rows for each damping that is tried.

References:
    - Moré, "The Levenberg-Marquardt algorithm: implementation and theory", https://doi.org/10.1007/BFb0067700, 1978.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.least_squares._damped_system import column_norms, least_norm_damping
from jgd.minimizers.problem._inner_loop import inner_loop
from jgd.minimizers.problem._problem import dot, norm

#: Dampings that are tried at most, and by how much a step may miss the radius, relative to it.
MOST, MISS = 10, 0.1


class Region(NamedTuple):
    """What bounds a step.

    Attributes:
        radius: The radius, in scaled params.
        damping: The damping of the last step, to begin with.
        missing: The diagonal of what the linear model lacks of the curvature of the value [n].
    """

    radius: Array
    damping: Array
    missing: Array


class TrustStep(NamedTuple):
    """A step within a trust region.

    Attributes:
        step: The step [n].
        damping: Its damping, 0 where the radius does not bind.
        gain: By how much the linear model without damping, radius or $S$ would decrease the value.
    """

    step: Array
    damping: Array
    gain: Array


class _State(NamedTuple):
    damping: Array
    step: Array
    size: Array
    lower: Array
    upper: Array
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


def trust_step(matrix: Array, residuals: Array, scale: Array, region: Region, running: Any, unroll: bool) -> TrustStep:
    r"""The step.

    Args:
        matrix: $J$ [m, n].
        residuals: $r$ [m].
        scale: $D$ [n], positive.
        region: The region.
        running: False to do little.
        unroll: Whether to loop so that reverse mode can pass.

    Returns:
        The step.
    """
    columns, dtype = matrix.shape[1], matrix.dtype
    radius, damping, missing = region
    extra, lacks = missing / scale**2, jnp.any(missing > 0)
    system, target = _factorized(matrix / scale, -residuals, unroll)
    slope = dot(system.T, target)
    norms = column_norms(system)
    least = least_norm_damping(matrix) * jnp.where(norms > 0, norms, 1) ** 2
    padded = jnp.concatenate([target, jnp.zeros(columns, dtype)])

    def turn(s: _State) -> _State:
        first = s.count == 0
        rows = jnp.diag(jnp.sqrt(s.damping + least + jnp.where(first, 0, extra)))
        q, r = jnp.linalg.qr(jnp.concatenate([system, rows]))
        step = jax.scipy.linalg.solve_triangular(r, dot(q.T, padded))
        size = norm(step)
        bend = norm(jax.scipy.linalg.solve_triangular(r, step, trans=1)) / jnp.where(size > 0, size, 1)
        within, near = size <= (1 + MISS) * radius, jnp.abs(size - radius) <= MISS * radius
        inside = (within & (s.damping <= 0) & ~(first & lacks)) | (near & ~first)
        newton = s.damping + (size - radius) / radius / jnp.where(bend > 0, bend, 1) ** 2
        lower = jnp.where(
            first,
            jnp.where(lacks, 0, jnp.maximum(newton, 0)),
            jnp.where(size > radius, jnp.maximum(s.lower, s.damping), s.lower),
        )
        upper = jnp.where(first | (size > radius), s.upper, jnp.minimum(s.upper, s.damping))
        wanted = jnp.where(first, jnp.where(within, 0, damping), newton)
        moved = dot(system, step)
        gain = jnp.where(first, dot(slope, step) - 0.5 * dot(moved, moved), s.gain)
        done = inside | (s.count >= MOST) | ~jnp.isfinite(size)
        following = jnp.clip(wanted, lower, jnp.maximum(lower, upper)).astype(dtype)
        return _State(jnp.where(done, s.damping, following), step, size, lower, upper, gain, s.count + 1, done)

    zero = jnp.zeros((), dtype)
    start = _State(
        zero,
        jnp.zeros(columns, dtype),
        zero,
        zero,
        norm(slope) / radius,
        zero,
        jnp.zeros((), jnp.int32),
        ~jnp.asarray(running),
    )
    s = inner_loop(lambda s: ~s.done, turn, start, MOST + 1, unroll)
    return TrustStep(s.step / scale, s.damping, s.gain)


def changed_region(region: Region, damping: Array, size: Array, ratio: Array, slope: Array, decrease: Array) -> Region:
    """The region of the next step.

    Args:
        region: That of the last one.
        damping: The damping of the step.
        size: The scaled length of the step.
        ratio: The decrease of the value over that of the model.
        slope: The derivative of the value along the step.
        decrease: The decrease of the value.
    """
    radius = region.radius
    parabola = 0.5 * slope / jnp.where(slope + decrease < 0, slope + decrease, -1)
    part = jnp.where(decrease >= 0, 0.5, jnp.clip(jnp.where(jnp.isfinite(parabola), parabola, 0.1), 0.1, 0.5))
    part = part.astype(radius.dtype)
    bad, good = ratio < 0.25, (ratio >= 0.75) | (damping <= 0)
    new = jnp.where(bad, part * jnp.minimum(radius, 10 * size), jnp.where(good, 2 * size, radius))
    return Region(new, jnp.where(bad, damping / part, jnp.where(good, 0.5 * damping, damping)), region.missing)
