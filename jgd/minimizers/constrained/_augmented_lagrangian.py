r"""The method of multipliers: an unconstrained method minimizes augmented Lagrangians, one after the other.

After each, $\lambda \leftarrow \lambda + \rho g$ and $\mu \leftarrow \max(0, \mu + \rho h)$; where the violation has
not fallen to a quarter, the penalty $\rho$ is multiplied by ten. The first minimizations are loose, the last ones as
tight as `tol`. A Lagrangian without a minimum is tried again with a larger penalty, from where the last one ended.

References:
    - Birgin and Martínez, "Practical augmented Lagrangian methods for constrained optimization",
      https://doi.org/10.1137/1.9781611973365, 2014, Algorithm 4.1 (safeguards, first penalty, infeasible problems).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, tree_where
from jgd.minimizers.constrained._multipliers import Constraints, FlatMultipliers, augmented_lagrangian, update
from jgd.minimizers.loop._fields import Status
from jgd.minimizers.loop._loop import Loop, RunState
from jgd.minimizers.loop._stop import TOL, gradient_floor, status_of
from jgd.minimizers.problem._problem import dot, max_norm

#: The factor by which the penalty grows, how often at most, and the part of the last violation below which it stays.
GROWTH, MAX_GROWTHS, SUFFICIENT = 10.0, 9, 0.25
#: The tolerance of the first minimization, and the factor by which each next one is tighter.
LOOSE, TIGHTER = 0.1, 0.1
#: Minimizations at most, and those in a row without gain.
MAX_MINIMIZATIONS, PATIENCE = 60, 3


class OuterState(NamedTuple):
    """What one minimization hands to the next.

    Attributes:
        run: The last run; its steps and evaluations are those of all.
        multipliers: The multipliers.
        penalty: The penalty.
        violation: By how much the constraints are violated.
        inner_tol: The tolerance of the next minimization.
        growths: How often the penalty has grown.
        minimizations: Minimizations made.
        idle: Those in a row without gain.
        status: A code of `Status`.
    """

    run: RunState
    multipliers: FlatMultipliers
    penalty: Array
    violation: Array
    inner_tol: Array
    growths: Array
    minimizations: Array
    idle: Array
    status: Array


def minimize_constrained(
    loop: Loop, constraints: Constraints, params: Array, tol: Array | None, trace: bool
) -> OuterState:
    """A run of the method of multipliers.

    Args:
        loop: The method that minimizes each Lagrangian, on the problem without constraints; its `max_steps` bounds the
            steps of all minimizations together.
        constraints: The constraints.
        params: The start [n].
        tol: The bound of the gradient norm and of the violation; None for one by dtype and scale.
        trace: Whether to record the steps.

    Returns:
        Where it ended; the value of its run is that of the Lagrangian.
    """
    dtype, zero = params.dtype, jnp.zeros((), jnp.int32)
    params = loop.method.start(loop.problem, params)
    multipliers = constraints.zero_multipliers(params)
    _, violation = update(constraints, params, multipliers, jnp.ones((), dtype))
    g, h = constraints.equality(params), jnp.maximum(constraints.inequality(params), 0)
    square = 0.5 * (dot(g, g) + dot(h, h))
    value = jnp.abs(loop.problem.fun(params)).astype(dtype)
    penalty = jnp.clip(10 * jnp.maximum(1, value) / jnp.maximum(1, square), 1e-2, 10).astype(dtype)
    run = _inner(loop, constraints, multipliers, penalty).init(params, jnp.zeros((), dtype), trace=trace)
    goal = jnp.asarray(TOL if tol is None else tol, dtype)
    first = Status.MAX_STEPS if loop.max_steps == 0 else Status.RUNNING
    status = jnp.where(run.status == Status.NON_FINITE, run.status, first).astype(jnp.int32)
    state = OuterState(run, multipliers, penalty, violation, jnp.maximum(goal, LOOSE), zero, zero, zero, status)

    def body(state: OuterState) -> OuterState:
        return _minimization(loop, constraints, state, goal)

    return jax.lax.while_loop(lambda s: s.status == Status.RUNNING, body, state)


def _inner(loop: Loop, constraints: Constraints, multipliers: FlatMultipliers, penalty: Array) -> Loop:
    """The loop that minimizes the augmented Lagrangian."""
    fun = augmented_lagrangian(loop.problem.fun, constraints, multipliers, penalty)
    return dataclasses.replace(loop, problem=dataclasses.replace(loop.problem, fun=fun))


def _minimization(loop: Loop, constraints: Constraints, s: OuterState, goal: Array) -> OuterState:
    """One minimization, and what follows from it."""
    inner = _inner(loop, constraints, s.multipliers, s.penalty)
    run = inner.init(s.run.point.params, s.inner_tol)
    run = run._replace(
        steps=s.run.steps,
        evaluations=jax.tree.map(jnp.add, s.run.evaluations, run.evaluations),
        trace=s.run.trace,
    )
    run = inner.iterate(run, loop.max_steps)
    lost = jnp.isin(run.status, jnp.asarray([Status.UNBOUNDED, Status.DIVERGED, Status.NON_FINITE]))
    multipliers, violation = update(constraints, run.point.params, s.multipliers, s.penalty)
    # a Lagrangian without a minimum tells nothing: the run goes back to where it began
    back = s.run._replace(steps=run.steps, evaluations=run.evaluations, trace=run.trace)
    multipliers, violation = tree_where(lost, (s.multipliers, s.violation), (multipliers, violation))
    grow = lost | (violation > jnp.maximum(SUFFICIENT * s.violation, goal))
    growths = s.growths + grow
    tight = s.inner_tol <= goal
    feasible_tol, bound = _bounds(loop, run, goal)
    feasible = violation <= feasible_tol
    gain = (violation < 0.9 * s.violation) | (run.grad_norm < 0.9 * s.run.grad_norm) | ~tight
    idle = jnp.where(gain & ~lost, 0, s.idle + 1)
    ended = (growths > MAX_GROWTHS) | (idle >= PATIENCE) | (s.minimizations + 1 >= MAX_MINIMIZATIONS)
    reason = jnp.where(feasible & (run.status != Status.CONVERGED), run.status, Status.SMALL_DECREASE)
    reason = jnp.where(feasible | (violation <= jnp.sqrt(goal)), reason, Status.INFEASIBLE)
    reason = jnp.where(lost, run.status, reason)
    status = status_of(
        [
            (~lost & feasible & (run.grad_norm <= bound), Status.CONVERGED),
            (run.steps >= loop.max_steps, Status.MAX_STEPS),
            (ended, reason),
        ]
    )
    run = tree_where(lost, back, run)
    run = run._replace(tol=jnp.where(status == Status.CONVERGED, jnp.maximum(bound, goal), goal))
    penalty = jnp.where(grow, GROWTH * s.penalty, s.penalty)
    inner_tol = jnp.maximum(goal, TIGHTER * s.inner_tol)
    return OuterState(run, multipliers, penalty, violation, inner_tol, growths, s.minimizations + 1, idle, status)


def _bounds(loop: Loop, run: RunState, goal: Array) -> tuple[Array, Array]:
    """The bounds of the violation and of the gradient norm: no lower than rounding where no tolerance was given."""
    if not loop.automatic_tol:
        return goal, goal
    size = jnp.maximum(1, max_norm(run.point.params))
    return jnp.maximum(goal, 100 * jnp.finfo(goal.dtype).eps * size), jnp.maximum(goal, gradient_floor(run.path))
