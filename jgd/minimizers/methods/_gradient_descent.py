r"""Gradient descent: $x_{t+1} = x_t - \eta_t g_t$, with a step size $\eta_t$ that is a setting, searched for, or exact.

| method | step |
| --- | --- |
| `GradientDescent(learning_rate)` | the learning rate; the value decreases where it is below $2/L$ |
| `GradientDescent()` | Armijo backtracking from twice the last step |
| `ExactDescent()` | $\lVert g \rVert^2 / g^\top H g$, the best one on a quadratic |
| `Polyak(minimum)` | $(f(x) - f^*) / \lVert g \rVert^2$ |

References:
    - Cauchy, "Méthode générale pour la résolution des systèmes d'équations simultanées", 1847.
    - Polyak, "Introduction to optimization", 1987, section 5.3 (the step from the minimum's value).
"""

import dataclasses

import jax.numpy as jnp

from jgd.core import Array, Scalar
from jgd.minimizers.line_searches._armijo import Armijo
from jgd.minimizers.line_searches._protocol import LineSearch, search_along
from jgd.minimizers.loop._fields import Evaluations
from jgd.minimizers.methods._base import BaseMethod, StepInfo
from jgd.minimizers.problem._problem import Point, Problem, dot, norm, steepest_descent, unit_step


@dataclasses.dataclass(frozen=True)
class GradientDescent(BaseMethod):
    """Steps along the negative gradient.

    Args:
        learning_rate: The step size, above 0; None to search for one in each step.
        line_search: The line search, where there is no learning rate.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimizers import GradientDescent, minimize
        >>> bowl = lambda x: 0.5 * jnp.sum(jnp.array([1.0, 10.0]) * x**2)
        >>> result = minimize(bowl, jnp.ones(2), method=GradientDescent(0.1), tol=1e-4)
        >>> print(result.params.round(3), result.converged)
        [0. 0.] True
    """

    learning_rate: Scalar | None = None
    line_search: LineSearch = dataclasses.field(default_factory=Armijo)

    def init(self, problem: Problem, point: Point) -> Array:
        """The first trial step, of a norm of at most 1."""
        del problem
        return unit_step(point.grad)

    def step(self, problem: Problem, point: Point, state: Array) -> tuple[Point, Array, StepInfo]:
        """A step of the learning rate, or a line search along the negative gradient."""
        if self.learning_rate is not None:
            new = problem.point(point.params - jnp.asarray(self.learning_rate, point.params.dtype) * point.grad)
            return new, state, StepInfo(self.learning_rate, Evaluations(1, 1, 0))
        direction, slope, power = steepest_descent(point.grad)
        new, result, cost = search_along(problem, point, direction, slope, state / power, self.line_search)
        failed, step_size = ~result.decreased, power * result.step
        state = jnp.where(failed, state, 2 * step_size).astype(state.dtype)
        return new, state, StepInfo(step_size, cost, failed, result.decreased, jnp.abs(slope * (state / power)))


@dataclasses.dataclass(frozen=True)
class ExactDescent(BaseMethod):
    """Steepest descent with the exact step of a quadratic, from one Hessian-vector product.

    Where the curvature along the gradient is not positive, the step is `fallback`.

    Args:
        fallback: The step size where there is no positive curvature.
    """

    fallback: Scalar = 1.0

    def init(self, problem: Problem, point: Point) -> tuple[()]:
        """No state."""
        del problem, point
        return ()

    def step(self, problem: Problem, point: Point, state: tuple[()]) -> tuple[Point, tuple[()], StepInfo]:
        """A step to the minimizer of the quadratic along the gradient."""
        # along the unit vector: the product with the gradient itself overflows long before the step does
        length = norm(point.grad)
        unit = point.grad / jnp.where(length > 0, length, 1)
        curvature = dot(unit, problem.hessian_product(point.params, unit))
        step_size = jnp.where(curvature > 0, 1 / jnp.where(curvature > 0, curvature, 1), self.fallback)
        new = problem.point(point.params - step_size * point.grad)
        return new, state, StepInfo(step_size, Evaluations(1, 1, 1))


@dataclasses.dataclass(frozen=True)
class Polyak(BaseMethod):
    """Gradient descent with Polyak's step, for a function whose least value is known.

    Args:
        minimum: The least value, $f^*$.
        max_learning_rate: The largest step.
    """

    minimum: Scalar = 0.0
    max_learning_rate: Scalar = 1e6

    def init(self, problem: Problem, point: Point) -> tuple[()]:
        """No state."""
        del problem, point
        return ()

    def step(self, problem: Problem, point: Point, state: tuple[()]) -> tuple[Point, tuple[()], StepInfo]:
        """A step of Polyak's length."""
        length = norm(point.grad)
        safe = jnp.where(length > 0, length, 1)
        gap = jnp.maximum(point.value - self.minimum, 0).astype(length.dtype)
        # the square of the length may overflow, the step along the unit vector does not
        distance = jnp.minimum(gap / safe, self.max_learning_rate * safe)
        new = problem.point(point.params - distance * (point.grad / safe))
        return new, state, StepInfo(distance / safe, Evaluations(1, 1, 0))
