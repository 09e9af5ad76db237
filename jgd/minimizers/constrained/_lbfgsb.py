r"""L-BFGS-B: L-BFGS within bounds $l \le x \le u$.

A step goes from $x$ along the path $P(x - t g)$ to the first minimizer of the quadratic model, the generalized Cauchy
point. Entries that are at a bound there are fixed; over the others the model has a minimizer $\hat x$. The line search
is along $P(\hat x) - x$; where that is no direction of descent, $\hat x$ is approached from the Cauchy point as far as
the bounds let it. Points never leave the bounds. A run ends where

$$
\lVert x - P(x - g) \rVert_\infty \le \mathrm{tol}
$$

A step takes $O(m^2 n)$ operations with $m$ pairs, and sorts $n$ numbers.

References:
    - Byrd, Lu, Nocedal and Zhu, "A limited memory algorithm for bound constrained optimization",
      https://doi.org/10.1137/0916069, 1995.
    - Morales and Nocedal, "Remark on algorithm 778: L-BFGS-B", https://doi.org/10.1145/2049662.2049669, 2011 (the
      projection).
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jgd.core import Array, check_integers, is_traced, tree_where
from jgd.minimizers.constrained._cauchy_point import cauchy_point
from jgd.minimizers.line_searches._protocol import LineSearch, search_along
from jgd.minimizers.line_searches._strong_wolfe import StrongWolfe
from jgd.minimizers.methods._base import BaseMethod, StepInfo
from jgd.minimizers.methods._compact_form import compact_form, solve, times
from jgd.minimizers.methods._lbfgs import LBFGSMemory, LBFGSState, add_pair, empty_memory, two_loop_recursion
from jgd.minimizers.problem._problem import Point, Problem, dot, norm, unit_step

Bounds = tuple[Array, Array]


def check_order(bounds: Bounds | None) -> None:
    """Refuses bounds that are known to be in the wrong order or NaN; traced ones pass.

    Raises:
        ValueError: A lower bound is above its upper bound, or one is NaN.
    """
    if bounds is None or any(is_traced(side) for side in bounds):
        return
    lower, upper = bounds
    wrong = ~(lower <= upper)
    if wrong.any():
        i = int(jnp.argmax(wrong))
        raise ValueError(
            f"minimize: lower bounds must be at most the upper ones; got {lower[i]} and {upper[i]} for entry {i} of"
            f" the raveled params ({int(wrong.sum())} of {wrong.size} are in the wrong order)."
        )


def bounds_of(problem: Problem, params: Array) -> Bounds:
    """The problem's bounds; infinite ones where it has none."""
    if problem.bounds is not None:
        return problem.bounds
    return jnp.full_like(params, -jnp.inf), jnp.full_like(params, jnp.inf)


def project_to_bounds(bounds: Bounds, params: Array) -> Array:
    """The nearest point inside the bounds [n]; NaN where a lower bound is above its upper one."""
    lower, upper = bounds
    return jnp.where(lower <= upper, jnp.clip(params, lower, upper), jnp.nan)


def max_feasible_step(params: Array, direction: Array, bounds: Bounds) -> Array:
    """The largest step length along a direction [n] that stays inside the bounds, a scalar."""
    params, direction, lower, upper = jax.lax.stop_gradient((params, direction, *bounds))
    room = jnp.where(direction > 0, upper - params, lower - params)
    moving = direction != 0
    return jnp.min(jnp.where(moving, room / jnp.where(moving, direction, 1), jnp.inf), initial=jnp.inf)


def model_minimizer(params: Array, grad: Array, bounds: Bounds, memory: LBFGSMemory) -> Array:
    """The minimizer of the quadratic model inside the bounds [n]; one before it where that is no descent direction."""
    scaled, matrix = memory.gamma * grad, compact_form(memory)
    cauchy, free = cauchy_point(params, scaled, bounds, matrix)
    # the minimizer of the model over the free entries, the others where the Cauchy point has them
    fixed_step = jnp.where(free, 0, cauchy - params)

    def over_free() -> Array:
        return solve(matrix, free, jnp.where(free, -(scaled + times(matrix, fixed_step)), 0))

    # with all of them free it is that of L-BFGS, whose recursion is exact where the pairs are nearly dependent
    step = jax.lax.cond(jnp.all(free), lambda: -two_loop_recursion(memory, grad), over_free)
    minimizer = jnp.where(free, params + step, cauchy)
    onward = minimizer - cauchy
    part = jnp.clip(max_feasible_step(cauchy, onward, bounds), 0, 1)
    # the last of these in a direction of descent; the first one always is
    target = params - scaled
    for candidate in (cauchy, cauchy + part * onward, minimizer):
        inside = jnp.clip(candidate, *bounds)
        slope = dot(inside - params, grad)
        target = jnp.where((slope < 0) & jnp.all(jnp.isfinite(inside)), inside, target)
    return jnp.clip(target, *bounds)


def smaller_gamma(memory: LBFGSMemory) -> Array:
    r"""$\langle s, y \rangle / \lVert y \rVert^2$ of the last pair: a larger $\gamma$ overshoots more often here."""
    rho, y = memory.rho[-1], memory.y[-1]
    known = rho > 0
    size = norm(jnp.where(known, y, 1))
    return jnp.where(known, 1 / jnp.where(known, rho, 1) / size / size, memory.gamma)


def clipped(problem: Problem, bounds: Bounds) -> Problem:
    """The problem whose params are clipped to the bounds first, where rounding has moved them out."""

    def replaced(inner: Problem) -> Problem:
        def fun(params: Array) -> Array:
            return inner.fun(params + jax.lax.stop_gradient(jnp.clip(params, *bounds) - params))

        return dataclasses.replace(inner, fun=fun)

    outer = replaced(problem)
    return outer if problem.detached is None else dataclasses.replace(outer, detached=replaced(problem.detached))


@dataclasses.dataclass(frozen=True)
class LBFGSB(BaseMethod):
    """L-BFGS-B, the default method of `minimize` where there are bounds.

    Args:
        memory: How many pairs to remember, at least 1.
        line_search: The line search; strong Wolfe by default.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimizers import LBFGSB, minimize
        >>> rosenbrock = lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
        >>> result = minimize(rosenbrock, jnp.zeros(2), method=LBFGSB(), bounds=(None, 0.5), tol=1e-3)
        >>> print(result.params.round(3), result.converged)
        [0.5  0.25] True
    """

    memory: int = 10
    line_search: LineSearch = dataclasses.field(default_factory=StrongWolfe)
    handles_bounds: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Checks the memory."""
        check_integers("LBFGSB", 1, memory=self.memory)

    def start(self, problem: Problem, params: Array) -> Array:
        """The nearest point inside the bounds; NaN where a lower bound is above its upper one."""
        return project_to_bounds(bounds_of(problem, params), params)

    def residual(self, problem: Problem, params: Array, grad: Array) -> Array:
        """The change of a projected gradient step of length 1, negative [n]."""
        return params - jnp.clip(params - grad, *bounds_of(problem, params))

    def init(self, problem: Problem, point: Point) -> LBFGSState:
        """An empty memory."""
        lower, upper = bounds_of(problem, point.params)
        first = unit_step(self.residual(problem, point.params, point.grad))
        # bounds on all sides give a scale: the first step goes along the gradient as far as they let it
        gamma = jnp.where(jnp.all(jnp.isfinite(upper - lower)), 1, first)
        return LBFGSState(empty_memory(self.memory, point.params, gamma), jnp.full((), jnp.inf, first.dtype))

    def warm(self, problem: Problem, point: Point, state: LBFGSState) -> LBFGSState:
        """The memory as it is."""
        return self.init(problem, point)._replace(memory=state.memory)

    def step(self, problem: Problem, point: Point, state: LBFGSState) -> tuple[Point, LBFGSState, StepInfo]:
        """A direction to the model's minimizer, a line search along it, and the pair that the step adds."""
        memory, last_predicted = state
        bounds = bounds_of(problem, point.params)
        direction = model_minimizer(point.params, point.grad, bounds, memory) - point.params
        slope = dot(direction, point.grad)
        max_step = jnp.maximum(1, max_feasible_step(point.params, direction, bounds))
        inside = clipped(problem, bounds)
        new, result, cost = search_along(inside, point, direction, slope, 1.0, self.line_search, max_step=max_step)
        new = new._replace(params=jnp.clip(new.params, *bounds))
        extended = add_pair(memory, new.params - point.params, new.grad - point.grad)
        # of an empty memory, the next step is as long as this one
        gamma = jnp.where(extended.empty, memory.gamma * result.step, smaller_gamma(extended))
        failed, predicted = ~result.decreased, jnp.abs(slope)
        # an emptied memory keeps its gamma, which is closer to the curvature than that of a first step
        emptied = empty_memory(self.memory, point.params, memory.gamma)
        after = LBFGSState(
            tree_where(failed, emptied, extended._replace(gamma=gamma)), jnp.where(failed, predicted, jnp.inf)
        )
        predicted = jnp.minimum(predicted, last_predicted)
        return new, after, StepInfo(result.step, cost, failed & memory.empty, result.decreased, predicted)
