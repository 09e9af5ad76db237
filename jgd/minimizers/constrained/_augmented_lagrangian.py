r"""The method of multipliers: an unconstrained method minimizes augmented Lagrangians, one after the other.

After each, $\lambda \leftarrow \lambda + \rho g$ and $\mu \leftarrow \max(0, \mu + \rho h)$; where the violation has
not fallen to a quarter, the penalty $\rho$ is multiplied by ten. The first minimizations are loose, the last ones as
tight as `tol`. A Lagrangian without a minimum is tried again with a larger penalty, from where the last one ended.

References:
    - Birgin and Martínez, "Practical augmented Lagrangian methods for constrained optimization",
      https://doi.org/10.1137/1.9781611973365, 2014, Algorithm 4.1 (safeguards, first penalty, infeasible problems).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.constrained._multipliers import Constraints, Forces, augmented, updated
from jgd.minimizers.loop import _loop
from jgd.minimizers.loop._fields import Status
from jgd.minimizers.loop._stop import TOL, gradient_floor
from jgd.minimizers.problem._problem import Problem, choose, dot, max_norm

#: By what the penalty grows, how often at most, and what the violation must become for it to stay.
GROWTH, MOST, ENOUGH = 10.0, 9, 0.25
#: The tolerance of the first minimization, and by what each next one is tighter.
LOOSE, TIGHTER = 0.1, 0.1
#: Minimizations at most, and those in a row without gain.
ROUNDS, PATIENCE = 60, 3


class Outer(NamedTuple):
    """What one minimization hands to the next.

    Attributes:
        run: The last run; its steps and evaluations are those of all.
        forces: The multipliers.
        penalty: The penalty.
        violation: How far the constraints are from being fulfilled.
        inner_tol: The tolerance of the next minimization.
        grown: How often the penalty has grown.
        rounds: Minimizations made.
        idle: Those in a row without gain.
        status: A code of `Status`.
    """

    run: _loop.Run
    forces: Forces
    penalty: Array
    violation: Array
    inner_tol: Array
    grown: Array
    rounds: Array
    idle: Array
    status: Array


def solve(
    problem: Problem, method: Any, held: Constraints, params: Array, tol: Array | None, max_steps: int, trace: bool
) -> Outer:
    """A whole run.

    Args:
        problem: The function without constraints.
        method: The method that minimizes each Lagrangian.
        held: The constraints.
        params: The start [n].
        tol: The bound of the gradient norm and of the violation; None for that of dtype and scale.
        max_steps: Steps of all minimizations together at most.
        trace: Whether to record them.

    Returns:
        Where it ended; the value of its run is that of the Lagrangian.
    """
    dtype, none = params.dtype, jnp.zeros((), jnp.int32)
    params = method.start(problem, params)
    forces = held.none(params)
    _, violation = updated(held, params, forces, jnp.ones((), dtype))
    g, h = held.equality(params), jnp.maximum(held.inequality(params), 0)
    square = 0.5 * (dot(g, g) + dot(h, h))
    value = jnp.abs(problem.fun(params)).astype(dtype)
    penalty = jnp.clip(10 * jnp.maximum(1, value) / jnp.maximum(1, square), 1e-2, 10).astype(dtype)
    run = _loop.start(_at(problem, held, forces, penalty), method, params, jnp.zeros((), dtype), max_steps, trace)
    goal = jnp.asarray(TOL if tol is None else tol, dtype)
    first = jnp.where(run.status == Status.NON_FINITE, run.status, Status.MAX_STEPS if max_steps == 0 else 0)
    inner = jnp.maximum(goal, LOOSE)
    state = Outer(run, forces, penalty, violation, inner, none, none, none, first.astype(jnp.int32))

    def body(state: Outer) -> Outer:
        return _round(problem, method, held, state, goal, tol is None, max_steps)

    return jax.lax.while_loop(lambda s: s.status == Status.RUNNING, body, state)


def _at(problem: Problem, held: Constraints, forces: Forces, penalty: Array) -> Problem:
    return dataclasses.replace(problem, fun=augmented(problem.fun, held, forces, penalty))


def _round(
    problem: Problem, method: Any, held: Constraints, s: Outer, goal: Array, by_dtype: bool, max_steps: int
) -> Outer:
    """One minimization, and what follows from it."""
    inner = _at(problem, held, s.forces, s.penalty)
    begun = _loop.start(inner, method, s.run.point.params, s.inner_tol, max_steps, False)
    begun = begun._replace(
        steps=s.run.steps,
        evaluations=jax.tree.map(jnp.add, s.run.evaluations, begun.evaluations),
        trace=s.run.trace,
    )
    run = _loop.advance(inner, method, begun, None if by_dtype else s.inner_tol, max_steps, max_steps)
    lost = jnp.isin(run.status, jnp.asarray([Status.UNBOUNDED, Status.DIVERGED, Status.NON_FINITE]))
    forces, violation = updated(held, run.point.params, s.forces, s.penalty)
    # a Lagrangian without a minimum says nothing: back to where it began
    back = s.run._replace(steps=run.steps, evaluations=run.evaluations, trace=run.trace)
    forces, violation = choose(lost, (s.forces, s.violation), (forces, violation))
    grow = lost | (violation > jnp.maximum(ENOUGH * s.violation, goal))
    grown = s.grown + grow
    tight = s.inner_tol <= goal
    # the size of the constraints' own rounding, where the tolerance is that of the dtype
    eps = jnp.finfo(goal.dtype).eps
    room = jnp.maximum(goal, 100 * eps * jnp.maximum(1, max_norm(run.point.params))) if by_dtype else goal
    bound = jnp.maximum(goal, gradient_floor(run.path)) if by_dtype else goal
    feasible = violation <= room
    gain = (violation < 0.9 * s.violation) | (run.grad_norm < 0.9 * s.run.grad_norm) | ~tight
    idle = jnp.where(gain & ~lost, 0, s.idle + 1)
    ended = (grown > MOST) | (idle >= PATIENCE) | (s.rounds + 1 >= ROUNDS)
    stuck = jnp.where(feasible & (run.status != Status.CONVERGED), run.status, Status.SMALL_DECREASE)
    stuck = jnp.where(feasible | (violation <= jnp.sqrt(goal)), stuck, Status.INFEASIBLE)
    stuck = jnp.where(lost, run.status, stuck)
    tests = [
        (~lost & feasible & (run.grad_norm <= bound), Status.CONVERGED),
        (run.steps >= max_steps, Status.MAX_STEPS),
        (ended, stuck),
    ]
    status = jnp.asarray(Status.RUNNING, jnp.int32)
    for condition, code in reversed(tests):
        status = jnp.where(condition, jnp.asarray(code, jnp.int32), status)
    found = choose(lost, back, run)
    found = found._replace(tol=jnp.where(status == Status.CONVERGED, jnp.maximum(bound, goal), goal))
    penalty = jnp.where(grow, GROWTH * s.penalty, s.penalty)
    inner_tol = jnp.maximum(goal, TIGHTER * s.inner_tol)
    return Outer(found, forces, penalty, violation, inner_tol, grown, s.rounds + 1, idle, status)
