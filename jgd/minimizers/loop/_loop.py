"""The loop that runs any method: one `lax.while_loop`, or a `lax.scan` where it is to be differentiated."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree
from jgd.minimizers.loop._fields import Evaluations, Path, Status, Trace
from jgd.minimizers.loop._stop import (
    GROWTH,
    default_tol,
    first_status,
    gradient_floor,
    is_finite,
    next_status,
    rounding_along,
)
from jgd.minimizers.methods._base import StepInfo
from jgd.minimizers.problem._problem import Point, Problem, choose, dot, norm


class Run(NamedTuple):
    """All that one turn of the loop hands to the next."""

    point: Point
    state: PyTree
    grad_norm: Array
    best_norm: Array
    decrease: Array
    stalled: Array
    steps: Array
    status: Array
    evaluations: Evaluations
    path: Path
    trace: Trace | None
    tol: Array
    magnitude: Array
    by_slope: Array


def default_bound(method: Any, point: Point, grad_norm: Array) -> Array:
    """The tolerance where none is given; 0 where the method says what is left to gain, which decides then."""
    measured = getattr(method, "measures_gain", None)
    return jnp.zeros_like(grad_norm) if measured and measured(point.params) else default_tol(point, grad_norm)


def start(problem: Problem, method: Any, params: Array, tol: Array | None, max_steps: int, trace: bool) -> Run:
    """The run before its first step; `tol` is None for the default."""
    point = method.point(problem, method.start(problem, params))
    grad_norm = method.stationarity(problem, point)
    zero, none = jnp.zeros_like(grad_norm), jnp.zeros((), jnp.int32)
    path = Path(
        first_value=point.value,
        best_value=point.value,
        step_size=zero,
        rate=zero,
        curvature=zero,
        half_step=none,
        half_norm=grad_norm,
        last_step=none,
        last_norm=grad_norm,
        rounding=zero,
    )
    bound = default_bound(method, point, grad_norm) if tol is None else tol

    def empty(like: Array) -> Array:
        return jnp.full(max_steps, jnp.nan, like.dtype)

    return Run(
        point,
        method.init(problem, point),
        grad_norm,
        grad_norm,
        jnp.zeros_like(point.value),
        none,
        none,
        first_status(point, grad_norm, bound, max_steps),
        Evaluations(none + 1, none + 1, none),
        path,
        Trace(empty(point.value), empty(grad_norm), empty(grad_norm)) if trace else None,
        bound,
        jnp.abs(point.value),
        jnp.array(False),
    )


def turn(problem: Problem, method: Any, run: Run, tol: Array | None, max_steps: int) -> Run:
    """The run after one step more."""
    before, narrow = run.point, problem
    problem = dataclasses.replace(problem, magnitude=jnp.where(run.by_slope, run.magnitude, 0))
    after, state, info = method.step(problem, before, run.state)
    grad_norm = method.stationarity(problem, after)
    decrease = before.value - after.value
    # values that go up and down by their rounding are no progress
    progress = run.path.best_value - after.value > problem.eps * jnp.abs(after.value)
    quiet = ~progress & (jnp.abs(decrease) <= problem.noise(after.value)) & ~(grad_norm < 0.9 * run.best_norm)
    quiet &= jnp.asarray(info.remaining is None or problem.at_floor(before, info.remaining))
    # a run that leaves a saddle point does not stand still, small as the decreases are
    leaving = (grad_norm > run.grad_norm) & (grad_norm > GROWTH * run.best_norm)
    stalled = jnp.where(info.accepted, jnp.where(quiet, run.stalled + ~leaving, 0), run.stalled)
    path = _follow(run.path, before, after, info, run.steps + 1, grad_norm)
    # where terms cancel, rounding is that of larger values than the last one: such a search goes by the slopes
    wide = dataclasses.replace(problem, magnitude=run.magnitude)
    again = jnp.asarray(info.failed) & ~run.by_slope & wide.at_floor(before, info.predicted)
    again &= ~narrow.at_floor(before, info.predicted)
    floor = gradient_floor(path) if tol is None else 0.0
    status = next_status(
        problem,
        before,
        after,
        info,
        grad_norm=grad_norm,
        tol=run.tol,
        floor=floor,
        stalled=stalled,
        path=path,
        last=run.steps + 1 >= max_steps,
        once_more=again,
        settle=tol is None,
    )
    # where the step has left the numbers behind, the last finite point is the result
    finite = is_finite(after)
    point = choose(finite, after, before)
    return Run(
        point,
        state,
        jnp.where(finite, grad_norm, run.grad_norm),
        jnp.where(grad_norm < 0.9 * run.best_norm, grad_norm, run.best_norm),
        jnp.where(finite, decrease, run.decrease),
        stalled,
        run.steps + 1,
        status,
        Evaluations(*(jnp.asarray(a + b, jnp.int32) for a, b in zip(run.evaluations, info.evaluations, strict=True))),
        path,
        None if run.trace is None else _record(run.trace, run.steps, after, grad_norm, info),
        jnp.where((status == Status.CONVERGED) & (grad_norm > run.tol), jnp.maximum(floor, grad_norm), run.tol).astype(
            run.tol.dtype
        ),
        jnp.where(finite, jnp.maximum(jnp.abs(after.value), 0.5 * run.magnitude), run.magnitude),
        run.by_slope | again,
    )


def _record(trace: Trace, row: Array, after: Point, grad_norm: Array, info: StepInfo) -> Trace:
    numbers = (after.value, grad_norm, jnp.asarray(info.step_size, trace.step_size.dtype))
    return Trace(*(column.at[row].set(number) for column, number in zip(trace, numbers, strict=True)))


def _follow(path: Path, before: Point, after: Point, info: StepInfo, steps: Array, grad_norm: Array) -> Path:
    distance = norm(after.params - before.params)
    bend = norm(after.grad - before.grad) / jnp.where(distance > 0, distance, 1)
    # far above the start the curvature is another: there it says nothing of the step that would have been stable
    near = (distance > 0) & jnp.isfinite(bend) & (before.value <= path.first_value + jnp.abs(path.first_value) + 1)
    rounded = rounding_along(after.params, after.params - before.params, after.grad - before.grad)
    power = (steps & (steps - 1)) == 0
    slope, size = dot(after.params - before.params, before.grad), norm(before.grad)
    straight = -slope > (1 - 1e-4) * distance * size
    return Path(
        path.first_value,
        jnp.fmin(path.best_value, after.value),
        jnp.asarray(info.step_size, path.step_size.dtype),
        jnp.where(straight, distance / jnp.where(size > 0, size, 1), 0),
        jnp.where(near, jnp.maximum(path.curvature, bend), path.curvature),
        jnp.where(power, path.last_step, path.half_step),
        jnp.where(power, path.last_norm, path.half_norm),
        jnp.where(power, steps, path.last_step),
        jnp.where(power, grad_norm, path.last_norm),
        jnp.where(near, jnp.maximum(0.5 * path.rounding, rounded), path.rounding),
    )


def advance(problem: Problem, method: Any, run: Run, tol: Array | None, max_steps: int, limit: Any) -> Run:
    """Steps until the run stops or has made `limit` of them."""

    def goes_on(run: Run) -> Array:
        return (run.status == Status.RUNNING) & (run.steps < limit)

    def body(run: Run) -> Run:
        # in a vmap the body also runs for lanes that have stopped; their inner loops should not
        return turn(dataclasses.replace(problem, running=goes_on(run)), method, run, tol, max_steps)

    return jax.lax.while_loop(goes_on, body, run)


def unrolled(problem: Problem, method: Any, run: Run, tol: Array | None, max_steps: int) -> Run:
    """As `advance` to the end, by a scan of `max_steps` turns: it can be differentiated in reverse."""

    def body(run: Run, _: None) -> tuple[Run, None]:
        running = run.status == Status.RUNNING
        new = turn(dataclasses.replace(problem, running=running), method, run, tol, max_steps)
        return choose(running, new, run), None

    return jax.lax.scan(body, run, None, length=max_steps)[0]
