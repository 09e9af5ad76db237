"""Whether to stop, and why: the tests that follow each step, the same for all methods."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.loop._fields import Path, Status
from jgd.minimizers.methods._base import BaseMethod, StepInfo
from jgd.minimizers.problem._problem import Point, Problem, dot, max_norm, norm

#: Steps in a row without a decrease above rounding, after which a run ends.
PATIENCE = 10
#: A gradient norm that grows and is this many times the smallest one so far: the run leaves a saddle point.
GROWTH = 5.0
#: With a gradient below the tolerance a run has converged unless its model predicts more than this part of the value.
FEW = 0.01
#: The default tolerance, of a problem whose gradients are of order one.
TOL = 1e-6


class Step(NamedTuple):
    """A step of a method.

    Attributes:
        before: The point before it.
        after: The point after it.
        info: What the method says of it.
        grad_norm: The measure that is compared with the tolerance, at the new point.
    """

    before: Point
    after: Point
    info: StepInfo
    grad_norm: Array


def default_tol(method: BaseMethod, point: Point, grad_norm: Array) -> Array:
    """The tolerance where none is given: a millionth, or less where the problem's own gradients are below one.

    Their size is that of the first one, or of the value over the params: a start at the solution has no gradient. It is
    0 where the method says how much is left to gain, which decides then.
    """
    if getattr(method, "measures_gain", False):
        return jnp.zeros_like(grad_norm)
    size = jnp.maximum(1, max_norm(point.params))
    scale = jnp.maximum(grad_norm, jnp.abs(point.value).astype(grad_norm.dtype) / size)
    return TOL * jnp.minimum(1, scale).astype(grad_norm.dtype)


def rounding_along(params: Array, s: Array, y: Array) -> Array:
    """By how much a change of the params [n] by their spacing, along a step, changes the gradient.

    The spacing along the step is that of the params that it moves: those of other sizes do not count.

    Args:
        params: The params after the step [n].
        s: The step [n].
        y: The change of the gradient [n].
    """
    square = dot(s, s)
    change_per_distance = norm(params * s) * norm(y) / jnp.where(square > 0, square, 1)
    return jnp.where(square > 0, jnp.finfo(params.dtype).eps * change_per_distance, 0)


def gradient_floor(path: Path) -> Array:
    """The gradient norm below which rounding of the params, by a few spacings, decides what it is."""
    return 4 * path.rounding


def is_finite(point: Point) -> Array:
    """Whether the value and the gradient are finite."""
    return jnp.isfinite(point.value) & jnp.all(jnp.isfinite(point.grad))


def initial_status(point: Point, grad_norm: Array, tol: Array, max_steps: int) -> Array:
    """The status before the first step."""
    status = jnp.where(grad_norm <= tol, Status.CONVERGED, Status.MAX_STEPS if max_steps == 0 else Status.RUNNING)
    return jnp.where(is_finite(point), status, Status.NON_FINITE).astype(jnp.int32)


def status_of(tests: Sequence[tuple[Any, Any]]) -> Array:
    """The code of the first test whose condition holds, of pairs `(condition, code)`; `RUNNING` where none does."""
    status = jnp.asarray(Status.RUNNING, jnp.int32)
    for condition, code in reversed(tests):
        status = jnp.where(condition, jnp.asarray(code, jnp.int32), status)
    return status


def next_status(
    problem: Problem,
    step: Step,
    path: Path,
    *,
    tol: Array,
    floor: Array | float,
    stalled: Array,
    last: Array,
    retry: Array,
    automatic_tol: bool,
) -> Array:
    """The status after a step.

    Args:
        problem: The problem.
        step: The step.
        path: The path so far, with this step.
        tol: The bound of the gradient norm.
        floor: Its bound where the run stands still.
        stalled: Steps in a row without progress above rounding, with this one.
        last: Whether `max_steps` are made.
        retry: Whether a search that has failed is to be tried again.
        automatic_tol: Whether no tolerance was given: then a run has converged, too, where the method knows that
            nothing above rounding is left to gain.

    Returns:
        A code of `Status`.
    """
    before, after, info, grad_norm = step
    eps = jnp.finfo(after.params.dtype).eps
    scale = jnp.maximum(1.0, jnp.abs(path.first_value))
    unbounded = (after.value < -10 / eps * scale) | (after.value == -jnp.inf)
    if problem.bounds is not None:  # a bounded box has a bottom, deep as it may be
        unbounded &= ~jnp.all(jnp.isfinite(jnp.stack(problem.bounds)))
    diverged = after.value - path.first_value > 1e6 * scale
    rising = before.value > path.first_value
    unmoved = jnp.all(jnp.abs(after.params - before.params) <= eps * jnp.abs(before.params))
    nothing_left = jnp.asarray(info.remaining is None or problem.at_floor(before, info.remaining))
    failed = jnp.asarray(info.failed) & ~retry
    reached, settled = grad_norm <= tol, jnp.array(False)
    if info.remaining is not None:  # a gradient may also be small for its units, or on a plateau
        reached &= (info.remaining <= jnp.maximum(tol, FEW * jnp.abs(after.value))) | (grad_norm == 0)
    if automatic_tol and info.remaining is not None:
        settled = info.remaining <= problem.eps * jnp.abs(before.value)
    status = status_of(
        [
            (unbounded, Status.UNBOUNDED),
            (~is_finite(after), Status.NON_FINITE),
            (reached | settled, Status.CONVERGED),
            (diverged, Status.DIVERGED),
            (failed & problem.at_floor(before, info.predicted), Status.SMALL_DECREASE),
            (failed, Status.LINE_SEARCH_FAILED),
            (unmoved & nothing_left & info.accepted, Status.SMALL_STEP),
            (stalled >= PATIENCE, Status.SMALL_DECREASE),
            (last, Status.MAX_STEPS),
        ]
    )
    at_rest = jnp.isin(status, jnp.asarray([Status.SMALL_STEP, Status.SMALL_DECREASE, Status.LINE_SEARCH_FAILED]))
    measured = automatic_tol and info.remaining is not None
    arrived = at_rest & ((grad_norm <= floor) | (nothing_left & measured))
    status = jnp.where(arrived, jnp.int32(Status.CONVERGED), status)
    return jnp.where((status == Status.NON_FINITE) & rising, jnp.int32(Status.DIVERGED), status)
