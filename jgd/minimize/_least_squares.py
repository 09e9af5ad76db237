r"""Least squares: Gauss-Newton and Levenberg-Marquardt for $f(x) = \tfrac12 \lVert r(x) \rVert^2$.

With the Jacobian $J$ of the residuals a step solves $(J^\top J + \lambda D^2)\, p = -J^\top r$. Gauss-Newton has
$\lambda = 0$, the step of least norm, and a line search along $p$. Levenberg-Marquardt has a $\lambda$ that follows the
ratio $\rho$ of the decrease to that of the linear model (Nielsen): multiplied by $\max(a, 1 - (2\rho - 1)^3)$ where the
value decreases, else by $b$, $2b$, $4b$, ...

The Jacobian of an accepted point serves the next step, too, so a step costs one evaluation of the residuals and one of
the Jacobian.

References:
    - Levenberg, https://doi.org/10.1090/qam/10666, 1944; Marquardt, https://doi.org/10.1137/0111030, 1963.
    - Moré, "The Levenberg-Marquardt algorithm: implementation and theory", https://doi.org/10.1007/BFb0067700, 1978.
    - Nielsen, "Damping parameter in Marquardt's method", IMM-REP-1999-05, 1999.
"""

import dataclasses
from typing import ClassVar, Literal, NamedTuple

import jax.numpy as jnp

from jgd.core import Array, check_choice
from jgd.minimize._damped_system import (
    Linear,
    Solver,
    column_norms,
    is_dense,
    least_norm_damping,
    linear_at,
    point_of,
    solve_dense,
    step_by_cg,
)
from jgd.minimize._gain import gain_ratio
from jgd.minimize._line_search import LineSearch, search_along
from jgd.minimize._line_search_armijo import Armijo
from jgd.minimize._method import BaseMethod, StepInfo
from jgd.minimize._problem import Point, Problem, choose, dot, norm
from jgd.minimize._result import Evaluations

#: By how much a damping falls at most after a good step, and by what it grows after the first bad one.
FALL, RISE = 0.1, 4.0
#: The smallest damping: below it, its root may vanish in float32.
LEAST = 1e-30

Scaling = Literal["none", "columns"]


@dataclasses.dataclass(frozen=True)
class GaussNewton(BaseMethod):
    """Gauss-Newton with a line search; `fun` returns residuals.

    Args:
        line_search: The line search, from a step of one.
        solver: `"qr"` of the Jacobian, `"cg"` with its products only, or `"auto"` for the former up to 1,000 params.
    """

    line_search: LineSearch = dataclasses.field(default_factory=Armijo)
    solver: Solver = "auto"
    least_squares: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("GaussNewton", "solver", self.solver, Solver)

    def point(self, problem: Problem, params: Array) -> Point:
        """The value and gradient at params."""
        if not is_dense(self.solver, params):
            return problem.point(params)
        return point_of(problem, params, linear_at(problem, params))

    def init(self, problem: Problem, point: Point) -> Linear | None:
        """The Jacobian, unless only products with it are made."""
        return linear_at(problem, point.params) if is_dense(self.solver, point.params) else None

    def step(self, problem: Problem, point: Point, state: Linear | None) -> tuple[Point, Linear | None, StepInfo]:
        """One step."""
        zero = jnp.zeros((), point.params.dtype)
        if state is None:
            step, _, _, count = step_by_cg(problem, point, zero, zero)
        else:
            norms = column_norms(state.matrix)
            least = least_norm_damping(state.matrix)
            step = solve_dense(state.matrix, state.residuals, least, jnp.where(norms > 0, norms, 1))
            count = jnp.zeros((), jnp.int32)
        step = step.astype(point.params.dtype)
        slope = dot(step, point.grad)
        usable = (slope < 0) & jnp.all(jnp.isfinite(step))
        direction = jnp.where(usable, step, -point.grad)
        slope = jnp.where(usable, slope, -dot(point.grad, point.grad))
        new, found, cost = search_along(problem, point, direction, slope, 1.0, self.line_search)
        if state is None:
            cost = Evaluations(cost.values + 1, cost.gradients, count)
        else:
            # the gradient of a search that reads values only is not needed, and not computed: the Jacobian gives it
            after = choose(found.decreased, linear_at(problem, new.params), state)
            extra = 1 if self.line_search.needs_slope else 0
            state, cost = after, Evaluations(cost.values + extra, cost.gradients + extra, count)
            new = choose(found.decreased, point_of(problem, new.params, after), point)
        return new, state, StepInfo(found.step, cost, ~found.decreased, found.decreased, jnp.abs(slope))


class LMState(NamedTuple):
    """What Levenberg-Marquardt carries.

    Attributes:
        damping: The damping, relative to the squared scale.
        growth: What to multiply it by after a rejection.
        scale: The scale, a scalar or [n].
        linear: The residuals and the Jacobian of the point; None where only products with it are made.
    """

    damping: Array
    growth: Array
    scale: Array
    linear: Linear | None


@dataclasses.dataclass(frozen=True)
class LevenbergMarquardt(BaseMethod):
    """Levenberg-Marquardt; `fun` returns residuals.

    Args:
        damping: The first damping, relative to the squared norm of the Jacobian's largest column at the start.
        solver: `"qr"` of the Jacobian, `"cg"` with its products only, or `"auto"` for the former up to 1,000 params.
        scaling: `"none"`: all params are damped alike. `"columns"`: each by the largest norm so far of its column of
            the Jacobian (Moré), so that a run does not depend on the units of the params; that takes more steps where
            the start is far off. With CG always as `"none"`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimize import minimize
        >>> t = jnp.arange(5.0)
        >>> data = 3.0 * jnp.exp(-0.5 * t)
        >>> fit = minimize(lambda p: p[0] * jnp.exp(p[1] * t) - data, jnp.array([1.0, -1.0]), method="lm", tol=1e-4)
        >>> print(fit.params.round(2))
        [ 3.  -0.5]
    """

    damping: float | Array = 1e-4
    solver: Solver = "auto"
    scaling: Scaling = "none"
    least_squares: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("LevenbergMarquardt", "solver", self.solver, Solver)
        check_choice("LevenbergMarquardt", "scaling", self.scaling, Scaling)

    def point(self, problem: Problem, params: Array) -> Point:
        """The value and gradient at params."""
        if not is_dense(self.solver, params):
            return problem.point(params)
        return point_of(problem, params, linear_at(problem, params))

    def init(self, problem: Problem, point: Point) -> LMState:
        """The first damping and scale."""
        dtype = point.params.dtype
        damping, growth = jnp.asarray(self.damping, dtype), jnp.asarray(RISE, dtype)
        if not is_dense(self.solver, point.params):
            return LMState(damping, growth, jnp.zeros((), dtype), None)
        linear = linear_at(problem, point.params)
        norms = column_norms(linear.matrix).astype(dtype)
        return LMState(damping, growth, norms if self.scaling == "columns" else jnp.max(norms, initial=0.0), linear)

    def step(self, problem: Problem, point: Point, state: LMState) -> tuple[Point, LMState, StepInfo]:
        """One step."""
        dtype, linear, scale = point.params.dtype, state.linear, state.scale
        if linear is None:
            step, change, scale, count = step_by_cg(problem, point, state.damping, scale)
        else:
            if self.scaling == "columns":
                scale = jnp.maximum(scale, column_norms(linear.matrix).astype(dtype))
            step = solve_dense(linear.matrix, linear.residuals, state.damping, jnp.where(scale > 0, scale, 1))
            change, count = dot(linear.matrix, step), jnp.zeros((), jnp.int32)
        step = step.astype(dtype)
        model = -dot(point.grad, step) - 0.5 * dot(change, change)
        moved = point.params + step
        if linear is None:
            tried, cost = problem.point(moved), Evaluations(2, 1, count)
        else:
            there = linear_at(problem, moved)
            tried, cost = point_of(problem, moved, there), Evaluations(1, 1, 0)
        ratio = gain_ratio(problem, point, tried, model)
        accepted = ratio > 1e-4
        if linear is not None:
            linear = choose(accepted, there, linear)
        shrunk = state.damping * jnp.clip(1 - (2 * ratio - 1) ** 3, FALL, 2.0)
        damping = jnp.where(accepted, shrunk, state.damping * state.growth)
        growth = jnp.where(accepted, RISE, 2 * state.growth)
        after = LMState(jnp.maximum(damping, LEAST).astype(dtype), growth.astype(dtype), scale, linear)
        eps = jnp.finfo(dtype).eps
        failed = ~accepted & (norm(step) <= eps * jnp.maximum(norm(point.params), eps))
        info = StepInfo(norm(step), cost, failed, accepted, jnp.abs(model))
        return choose(accepted, tried, point), after, info
