r"""Least squares: Gauss-Newton and Levenberg-Marquardt for $f(x) = \tfrac12 \lVert r(x) \rVert^2$.

With the Jacobian $J$ of the residuals a step solves $(J^\top J + \lambda D^2)\, p = -J^\top r$. Gauss-Newton has
$\lambda = 0$ and a line search along $p$. Levenberg-Marquardt has $D$ = the largest norms of the columns of $J$ so far
(Moré), so that it does not depend on the units of the params, and a $\lambda$ that follows the ratio $\rho$ of the
decrease to that of the linear model (Nielsen): multiplied by $\max(1/3, 1 - (2\rho - 1)^3)$ where the value decreases,
else by 2, 4, 8, ...

References:
    - Levenberg, https://doi.org/10.1090/qam/10666, 1944; Marquardt, https://doi.org/10.1137/0111030, 1963.
    - Moré, "The Levenberg-Marquardt algorithm: implementation and theory", https://doi.org/10.1007/BFb0067700, 1978.
    - Nielsen, "Damping parameter in Marquardt's method", IMM-REP-1999-05, 1999.
"""

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, check_choice
from jgd.minimize._damped_system import jacobian, solve_by_cg, solve_dense
from jgd.minimize._gain import gain_ratio
from jgd.minimize._line_search import LineSearch, search_along
from jgd.minimize._line_search_armijo import Armijo
from jgd.minimize._method import BaseMethod, StepInfo
from jgd.minimize._problem import Point, Problem, dot, norm
from jgd.minimize._result import Evaluations

#: With "auto", systems of up to so many params are solved by a QR factorization.
DENSE = 1000

Solver = Literal["auto", "qr", "cg"]


def _residuals(problem: Problem) -> Any:
    if problem.residuals is None:
        raise TypeError("minimize: this method needs residuals; fun must return them, not their sum of squares.")
    return problem.residuals


def _is_dense(solver: Solver, size: int) -> bool:
    return solver == "qr" or (solver == "auto" and size <= DENSE)


def _step(
    problem: Problem, point: Point, solver: Solver, damping: Array, widest: Array
) -> tuple[Array, Array, Array, Array]:
    """The step [n], the linear model's decrease, the scale used, and products made."""
    residuals, dense = _residuals(problem), _is_dense(solver, point.params.size)
    if dense:
        values, matrix = jacobian(residuals, point.params)
        scale = jnp.maximum(widest, jnp.linalg.norm(matrix, axis=0))
        safe = jnp.where(scale > 0, scale, 1)
        step = solve_dense(matrix, values, damping, safe)
        linear = matrix @ step
        count = jnp.zeros((), jnp.int32)
    else:
        _, push = jax.linearize(residuals, point.params)
        pull = jax.linear_transpose(push, point.params)
        size = norm(point.grad)
        along = norm(push(point.grad)) / jnp.where(size > 0, size, 1)
        scale = jnp.maximum(widest, along)
        safe = jnp.where(scale > 0, scale, 1)
        most = max(50, point.params.size)
        step, count = solve_by_cg(push, lambda v: pull(v)[0], point.grad, damping, safe, most, problem.running)
        linear, count = push(step), count + 1
    model = -dot(point.grad, step) - 0.5 * dot(linear, linear)
    return step, model, scale, count


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

    def init(self, problem: Problem, point: Point) -> tuple[()]:
        """No state."""
        del problem, point
        return ()

    def step(self, problem: Problem, point: Point, state: tuple[()]) -> tuple[Point, tuple[()], StepInfo]:
        """One step."""
        zero = jnp.zeros((), point.params.dtype)
        step, _, _, count = _step(problem, point, self.solver, zero, jnp.zeros_like(point.params))
        slope = dot(step, point.grad)
        usable = (slope < 0) & jnp.all(jnp.isfinite(step))
        direction = jnp.where(usable, step, -point.grad)
        slope = jnp.where(usable, slope, -dot(point.grad, point.grad))
        new, found, cost = search_along(problem, point, direction, slope, 1.0, self.line_search)
        cost = Evaluations(cost.values, cost.gradients + 1, count)
        return new, state, StepInfo(found.step, cost, ~found.decreased, found.decreased, jnp.abs(slope))


class LMState(NamedTuple):
    """The damping, what to multiply it by after a rejection, and the largest norms of the Jacobian's columns [n]."""

    damping: Array
    growth: Array
    scale: Array


@dataclasses.dataclass(frozen=True)
class LevenbergMarquardt(BaseMethod):
    """Levenberg-Marquardt; `fun` returns residuals.

    Args:
        damping: The first damping, relative to the squared norms of the Jacobian's columns.
        solver: `"qr"` of the Jacobian, `"cg"` with its products only, or `"auto"` for the former up to 1,000 params.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimize import minimize
        >>> t = jnp.arange(5.0)
        >>> data = 3.0 * jnp.exp(-0.5 * t)
        >>> fit = minimize(lambda p: p[0] * jnp.exp(p[1] * t) - data, jnp.array([1.0, -1.0]), method="lm", tol=1e-4)
        >>> print(fit.params.round(2))
        [ 3.  -0.5]
    """

    damping: float = 1e-3
    solver: Solver = "auto"
    least_squares: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("LevenbergMarquardt", "solver", self.solver, Solver)

    def init(self, problem: Problem, point: Point) -> LMState:
        """The first damping, and no scale yet."""
        del problem
        dtype = point.params.dtype
        return LMState(jnp.asarray(self.damping, dtype), jnp.asarray(2, dtype), jnp.zeros_like(point.params))

    def step(self, problem: Problem, point: Point, state: LMState) -> tuple[Point, LMState, StepInfo]:
        """One step."""
        step, model, scale, count = _step(problem, point, self.solver, state.damping, state.scale)
        tried = problem.point(point.params + step)
        ratio = gain_ratio(problem, point, tried, model)
        accepted = ratio > 1e-4
        shrunk = state.damping * jnp.clip(1 - (2 * ratio - 1) ** 3, 1 / 3, 2.0)
        damping = jnp.where(accepted, shrunk, state.damping * state.growth)
        growth = jnp.where(accepted, 2.0, 2 * state.growth)
        tiny = jnp.finfo(damping.dtype).tiny
        state = LMState(jnp.maximum(damping, tiny).astype(step.dtype), growth.astype(step.dtype), scale)
        new = Point(*(jnp.where(accepted, a, b) for a, b in zip(tried, point, strict=True)))
        eps = jnp.finfo(step.dtype).eps
        failed = ~accepted & (norm(step) <= eps * jnp.maximum(norm(point.params), eps))
        return new, state, StepInfo(norm(step), Evaluations(1, 2, count), failed, accepted, jnp.abs(model))
