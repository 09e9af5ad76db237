r"""Proximal gradient: the sum of a smooth function and a penalty that is not, $f(x) + h(x)$.

$$
x_{k+1} = \operatorname{prox}_{t h}(y_k - t \nabla f(y_k)), \qquad y_{k+1} = x_{k+1} + \beta_k (x_{k+1} - x_k)
$$

with $\beta_k = (\theta_k - 1) / \theta_{k+1}$, $\theta_{k+1} = (1 + \sqrt{1 + 4 \theta_k^2}) / 2$ (FISTA), or
$\beta_k = 0$ (ISTA). Where the momentum points uphill, $\langle y_k - x_{k+1}, x_{k+1} - x_k \rangle > 0$, it restarts
from $\theta = 1$. The step length $t$ is the learning rate, or the longest that the curvature along the step allows: it
shrinks where it was too long, and grows again where the curvature is smaller.

Params are $x_k$, so that zeros are zeros and constraints hold. A step of FISTA takes a gradient at $y_k$ and one at
$x_{k+1}$, a step of ISTA the latter only. The run has converged where $x - \operatorname{prox}_h(x - \nabla f(x))$ is
at most `tol` in every entry.

References:
    - Beck and Teboulle, "A fast iterative shrinkage-thresholding algorithm", https://doi.org/10.1137/080716542, 2009.
    - O'Donoghue and Candès, "Adaptive restart for accelerated gradient schemes", https://arxiv.org/abs/1204.3982, 2012.
    - Scheinberg, Goldfarb and Bai, "Fast first-order methods for composite convex optimization with backtracking",
      https://doi.org/10.1007/s10208-014-9189-9, 2014 (steps that grow again).
"""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp

from jgd.core import Array, ArrayLike, Scalar, tree_where
from jgd.minimizers.constrained._penalties import Penalty
from jgd.minimizers.line_searches._backtracking import BacktrackingResult, Trial, backtrack
from jgd.minimizers.loop._fields import Evaluations
from jgd.minimizers.loop._stop import is_finite
from jgd.minimizers.methods._base import BaseMethod, StepInfo
from jgd.minimizers.problem._problem import Point, Problem, apply_to_tree, dot, norm


class ProximalState(NamedTuple):
    r"""What a step hands to the next.

    Attributes:
        last_params: The params before the last step [n].
        smooth: The value of the smooth function alone.
        theta: $\theta$, 1 where there is no momentum.
        step_size: The step size to try first.
        growth: The factor by which it may grow: large at first, small once a step was too long.
    """

    last_params: Array
    smooth: Array
    theta: Array
    step_size: Array
    growth: Array


@dataclasses.dataclass(frozen=True)
class ProximalGradient(BaseMethod):
    r"""Minimizes $f + h$, for a smooth function `fun` and a penalty such as `L1(0.1)`: FISTA, or ISTA.

    Args:
        penalty: `L1`, `NonNegativeL1`, `ElasticNet`, `GroupLasso`, `Indicator`, or any object with `value(params)` and
            `prox(params, step)`. The value of the result is that of the sum.
        learning_rate: The step size, at most 1/L; None to find it in each step.
        accelerated: Whether to use momentum (FISTA).
        restart: Whether to drop the momentum where it points uphill.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimizers import L1, ProximalGradient, minimize
        >>> fun = lambda x: 0.5 * jnp.sum((x - jnp.array([3.0, 0.5, -2.0])) ** 2)
        >>> result = minimize(fun, jnp.zeros(3), method=ProximalGradient(L1(1.0)))
        >>> print(result.params.round(2), result.value.round(3))
        [ 2.  0. -1.] 4.125
    """

    penalty: Penalty
    learning_rate: Scalar | None = None
    accelerated: bool = True
    restart: bool = True

    def __post_init__(self) -> None:
        """Checks the penalty."""
        if not (hasattr(self.penalty, "prox") and hasattr(self.penalty, "value")):
            raise TypeError(
                "ProximalGradient: penalty must be an object with value(params) and prox(params, step), such as"
                f" L1(0.1) or Indicator(projection); got a {type(self.penalty).__name__}."
            )

    def start(self, problem: Problem, params: Array) -> Array:
        """The nearest params where the penalty is finite."""
        project: Any = getattr(self.penalty, "project", None)
        return params if project is None else problem.ravel(project(problem.unravel(params)))

    def point(self, problem: Problem, params: Array) -> Point:
        """The value of the sum, and the gradient of `fun` alone."""
        return self._with_penalty(problem, problem.point(params))

    def residual(self, problem: Problem, params: Array, grad: Array) -> Array:
        """The change of a step of size 1."""
        return params - self._prox(problem, params - grad, 1.0)

    def init(self, problem: Problem, point: Point) -> ProximalState:
        """No momentum."""
        one, size = jnp.ones((), point.params.dtype), norm(point.grad)
        step = 1 / jnp.where(size > 0, size, 1) if self.learning_rate is None else self.learning_rate
        smooth = point.value - self._penalty(problem, point.params, point.value)
        return ProximalState(point.params, smooth, one, jnp.asarray(step, one.dtype), 10 * one)

    def step(self, problem: Problem, point: Point, state: ProximalState) -> tuple[Point, ProximalState, StepInfo]:
        """A proximal step, from a point ahead where there is momentum."""
        origin, cost, theta = Point(point.params, state.smooth, point.grad), Evaluations(), state.theta
        if self.accelerated:
            theta = (0.5 * (1 + jnp.sqrt(1 + 4 * state.theta**2))).astype(theta.dtype)
            ahead = problem.point(point.params + (state.theta - 1) / theta * (point.params - state.last_params))
            origin, cost = tree_where(is_finite(ahead), ahead, origin), Evaluations(1, 1, 0)
        result = self._proximal_step(problem, origin, state)
        new, count, failed = result.trial.point, result.evaluations, ~result.success
        cost = Evaluations(cost.values + count, cost.gradients + count, 0)
        s = new.params - point.params
        uphill = jnp.asarray(self.restart) & (dot(origin.params - new.params, s) > 0)
        # momentum may be the reason for a step that failed: without it there is one more try
        final = failed & (state.theta <= 1)
        growth = jnp.where(count > 1, 1.05, state.growth).astype(state.growth.dtype)
        next_theta = jnp.where(uphill, 1, theta).astype(theta.dtype)
        accepted = ProximalState(point.params, new.value, next_theta, result.next_step_size, growth)
        restarted = ProximalState(point.params, state.smooth, jnp.ones_like(theta), state.step_size, growth)
        after = tree_where(failed, restarted, accepted)
        new = tree_where(failed, point, self._with_penalty(problem, new))
        predicted = dot(s, s) / jnp.where(result.step_size > 0, result.step_size, 1)
        predicted = jnp.where(failed, jnp.abs(predicted), jnp.inf)
        return new, after, StepInfo(result.step_size, cost, final, ~failed, predicted)

    def _proximal_step(self, problem: Problem, origin: Point, state: ProximalState) -> BacktrackingResult:
        """A step along the smooth function's gradient, then the proximal operator, of a step size that is accepted."""

        def try_step(problem: Problem, origin: Point, step_size: Array) -> Trial:
            new = problem.point(self._prox(problem, origin.params - step_size * origin.grad, step_size))
            square = dot(new.params - origin.params, new.params - origin.params) / step_size
            return Trial(new, square / 2, square)

        if self.learning_rate is not None:
            step_size = jnp.asarray(self.learning_rate, origin.params.dtype)
            trial, one = try_step(problem, origin, step_size), jnp.ones((), jnp.int32)
            return BacktrackingResult(trial, step_size, step_size, one, jnp.array(True))
        inner, fixed = problem.inner, Point(*problem.detach(*origin))
        first, growth = problem.detach(state.step_size, state.growth)
        result = backtrack(inner, fixed, lambda step_size: try_step(inner, fixed, step_size), first, growth)
        if not problem.unrolled:
            return result
        trial = try_step(problem, origin, result.step_size)
        return result._replace(trial=trial, evaluations=result.evaluations + 1)

    def _prox(self, problem: Problem, params: Array, step_size: ArrayLike) -> Array:
        what = "ProximalGradient: penalty.prox"
        return apply_to_tree(problem, lambda tree: self.penalty.prox(tree, step_size), params, what)

    def _penalty(self, problem: Problem, params: Array, like: Array) -> Array:
        return jnp.asarray(self.penalty.value(problem.unravel(params)), like.dtype)

    def _with_penalty(self, problem: Problem, point: Point) -> Point:
        return point._replace(value=point.value + self._penalty(problem, point.params, point.value))
