r"""Proximal gradient: the sum of a smooth function and a penalty that is not, $f(x) + h(x)$.

$$
x_{k+1} = \operatorname{prox}_{t h}(y_k - t \nabla f(y_k)), \qquad y_{k+1} = x_{k+1} + \beta_k (x_{k+1} - x_k)
$$

with $\beta_k = (\theta_k - 1) / \theta_{k+1}$, $\theta_{k+1} = (1 + \sqrt{1 + 4 \theta_k^2}) / 2$ (FISTA), or
$\beta_k = 0$ (ISTA). Where the momentum points uphill, $\langle y_k - x_{k+1}, x_{k+1} - x_k \rangle > 0$, it starts
again from $\theta = 1$. The step $t$ is given, or the longest that the curvature along it allows: it shrinks where it
was too long, and grows again where there is room.

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

from jgd.core import Array, Scalar, tree_where
from jgd.minimizers.constrained._penalties import Penalty
from jgd.minimizers.line_searches._backtracking import Trial, backtrack
from jgd.minimizers.loop._fields import Evaluations
from jgd.minimizers.loop._stop import is_finite
from jgd.minimizers.methods._base import BaseMethod, StepInfo
from jgd.minimizers.problem._problem import Point, Problem, apply_to_tree, dot, norm


class ProximalState(NamedTuple):
    """What a step hands to the next.

    Attributes:
        last: The params before the last step [n].
        smooth: The value of the smooth function alone.
        theta: The momentum's, 1 where there is none.
        step_size: The step size to try first.
        growth: By what factor it may grow: much at first, little once a step was too long.
    """

    last: Array
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
        return self._whole(problem, problem.point(params))

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
        """One step."""
        origin, cost, after = Point(point.params, state.smooth, point.grad), Evaluations(), state.theta
        if self.accelerated:
            after = (0.5 * (1 + jnp.sqrt(1 + 4 * state.theta**2))).astype(after.dtype)
            ahead = problem.point(point.params + (state.theta - 1) / after * (point.params - state.last))
            usable, cost = is_finite(ahead), Evaluations(1, 1, 0)
            origin = tree_where(usable, ahead, origin)
        new, found, next_step, failed, count = self._forward_backward(problem, origin, state)
        cost = Evaluations(cost.values + count, cost.gradients + count, 0)
        move = new.params - point.params
        uphill = jnp.asarray(self.restart) & (dot(origin.params - new.params, move) > 0)
        # momentum may be to blame for a step that failed: without it there is one more try
        stuck = failed & (state.theta <= 1)
        growth = jnp.where(count > 1, 1.05, state.growth).astype(state.growth.dtype)
        gone = ProximalState(
            point.params, new.value, jnp.where(uphill, 1, after).astype(after.dtype), next_step, growth
        )
        stayed = ProximalState(point.params, state.smooth, jnp.ones_like(after), state.step_size, growth)
        state = tree_where(failed, stayed, gone)
        whole = self._whole(problem, new)
        kept = tree_where(failed, point, whole)
        predicted = dot(move, move) / jnp.where(found > 0, found, 1)
        return kept, state, StepInfo(found, cost, stuck, ~failed, jnp.where(failed, jnp.abs(predicted), jnp.inf))

    def _forward_backward(
        self, problem: Problem, origin: Point, state: ProximalState
    ) -> tuple[Point, Array, Array, Array, Array]:
        """A step of the smooth function's gradient and the penalty's operator, and what it took to find its size."""

        def try_step(problem: Problem, origin: Point, size: Array) -> Trial:
            new = problem.point(self._prox(problem, origin.params - size * origin.grad, size))
            square = dot(new.params - origin.params, new.params - origin.params) / size
            return Trial(new, square / 2, square)

        if self.learning_rate is not None:
            size = jnp.asarray(self.learning_rate, origin.params.dtype)
            new = try_step(problem, origin, size).point
            return new, size, size, jnp.array(False), jnp.ones((), jnp.int32)
        inner, fixed = problem.inner, Point(*problem.detach(*origin))
        first, growth = problem.detach(state.step_size, state.growth)
        found = backtrack(inner, fixed, lambda size: try_step(inner, fixed, size), first, growth)
        if problem.detached is None:
            return found.trial.point, found.step, found.next_step, ~found.success, found.count
        new = try_step(problem, origin, found.step).point
        return new, found.step, found.next_step, ~found.success, found.count + 1

    def _prox(self, problem: Problem, params: Array, step: Any) -> Array:
        return apply_to_tree(
            problem, lambda tree: self.penalty.prox(tree, step), params, "ProximalGradient: penalty.prox"
        )

    def _penalty(self, problem: Problem, params: Array, like: Array) -> Array:
        return jnp.asarray(self.penalty.value(problem.unravel(params)), like.dtype)

    def _whole(self, problem: Problem, point: Point) -> Point:
        return point._replace(value=point.value + self._penalty(problem, point.params, point.value))
