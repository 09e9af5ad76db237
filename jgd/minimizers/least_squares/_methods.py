r"""Least squares: Gauss-Newton and Levenberg-Marquardt for $f(x) = \tfrac12 \lVert r(x) \rVert^2$.

With the Jacobian $J$ of the residuals a step solves $(J^\top J + \lambda D^2)\, p = -J^\top r$. Gauss-Newton has
$\lambda = 0$, the step of least norm, and a line search along $p$. Levenberg-Marquardt has the $\lambda \ge 0$ at which
$\lVert D p \rVert$ is at most the radius $\delta$ of a trust region, which follows the ratio of the decrease to that of
the linear model. $D$ holds the largest norm so far of each column of $J$, so that a run does not depend on the units of
the params (Moré).

A damped step says little of what is left to gain; the model without damping does. A run goes on while the step of
Gauss-Newton predicts a decrease above rounding.

The Jacobian of an accepted point serves the next step, too, so a step costs one evaluation of the residuals and one of
the Jacobian. With `solver="cg"` it is not formed: the same step is made in a Krylov subspace of at most 50 dimensions,
and beyond 8 params the columns are estimated.

References:
    - Levenberg, https://doi.org/10.1090/qam/10666, 1944; Marquardt, https://doi.org/10.1137/0111030, 1963.
    - Moré, "The Levenberg-Marquardt algorithm: implementation and theory", https://doi.org/10.1007/BFb0067700, 1978.
    - Transtrum and Sethna, https://arxiv.org/abs/1201.5885, 2012: the acceleration of steps.
"""

import dataclasses
from typing import ClassVar, Literal, NamedTuple

import jax.numpy as jnp

from jgd.core import Array, PyTree, Scalar, check_choice, is_traced, tree_where
from jgd.minimizers.constrained._lbfgsb import bounds_of, project_to_bounds
from jgd.minimizers.least_squares._bounded_step import bounded_step
from jgd.minimizers.least_squares._damped_system import (
    LinearModel,
    Solver,
    column_norms,
    is_dense,
    least_norm_damping,
    linear_model_at,
    point_of,
    residuals_of,
    solve_by_qr,
)
from jgd.minimizers.least_squares._gain_ratio import TrialStep, next_region
from jgd.minimizers.least_squares._geodesic import acceleration, better_step, second_derivative
from jgd.minimizers.least_squares._missing_curvature import CurvatureSums, update_missing_curvature, zero_sums
from jgd.minimizers.least_squares._subspace import gauss_newton_step
from jgd.minimizers.least_squares._subspace_step import SubspaceState, first_state, subspace_step
from jgd.minimizers.least_squares._trust_step import TrustRegion, TrustStep, trust_step
from jgd.minimizers.line_searches._armijo import Armijo
from jgd.minimizers.line_searches._protocol import LineSearch, search_along
from jgd.minimizers.loop._fields import Evaluations
from jgd.minimizers.loop._stop import is_finite
from jgd.minimizers.methods._base import BaseMethod, StepInfo
from jgd.minimizers.problem._problem import Point, Problem, dot, max_norm, norm

Scaling = Literal["none", "columns"]


class LeastSquaresMethod(BaseMethod):
    """What the methods for residuals share."""

    solver: Solver
    least_squares: ClassVar[bool] = True

    def point(self, problem: Problem, params: Array) -> Point:
        """The value and gradient at params."""
        if not is_dense(self.solver, params):
            return problem.point(params)
        return point_of(problem, params, linear_model_at(problem, params))

    def jacobian(self, state: PyTree) -> Array | None:
        """The Jacobian [m, n], where it is formed."""
        linear = getattr(state, "linear", None)
        return None if linear is None else linear.jacobian


class GaussNewtonState(NamedTuple):
    """The residuals and the Jacobian of the point; None where the Jacobian is not formed."""

    linear: LinearModel | None


@dataclasses.dataclass(frozen=True)
class GaussNewton(LeastSquaresMethod):
    """Gauss-Newton with a line search; `fun` returns residuals.

    Args:
        line_search: The line search, from a step of one.
        solver: `"qr"` of the Jacobian, `"cg"` by products with it, or `"auto"` for the former up to 1,000 params.
    """

    line_search: LineSearch = dataclasses.field(default_factory=Armijo)
    solver: Solver = "auto"

    def __post_init__(self) -> None:
        """Checks the solver."""
        check_choice("GaussNewton", "solver", self.solver, Solver)

    def init(self, problem: Problem, point: Point) -> GaussNewtonState:
        """The residuals and the Jacobian, where it is formed."""
        return GaussNewtonState(linear_model_at(problem, point.params) if is_dense(self.solver, point.params) else None)

    def step(self, problem: Problem, point: Point, state: GaussNewtonState) -> tuple[Point, GaussNewtonState, StepInfo]:
        """A line search along the step of least norm."""
        linear = state.linear
        if linear is None:
            step, products = gauss_newton_step(problem, point)
        else:
            norms = column_norms(linear.jacobian)
            damping = least_norm_damping(linear.jacobian)
            step = solve_by_qr(linear.jacobian, linear.residuals, damping, jnp.where(norms > 0, norms, 1))
            products = jnp.zeros((), jnp.int32)
        step = step.astype(point.params.dtype)
        slope = dot(step, point.grad)
        usable = (slope < 0) & jnp.all(jnp.isfinite(step))
        direction = jnp.where(usable, step, -point.grad)
        slope = jnp.where(usable, slope, -dot(point.grad, point.grad))
        new, result, cost = search_along(problem, point, direction, slope, 1.0, self.line_search)
        predicted = jnp.abs(slope)
        if linear is None:
            cost = Evaluations(cost.values + 1, cost.gradients, products)
            return new, state, StepInfo(result.step, cost, ~result.decreased, result.decreased, predicted)
        # the gradient of a search that reads values only is not needed, and not computed: the Jacobian gives it
        # where the value cannot tell, the whole step is made if the gradient becomes smaller
        hidden = predicted <= problem.noise(point.value)
        params = jnp.where(hidden, point.params + direction, new.params)
        new_linear = linear_model_at(problem, params)
        trial = point_of(problem, params, new_linear)
        smaller = max_norm(trial.grad) < max_norm(point.grad)
        accepted = jnp.where(hidden, smaller, result.decreased) & is_finite(trial)
        extra = 1 if self.line_search.needs_slope else 0
        cost = Evaluations(cost.values + extra, cost.gradients + extra, products)
        new, linear = tree_where(accepted, (trial, new_linear), (point, linear))
        info = StepInfo(jnp.where(hidden, 1.0, result.step), cost, ~accepted, accepted, predicted)
        return new, GaussNewtonState(linear), info


class LMState(NamedTuple):
    """What a step of Levenberg-Marquardt hands to the next.

    Attributes:
        region: The trust region.
        initial: Whether no step has been accepted yet.
        scale: The scale [n].
        linear: The residuals and the Jacobian of the point.
        sums: What steps have shown of the curvature that the linear model lacks.
        negligible: The sizes of params [n] below which they count as 0, far below those of the start: a run towards 0
            has an end.
    """

    region: TrustRegion
    initial: Array
    scale: Array
    linear: LinearModel
    sums: CurvatureSums
    negligible: Array


@dataclasses.dataclass(frozen=True)
class LevenbergMarquardt(LeastSquaresMethod):
    """Levenberg-Marquardt; `fun` returns residuals.

    Args:
        radius: The first radius of the trust region, relative to the scaled norm of the start (to 1 where that is 0).
        solver: `"qr"` of the Jacobian, `"cg"` by products with it, or `"auto"` for the former up to 1,000 params.
        scaling: `"columns"`: each param by the largest norm so far of its column of the Jacobian: a run does not
            depend on the units of the params. `"none"`: all alike.
        geodesic: Whether steps may follow the bend of the residuals, where there are no bounds. It costs two
            evaluations and a second derivative along the step, by forward mode, and saves most steps in long curved
            valleys.

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
    geodesic: bool = False
    handles_bounds: ClassVar[bool] = True
    measures_gain: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_choice("LevenbergMarquardt", "solver", self.solver, Solver)
        check_choice("LevenbergMarquardt", "scaling", self.scaling, Scaling)
        if not is_traced(self.radius) and not self.radius > 0:
            raise ValueError(f"LevenbergMarquardt: radius must be above 0; got {self.radius}.")

    def init(self, problem: Problem, point: Point) -> LMState | SubspaceState:
        """The first trust region and scale."""
        if not is_dense(self.solver, point.params):
            return first_state(point, self.radius)
        dtype, linear = point.params.dtype, linear_model_at(problem, point.params)
        scale = self._scale(linear, jnp.zeros((), dtype)).astype(dtype)
        size = norm(jnp.where(scale > 0, scale, 1) * point.params)
        radius = jnp.asarray(self.radius, dtype) * jnp.where(size > 0, size, 1)
        return LMState(
            region=TrustRegion(radius, jnp.zeros((), dtype), jnp.zeros_like(point.params)),
            initial=jnp.array(True),
            scale=scale,
            linear=linear,
            sums=zero_sums(point.params),
            negligible=jnp.finfo(dtype).eps ** 0.5 * jnp.abs(point.params),
        )

    def _scale(self, linear: LinearModel, last: Array) -> Array:
        """The scale of a point [n], at least the last one."""
        norms = column_norms(linear.jacobian)
        if self.scaling == "none":
            norms = jnp.full_like(norms, jnp.max(norms, initial=0.0))
        return jnp.maximum(last, norms.astype(last.dtype))

    def trial_step(self, problem: Problem, point: Point, state: LMState, scale: Array) -> tuple[Array, TrustStep]:
        """The trial params [n], and the step of the linear model that leads there."""
        residuals, jacobian = state.linear
        damped = trust_step(jacobian, residuals, scale, state.region, problem.running, problem.unrolled)
        step = damped.step.astype(point.params.dtype)
        if not self.geodesic:
            return point.params + step, damped
        bend = second_derivative(residuals_of(problem), point.params, step)
        weights = damped.damping + state.region.missing / scale**2
        extra = (acceleration(jacobian / scale, weights, bend) / scale).astype(step.dtype)
        return point.params + better_step(problem, point.params, step, extra), damped

    def bounded(self) -> "BoundedLevenbergMarquardt":
        """The same method within bounds.

        Raises:
            ValueError: The solver is `"cg"`.
        """
        return BoundedLevenbergMarquardt(self.radius, self.solver, self.scaling)

    def step(
        self, problem: Problem, point: Point, state: LMState | SubspaceState
    ) -> tuple[Point, LMState | SubspaceState, StepInfo]:
        """A step within the trust region, accepted where the value decreases."""
        if isinstance(state, SubspaceState):
            return subspace_step(problem, point, state, self.scaling == "columns", self.geodesic)
        dtype, jacobian, eps = point.params.dtype, state.linear.jacobian, jnp.finfo(point.params.dtype).eps
        largest = self._scale(state.linear, state.scale)
        scale = jnp.where(largest > 0, largest, 1)
        params, damped = self.trial_step(problem, point, state, scale)
        step, change = damped.step.astype(dtype), dot(jacobian, damped.step)
        slope = dot(point.grad, step)
        new_linear = linear_model_at(problem, params)
        new = point_of(problem, params, new_linear)
        linear_decrease = -slope - 0.5 * dot(change, change)
        predicted = linear_decrease - 0.5 * dot(step, state.region.missing * step)
        length = norm(scale * step)
        trial = TrialStep(step, length, damped.damping, predicted)
        region, accepted, decrease = next_region(problem, point, new, state.region, state.initial, trial)
        linear = tree_where(accepted, new_linear, state.linear)
        y = dot((new_linear.jacobian - jacobian).T, new_linear.residuals).astype(dtype)
        noise = problem.noise(point.value)
        travel = params - point.params if self.geodesic else step
        updated = update_missing_curvature(state.sums, travel, y, length, linear_decrease, decrease, noise)
        sums, missing = tree_where(accepted, updated, (state.sums, region.missing))
        region = region._replace(missing=missing)
        after = LMState(region, state.initial & ~accepted, largest, linear, sums, state.negligible)
        # what rounding of the params makes of the residuals is not to be gained
        sizes = jnp.maximum(jnp.abs(point.params), state.negligible)
        rounding = norm(2 * eps * dot(jnp.abs(jacobian), sizes.astype(jacobian.dtype)))
        remaining = jnp.maximum(damped.gain - 0.5 * rounding**2, 0)
        failed = ~accepted & (length <= eps * norm(scale * point.params))
        cost = Evaluations(3, 1, 1) if self.geodesic else Evaluations(1, 1, 0)
        info = StepInfo(norm(step), cost, failed, accepted, jnp.abs(predicted), remaining)
        return tree_where(accepted, new, point), after, info


@dataclasses.dataclass(frozen=True)
class BoundedLevenbergMarquardt(LevenbergMarquardt):
    """Levenberg-Marquardt within bounds: what `LevenbergMarquardt` becomes where there are some."""

    def __post_init__(self) -> None:
        """Checks the settings."""
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

    def trial_step(self, problem: Problem, point: Point, state: LMState, scale: Array) -> tuple[Array, TrustStep]:
        """The trial params [n], and the step to them, which is not accelerated: it ends where the bounds are."""
        bounds, known = bounds_of(problem, point.params), (point.params, point.grad, state.linear, scale, state.region)
        step = bounded_step(*known, bounds, problem.running, problem.unrolled)
        return jnp.clip(point.params + step.step.astype(point.params.dtype), *bounds), step
