r"""Least squares: Gauss-Newton and Levenberg-Marquardt for $f(x) = \tfrac12 \lVert r(x) \rVert^2$.

With the Jacobian $J$ of the residuals a step solves $(J^\top J + \lambda D^2)\, p = -J^\top r$. Gauss-Newton has
$\lambda = 0$, the step of least norm, and a line search along $p$. Levenberg-Marquardt has the $\lambda \ge 0$ at which
$\lVert D p \rVert$ is at most the radius $\delta$ of a trust region, which follows the ratio of the decrease to that of
the linear model. $D$ holds the largest norm so far of each column of $J$, so that a run does not depend on the units of
the params (Moré).

Damped steps say little of what is left to gain: the model without damping says it. A run goes on while Gauss and
Newton's step promises a decrease above rounding.

The Jacobian of an accepted point serves the next step, too, so a step costs one evaluation of the residuals and one of
the Jacobian. With `solver="cg"` it is not formed: the same step is made in a Krylov subspace of at most 50 dimensions,
and beyond 8 params the columns are estimated.

References:
    - Levenberg, https://doi.org/10.1090/qam/10666, 1944; Marquardt, https://doi.org/10.1137/0111030, 1963.
    - Moré, "The Levenberg-Marquardt algorithm: implementation and theory", https://doi.org/10.1007/BFb0067700, 1978.
"""

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

import jax.numpy as jnp

from jgd.core import Array, Scalar, check_choice, is_traced, tree_where
from jgd.minimizers.constrained._lbfgsb import bounds_of, project_to_bounds
from jgd.minimizers.least_squares._bounded_step import bounded_step
from jgd.minimizers.least_squares._damped_system import (
    Linear,
    Solver,
    column_norms,
    is_dense,
    least_norm_damping,
    linear_at,
    point_of,
    solve_dense,
)
from jgd.minimizers.least_squares._gain_ratio import Trial, region_after
from jgd.minimizers.least_squares._missing_curvature import Bends, missing_after, no_bends
from jgd.minimizers.least_squares._subspace import newton_step
from jgd.minimizers.least_squares._subspace_step import SubspaceState, first_state, subspace_step
from jgd.minimizers.least_squares._trust_step import Region, TrustStep, trust_step
from jgd.minimizers.line_searches._armijo import Armijo
from jgd.minimizers.line_searches._protocol import LineSearch, search_along
from jgd.minimizers.loop._fields import Evaluations
from jgd.minimizers.loop._stop import is_finite
from jgd.minimizers.methods._base import BaseMethod, StepInfo
from jgd.minimizers.problem._problem import Point, Problem, dot, max_norm, norm

Scaling = Literal["none", "columns"]


@dataclasses.dataclass(frozen=True)
class GaussNewton(BaseMethod):
    """Gauss-Newton with a line search; `fun` returns residuals.

    Args:
        line_search: The line search, from a step of one.
        solver: `"qr"` of the Jacobian, `"cg"` by products with it, or `"auto"` for the former up to 1,000 params.
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

    def jacobian(self, state: Linear | None) -> Array | None:
        """The Jacobian [m, n], where it is formed."""
        return None if state is None else state.matrix

    def step(self, problem: Problem, point: Point, state: Linear | None) -> tuple[Point, Linear | None, StepInfo]:
        """One step."""
        if state is None:
            step, count = newton_step(problem, point)
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
            # where the value cannot tell, the whole step is made if the gradient becomes smaller
            hidden = jnp.abs(slope) <= problem.noise(point.value)
            there = jnp.where(hidden, point.params + direction, new.params)
            after = linear_at(problem, there)
            tried = point_of(problem, there, after)
            moved = jnp.where(hidden, max_norm(tried.grad) < max_norm(point.grad), found.decreased) & is_finite(tried)
            extra = 1 if self.line_search.needs_slope else 0
            cost = Evaluations(cost.values + extra, cost.gradients + extra, count)
            new, state = tree_where(moved, (tried, after), (point, state))
            found = found._replace(decreased=moved, step=jnp.where(hidden, 1.0, found.step))
        return new, state, StepInfo(found.step, cost, ~found.decreased, found.decreased, jnp.abs(slope))


class LMState(NamedTuple):
    """What Levenberg-Marquardt carries.

    Attributes:
        region: The trust region.
        fresh: Whether no step has been accepted yet.
        scale: The scale [n].
        linear: The residuals and the Jacobian of the point.
        bends: What steps have shown of the curvature that the linear model lacks.
        resolved: The sizes of params [n] below which they count as 0, far below those of the start: a run towards 0
            has an end.
    """

    region: Region
    fresh: Array
    scale: Array
    linear: Linear
    bends: Bends
    resolved: Array


@dataclasses.dataclass(frozen=True)
class LevenbergMarquardt(BaseMethod):
    """Levenberg-Marquardt; `fun` returns residuals.

    Args:
        radius: The first radius of the trust region, relative to the scaled norm of the start (to 1 where that is 0).
        solver: `"qr"` of the Jacobian, `"cg"` by products with it, or `"auto"` for the former up to 1,000 params.
        scaling: `"columns"`: each param by the largest norm so far of its column of the Jacobian: a run does not
            depend on the units of the params. `"none"`: all alike.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimizers import minimize
        >>> t = jnp.arange(5.0)
        >>> data = 3.0 * jnp.exp(-0.5 * t)
        >>> fit = minimize(lambda p: p[0] * jnp.exp(p[1] * t) - data, jnp.array([1.0, -1.0]), method="lm", tol=1e-4)
        >>> print(fit.params.round(2))
        [ 3.  -0.5]
    """

    radius: Scalar = 1.0
    solver: Solver = "auto"
    scaling: Scaling = "columns"
    least_squares: ClassVar[bool] = True
    handles_bounds: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("LevenbergMarquardt", "solver", self.solver, Solver)
        check_choice("LevenbergMarquardt", "scaling", self.scaling, Scaling)
        if not is_traced(self.radius) and not self.radius > 0:
            raise ValueError(f"LevenbergMarquardt: radius must be above 0; got {self.radius}.")

    def point(self, problem: Problem, params: Array) -> Point:
        """The value and gradient at params."""
        if not is_dense(self.solver, params):
            return problem.point(params)
        return point_of(problem, params, linear_at(problem, params))

    def init(self, problem: Problem, point: Point) -> LMState | SubspaceState:
        """The first radius and scale."""
        if not is_dense(self.solver, point.params):
            return first_state(point, self.radius)
        dtype, linear = point.params.dtype, linear_at(problem, point.params)
        scale = self._scale(linear, jnp.zeros((), dtype)).astype(dtype)
        size = norm(jnp.where(scale > 0, scale, 1) * point.params)
        radius = jnp.asarray(self.radius, dtype) * jnp.where(size > 0, size, 1)
        region = Region(radius, jnp.zeros((), dtype), jnp.zeros_like(point.params))
        return LMState(
            region,
            jnp.array(True),
            scale,
            linear,
            no_bends(point.params),
            jnp.finfo(dtype).eps ** 0.5 * jnp.abs(point.params),
        )

    def _scale(self, linear: Linear, before: Array) -> Array:
        """The scale of a point [n]."""
        norms = column_norms(linear.matrix)
        if self.scaling == "none":
            norms = jnp.full_like(norms, jnp.max(norms, initial=0.0))
        return jnp.maximum(before, norms.astype(before.dtype))

    def measures_gain(self, params: Array) -> bool:
        """Always."""
        del params
        return True

    def jacobian(self, state: Any) -> Array | None:
        """The Jacobian [m, n], where it is formed."""
        return state.linear.matrix if isinstance(state, LMState) else None

    def trial(self, problem: Problem, point: Point, state: LMState, scale: Array) -> tuple[Array, TrustStep]:
        """Where to go [n], and the step to there."""
        unroll = problem.unrolled
        residuals, matrix = state.linear
        found = trust_step(matrix, residuals, scale, state.region, problem.running, unroll)
        return point.params + found.step.astype(point.params.dtype), found

    def bounded(self) -> "BoundedLevenbergMarquardt":
        """The same method within bounds.

        Raises:
            ValueError: The solver is `"cg"`.
        """
        return BoundedLevenbergMarquardt(self.radius, self.solver, self.scaling)

    def step(self, problem: Problem, point: Point, state: Any) -> tuple[Point, Any, StepInfo]:
        """One step."""
        if isinstance(state, SubspaceState):
            return subspace_step(problem, point, state, self.scaling == "columns")
        dtype, matrix = point.params.dtype, state.linear.matrix
        scale = self._scale(state.linear, state.scale)
        units = jnp.where(scale > 0, scale, 1)
        moved, found = self.trial(problem, point, state, units)
        step, change = found.step.astype(dtype), dot(matrix, found.step)
        slope = dot(point.grad, step)
        there = linear_at(problem, moved)
        tried = point_of(problem, moved, there)
        plain = -slope - 0.5 * dot(change, change)
        model = plain - 0.5 * dot(step, state.region.missing * step)
        size, eps = norm(units * step), jnp.finfo(dtype).eps
        trial = Trial(step, size, found.damping, model)
        region, accepted, decrease = region_after(problem, point, tried, state.region, state.fresh, trial)
        linear = tree_where(accepted, there, state.linear)
        bend = dot((there.matrix - matrix).T, there.residuals).astype(dtype)
        bends, missing = missing_after(state.bends, step, bend, size, plain, decrease, problem.noise(point.value))
        bends, missing = tree_where(accepted, (bends, missing), (state.bends, region.missing))
        after = LMState(region._replace(missing=missing), state.fresh & ~accepted, scale, linear, bends, state.resolved)
        # what rounding of the params makes of the residuals is not to be gained
        sizes = jnp.maximum(jnp.abs(point.params), state.resolved)
        rounded = norm(2 * eps * dot(jnp.abs(matrix), sizes.astype(matrix.dtype)))
        left = jnp.maximum(found.gain - 0.5 * rounded**2, 0)
        failed = ~accepted & (size <= eps * norm(units * point.params))
        info = StepInfo(norm(step), Evaluations(1, 1, 0), failed, accepted, jnp.abs(model), left)
        return tree_where(accepted, tried, point), after, info


@dataclasses.dataclass(frozen=True)
class BoundedLevenbergMarquardt(LevenbergMarquardt):
    """Levenberg-Marquardt where there are bounds: what `LevenbergMarquardt` becomes by itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.solver == "cg":
            raise ValueError(
                "LevenbergMarquardt: with bounds the Jacobian is formed; expected solver='qr' or 'auto', got 'cg'."
            )
        object.__setattr__(self, "solver", "qr")

    def bounded(self) -> "BoundedLevenbergMarquardt":
        """Itself."""
        return self

    def start(self, problem: Problem, params: Array) -> Array:
        """The nearest point inside the bounds; NaN where a lower bound is above its upper one."""
        return project_to_bounds(bounds_of(problem, params), params)

    def residual(self, problem: Problem, params: Array, grad: Array) -> Array:
        """The projected gradient [n]."""
        return params - jnp.clip(params - grad, *bounds_of(problem, params))

    def trial(self, problem: Problem, point: Point, state: LMState, scale: Array) -> tuple[Array, TrustStep]:
        """Where to go [n], and the step to there."""
        bounds, unroll = bounds_of(problem, point.params), problem.unrolled
        known = point.params, point.grad, state.linear, scale, state.region
        found = bounded_step(*known, bounds, problem.running, unroll)
        return jnp.clip(point.params + found.step.astype(point.params.dtype), *bounds), found
