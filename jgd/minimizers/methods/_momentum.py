r"""Gradient descent with momentum: Polyak's heavy ball, and Nesterov's accelerated gradient with adaptive restart.

$$
\text{heavy ball:} \quad x_{t+1} = x_t - \eta g(x_t) + \beta (x_t - x_{t-1})
$$

$$
\text{Nesterov:} \quad x_{t+1} = y_t - \eta g(y_t), \qquad y_{t+1} = x_{t+1} + \beta_t (x_{t+1} - x_t)
$$

with $\beta_t = (\theta_t - 1) / \theta_{t+1}$, $\theta_{t+1} = (1 + \sqrt{1 + 4 \theta_t^2}) / 2$. Where the momentum
points uphill, $g(y_t)^\top (x_{t+1} - x_t) > 0$, it starts again from $\theta = 1$; without that the values ripple. The
params of a run are $y_t$, where the gradients are.

References:
    - Polyak, "Some methods of speeding up the convergence of iteration methods",
      https://doi.org/10.1016/0041-5553(64)90137-5, 1964.
    - Nesterov, "A method for solving the convex programming problem with convergence rate O(1/k^2)", 1983.
    - O'Donoghue and Candès, "Adaptive restart for accelerated gradient schemes", https://arxiv.org/abs/1204.3982, 2012.
    - Beck and Teboulle, "A fast iterative shrinkage-thresholding algorithm", https://doi.org/10.1137/080716542, 2009
      (the backtracking).
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from jgd.core import Array, Scalar
from jgd.minimizers.line_searches._armijo import Armijo
from jgd.minimizers.loop._fields import Evaluations
from jgd.minimizers.methods._base import BaseMethod, StepInfo
from jgd.minimizers.problem._problem import Point, Problem, dot, steepest_descent, unit_step


@dataclasses.dataclass(frozen=True)
class HeavyBall(BaseMethod):
    """Gradient descent with momentum.

    Args:
        learning_rate: The step size, above 0.
        momentum: The part of the last step that is added, in [0, 1).
    """

    learning_rate: Scalar = 1e-3
    momentum: Scalar = 0.9

    def init(self, problem: Problem, point: Point) -> Array:
        """The last step [n]: none."""
        del problem
        return jnp.zeros_like(point.params)

    def step(self, problem: Problem, point: Point, state: Array) -> tuple[Point, Array, StepInfo]:
        """The last step times the momentum, and a step along the negative gradient."""
        dtype = point.params.dtype
        step = jnp.asarray(self.momentum, dtype) * state - jnp.asarray(self.learning_rate, dtype) * point.grad
        return problem.point(point.params + step), step, StepInfo(self.learning_rate, Evaluations(1, 1, 0))


class NesterovState(NamedTuple):
    r"""The last $x$ [n], $\theta$, and the last step size."""

    x: Array
    theta: Array
    step_size: Array


@dataclasses.dataclass(frozen=True)
class Nesterov(BaseMethod):
    """Nesterov's accelerated gradient.

    Args:
        learning_rate: The step size, at most 1/L; None to search for it by backtracking.
        restart: Whether to drop the momentum where it points uphill.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimizers import minimize
        >>> bowl = lambda x: 0.5 * jnp.sum(jnp.array([1.0, 100.0]) * (x - 2.0) ** 2)
        >>> print(minimize(bowl, jnp.zeros(2), method="nesterov", tol=1e-3).params.round(2))
        [2. 2.]
    """

    learning_rate: Scalar | None = None
    restart: bool = True

    def init(self, problem: Problem, point: Point) -> NesterovState:
        """No momentum."""
        del problem
        one = jnp.ones((), point.params.dtype)
        return NesterovState(point.params, one, unit_step(point.grad).astype(one.dtype))

    def step(self, problem: Problem, point: Point, state: NesterovState) -> tuple[Point, NesterovState, StepInfo]:
        """A step along the negative gradient, and one on by the momentum."""
        dtype = point.params.dtype
        step_size, evaluations, failed = self._step_size(problem, point, state.step_size)
        x = point.params - step_size * point.grad
        uphill = jnp.asarray(self.restart) & (dot(point.grad, x - state.x) > 0)
        theta = jnp.where(uphill, 1, state.theta).astype(dtype)
        next_theta = 0.5 * (1 + jnp.sqrt(1 + 4 * theta**2))
        beta = jnp.where(uphill, 0, (theta - 1) / next_theta)
        new = problem.point(x + beta * (x - state.x))
        predicted = dot(step_size * point.grad, point.grad)
        info = StepInfo(step_size, Evaluations(1 + evaluations, 1, 0), failed, ~failed, predicted)
        return new, NesterovState(x, next_theta.astype(dtype), step_size), info

    def _step_size(self, problem: Problem, point: Point, last: Array) -> tuple[Array, Array, Array]:
        """The step size, the evaluations to find it, and whether there is none; `last` is that of the last step."""
        dtype = point.params.dtype
        if self.learning_rate is not None:
            return jnp.asarray(self.learning_rate, dtype), jnp.zeros((), jnp.int32), jnp.array(False)
        inner = problem.inner
        params, grad, value, last = problem.detach(point.params, point.grad, point.value, last)
        direction, slope, power = steepest_descent(grad)

        def phi(t: Array) -> tuple[Array, Array, tuple[()]]:
            return inner.fun(params + t * direction), jnp.zeros_like(t), ()

        noise = problem.noise(value)
        # half the decrease of the slope holds where the step is at most 1/L, which the theory needs
        result = Armijo(c1=0.5)(phi, value, slope, 1.2 * last / power, noise=noise, active=problem.running)
        return power * result.step, result.evaluations, ~result.decreased
