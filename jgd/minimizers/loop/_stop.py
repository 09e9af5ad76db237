"""Whether to stop, and why: the tests that follow each step, the same for all methods."""

from typing import Any

import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.loop._fields import Path, Status
from jgd.minimizers.methods._base import StepInfo
from jgd.minimizers.problem._problem import Point, Problem, dot, max_norm, norm

#: Steps in a row without a decrease above rounding, after which a run ends.
PATIENCE = 10
#: A gradient norm that grows and is this many times the smallest one met: the run leaves a saddle point.
GROWTH = 5.0
#: With a gradient below the tolerance a run has converged unless its model promises more than this part of the value.
FEW = 0.01
#: The default tolerance, of a problem whose gradients are of order one.
TOL = 1e-6


def default_tol(point: Point, grad_norm: Array) -> Array:
    """The tolerance where none is given: a millionth, or less where the problem's own gradients are below one.

    Their size is that of the first one, or of the value over the params: a start at the solution has no gradient.
    """
    size = jnp.maximum(1, max_norm(point.params))
    scale = jnp.maximum(grad_norm, jnp.abs(point.value).astype(grad_norm.dtype) / size)
    return TOL * jnp.minimum(1, scale).astype(grad_norm.dtype)


def rounding_along(params: Array, move: Array, change: Array) -> Array:
    """By how much a change of the params [n] by their spacing, along a step, changes the gradient.

    The spacing along the step is that of the params that it moves: those of other sizes do not count.
    """
    square = dot(move, move)
    change_per_distance = norm(params * move) * norm(change) / jnp.where(square > 0, square, 1)
    return jnp.where(square > 0, jnp.finfo(params.dtype).eps * change_per_distance, 0)


def gradient_floor(path: Path) -> Array:
    """The gradient norm below which rounding of the params, by a few spacings, decides what it is."""
    return 4 * path.rounding


def is_finite(point: Point) -> Array:
    """Whether value and gradient are."""
    return jnp.isfinite(point.value) & jnp.all(jnp.isfinite(point.grad))


def first_status(point: Point, grad_norm: Array, tol: Array, max_steps: int) -> Array:
    """The status before the first step."""
    status = jnp.where(grad_norm <= tol, Status.CONVERGED, Status.MAX_STEPS if max_steps == 0 else Status.RUNNING)
    return jnp.where(is_finite(point), status, Status.NON_FINITE).astype(jnp.int32)


def next_status(
    problem: Problem,
    before: Point,
    after: Point,
    info: StepInfo,
    *,
    grad_norm: Array,
    tol: Array,
    floor: Array | float,
    stalled: Array,
    path: Path,
    last: Array,
    once_more: Array,
    settle: bool,
) -> Array:
    """The status after a step.

    Args:
        problem: The problem.
        before: The point before the step.
        after: The point after it.
        info: What the step says.
        grad_norm: The measure of stationarity at the new point.
        tol: Its bound.
        floor: Its bound where the run stands still.
        stalled: Steps in a row without progress above rounding, this one counted.
        path: The path so far, this step counted.
        last: Whether `max_steps` are made.
        once_more: Whether a search that has failed is to be tried again.
        settle: Whether a run has converged where the method knows that nothing above rounding is left to gain.

    Returns:
        A code of `Status`.
    """
    eps = jnp.finfo(after.params.dtype).eps
    scale = jnp.maximum(1.0, jnp.abs(path.first_value))
    bottomless = (after.value < -10 / eps * scale) | (after.value == -jnp.inf)
    if problem.bounds is not None:  # a bounded box has a bottom, deep as it may be
        bottomless &= ~jnp.all(jnp.isfinite(jnp.stack(problem.bounds)))
    blown_up = after.value - path.first_value > 1e6 * scale
    rising = before.value > path.first_value
    still = jnp.all(jnp.abs(after.params - before.params) <= eps * jnp.abs(before.params))
    idle = jnp.asarray(info.remaining is None or problem.at_floor(before, info.remaining))
    failed = jnp.asarray(info.failed) & ~once_more
    reached, settled = grad_norm <= tol, jnp.array(False)
    if info.remaining is not None:  # a gradient may also be small for its units, or on a plateau
        reached &= (info.remaining <= jnp.maximum(tol, FEW * jnp.abs(after.value))) | (grad_norm == 0)
    if settle and info.remaining is not None:
        settled = info.remaining <= problem.eps * jnp.abs(before.value)
    tests: list[tuple[Any, Status]] = [
        (bottomless, Status.UNBOUNDED),
        (~is_finite(after), Status.NON_FINITE),
        (reached | settled, Status.CONVERGED),
        (blown_up, Status.DIVERGED),
        (failed & problem.at_floor(before, info.predicted), Status.SMALL_DECREASE),
        (failed, Status.LINE_SEARCH_FAILED),
        (still & idle & info.accepted, Status.SMALL_STEP),
        (stalled >= PATIENCE, Status.SMALL_DECREASE),
        (last, Status.MAX_STEPS),
    ]
    status = jnp.asarray(Status.RUNNING, jnp.int32)
    for condition, code in reversed(tests):
        status = jnp.where(condition, jnp.int32(code), status)
    stands = jnp.isin(status, jnp.asarray([Status.SMALL_STEP, Status.SMALL_DECREASE, Status.LINE_SEARCH_FAILED]))
    known = settle and info.remaining is not None
    status = jnp.where(stands & ((grad_norm <= floor) | (idle & known)), jnp.int32(Status.CONVERGED), status)
    return jnp.where((status == Status.NON_FINITE) & rising, jnp.int32(Status.DIVERGED), status)
