"""The loop that runs any method: one `lax.while_loop`, or a `lax.scan` where it is to be differentiated."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree, tree_where
from jgd.minimizers.loop._fields import Evaluations, Path, Status, Trace
from jgd.minimizers.loop._stop import (
    GROWTH,
    Step,
    default_tol,
    gradient_floor,
    initial_status,
    is_finite,
    next_status,
    rounding_along,
)
from jgd.minimizers.methods._base import BaseMethod
from jgd.minimizers.problem._problem import Point, Problem, dot, norm


class RunState(NamedTuple):
    """What one step of a run hands to the next.

    Attributes:
        point: The params with their value and gradient.
        state: The method's state.
        grad_norm: The measure that is compared with the tolerance, at the point.
        best_norm: The smallest one so far, replaced by one that is a tenth smaller.
        decrease: By how much the last step decreased the value.
        stalled: Steps in a row without progress above rounding.
        steps: Steps made.
        status: A code of `Status`.
        evaluations: Evaluations made.
        path: Numbers of the path.
        trace: The run step by step, or None.
        tol: The tolerance.
        magnitude: The largest values of late: where terms cancel, rounding is relative to them.
        by_slope: Whether line searches count on that rounding, and so go by the slopes.
    """

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


@dataclasses.dataclass(frozen=True)
class Loop:
    """A method at work on a problem.

    Attributes:
        problem: The problem.
        method: The method.
        max_steps: Steps at most.
        automatic_tol: Whether no tolerance was given. Then a run has also converged where it stands still and rounding
            of the params decides what the gradient is.
    """

    problem: Problem
    method: BaseMethod
    max_steps: int
    automatic_tol: bool

    def init(self, params: Array, tol: Array | None, *, trace: bool = False) -> RunState:
        """The state before the first step, from params [n]; `tol` is None for one by dtype and scale."""
        problem, method = self.problem, self.method
        point = method.point(problem, method.start(problem, params))
        grad_norm = method.stationarity(problem, point)
        zero = jnp.zeros((), jnp.int32)
        path = _first_path(point, grad_norm)
        tol = default_tol(method, point, grad_norm) if tol is None else tol

        def empty(like: Array) -> Array:
            return jnp.full(self.max_steps, jnp.nan, like.dtype)

        return RunState(
            point=point,
            state=method.init(problem, point),
            grad_norm=grad_norm,
            best_norm=grad_norm,
            decrease=jnp.zeros_like(point.value),
            stalled=zero,
            steps=zero,
            status=initial_status(point, grad_norm, tol, self.max_steps),
            evaluations=Evaluations(zero + 1, zero + 1, zero),
            path=path,
            trace=Trace(empty(point.value), empty(grad_norm), empty(grad_norm)) if trace else None,
            tol=tol,
            magnitude=jnp.abs(point.value),
            by_slope=jnp.array(False),
        )

    def step(self, run: RunState) -> RunState:
        """The state after one step more."""
        before = run.point
        problem = dataclasses.replace(self.problem, magnitude=jnp.where(run.by_slope, run.magnitude, 0))
        after, state, info = self.method.step(problem, before, run.state)
        grad_norm = self.method.stationarity(problem, after)
        step = Step(before, after, info, grad_norm)
        stalled = _stalled(problem, run, step)
        path = _follow(run.path, step, run.steps + 1)
        # where terms cancel, rounding is that of larger values than the last one: such a search goes by the slopes
        wide = dataclasses.replace(problem, magnitude=run.magnitude)
        retry = jnp.asarray(info.failed) & ~run.by_slope & wide.at_floor(before, info.predicted)
        retry &= ~self.problem.at_floor(before, info.predicted)
        floor = gradient_floor(path) if self.automatic_tol else 0.0
        status = next_status(
            problem,
            step,
            path,
            tol=run.tol,
            floor=floor,
            stalled=stalled,
            last=run.steps + 1 >= self.max_steps,
            retry=retry,
            automatic_tol=self.automatic_tol,
        )
        # where the step has left the finite numbers, the last finite point is the result
        finite = is_finite(after)
        at_floor = (status == Status.CONVERGED) & (grad_norm > run.tol)
        costs = zip(run.evaluations, info.evaluations, strict=True)
        return RunState(
            point=tree_where(finite, after, before),
            state=state,
            grad_norm=jnp.where(finite, grad_norm, run.grad_norm),
            best_norm=jnp.where(grad_norm < 0.9 * run.best_norm, grad_norm, run.best_norm),
            decrease=jnp.where(finite, before.value - after.value, run.decrease),
            stalled=stalled,
            steps=run.steps + 1,
            status=status,
            evaluations=Evaluations(*(jnp.asarray(a + b, jnp.int32) for a, b in costs)),
            path=path,
            trace=None if run.trace is None else _record(run.trace, run.steps, step),
            tol=jnp.where(at_floor, jnp.maximum(floor, grad_norm), run.tol).astype(run.tol.dtype),
            magnitude=jnp.where(finite, jnp.maximum(jnp.abs(after.value), 0.5 * run.magnitude), run.magnitude),
            by_slope=run.by_slope | retry,
        )

    def iterate(self, run: RunState, limit: Array | int) -> RunState:
        """Steps until the run ends or has made `limit` of them."""

        def cond(run: RunState) -> Array:
            return (run.status == Status.RUNNING) & (run.steps < limit)

        def body(run: RunState) -> RunState:
            # in a vmap the body also runs for lanes that have ended; their inner loops should not
            return self._while_running(cond(run)).step(run)

        return jax.lax.while_loop(cond, body, run)

    def unroll(self, run: RunState) -> RunState:
        """All steps by a scan of `max_steps` of them: it can be differentiated in reverse."""

        def body(run: RunState, _: None) -> tuple[RunState, None]:
            running = run.status == Status.RUNNING
            return tree_where(running, self._while_running(running).step(run), run), None

        return jax.lax.scan(body, run, None, length=self.max_steps)[0]

    def _while_running(self, running: Array) -> "Loop":
        return dataclasses.replace(self, problem=dataclasses.replace(self.problem, running=running))


def _stalled(problem: Problem, run: RunState, step: Step) -> Array:
    """Steps in a row without progress above rounding, with this one."""
    before, after, info, grad_norm = step
    # values that go up and down by their rounding are no progress
    progress = run.path.best_value - after.value > problem.eps * jnp.abs(after.value)
    hidden = jnp.abs(before.value - after.value) <= problem.noise(after.value)
    idle = ~progress & hidden & ~(grad_norm < 0.9 * run.best_norm)
    idle &= jnp.asarray(info.remaining is None or problem.at_floor(before, info.remaining))
    # a run that leaves a saddle point does not stand still, small as the decreases are
    leaving = (grad_norm > run.grad_norm) & (grad_norm > GROWTH * run.best_norm)
    return jnp.where(info.accepted, jnp.where(idle, run.stalled + ~leaving, 0), run.stalled)


def _record(trace: Trace, row: Array, step: Step) -> Trace:
    numbers = (step.after.value, step.grad_norm, jnp.asarray(step.info.step_size, trace.step_size.dtype))
    return Trace(*(column.at[row].set(number) for column, number in zip(trace, numbers, strict=True)))


def _first_path(point: Point, grad_norm: Array) -> Path:
    zero, none = jnp.zeros_like(grad_norm), jnp.zeros((), jnp.int32)
    return Path(
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


def _follow(path: Path, step: Step, steps: Array) -> Path:
    before, after, info, grad_norm = step
    s, y = after.params - before.params, after.grad - before.grad
    distance, size = norm(s), norm(before.grad)
    curvature = norm(y) / jnp.where(distance > 0, distance, 1)
    # far above the start the curvature is another: there it says nothing of the step that would have been stable
    near = before.value <= path.first_value + jnp.abs(path.first_value) + 1
    near = (distance > 0) & jnp.isfinite(curvature) & near
    rounding = rounding_along(after.params, s, y)
    power_of_two = (steps & (steps - 1)) == 0
    straight = -dot(s, before.grad) > (1 - 1e-4) * distance * size
    return Path(
        first_value=path.first_value,
        best_value=jnp.fmin(path.best_value, after.value),
        step_size=jnp.asarray(info.step_size, path.step_size.dtype),
        rate=jnp.where(straight, distance / jnp.where(size > 0, size, 1), 0),
        curvature=jnp.where(near, jnp.maximum(path.curvature, curvature), path.curvature),
        half_step=jnp.where(power_of_two, path.last_step, path.half_step),
        half_norm=jnp.where(power_of_two, path.last_norm, path.half_norm),
        last_step=jnp.where(power_of_two, steps, path.last_step),
        last_norm=jnp.where(power_of_two, grad_norm, path.last_norm),
        rounding=jnp.where(near, jnp.maximum(0.5 * path.rounding, rounding), path.rounding),
    )
