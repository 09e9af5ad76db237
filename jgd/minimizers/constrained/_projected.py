r"""Projected gradient: minimization over a set with a known projection.

$$
x_{k+1} = x_k + t_k d_k, \qquad d_k = P(x_k - a_k \nabla f(x_k)) - x_k
$$

with the step of Barzilai and Borwein, $a_k = \langle s, s \rangle / \langle s, y \rangle$ from the last changes of
params and gradient, and $t_k \le 1$ from a backtracking search that compares with the largest of the last values, not
with the last one: the spectral projected gradient method. All params of a run are in the set, if it is convex. With a
learning rate $\eta$ it is $x_{k+1} = P(x_k - \eta \nabla f(x_k))$.

The run has converged where $x - P(x - \nabla f(x))$ is at most `tol` in every entry.

References:
    - Birgin, Martínez and Raydan, "Nonmonotone spectral projected gradient methods on convex sets",
      https://doi.org/10.1137/S1052623497330963, 2000.
    - Goldstein, "Convex programming in Hilbert space", https://doi.org/10.1090/S0002-9904-1964-11178-2, 1964.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax.numpy as jnp

from jgd.core import Array, PyTree, Scalar, check_integers, tree_where
from jgd.minimizers.line_searches._armijo import Armijo
from jgd.minimizers.line_searches._protocol import LineSearchResult
from jgd.minimizers.loop._fields import Evaluations
from jgd.minimizers.methods._base import BaseMethod, StepInfo
from jgd.minimizers.problem._problem import Point, Problem, apply_to_tree, dot, max_norm

#: The shortest and the longest step along the gradient.
SHORTEST, LONGEST = 1e-10, 1e10


class ProjectedState(NamedTuple):
    """What a step hands to the next.

    Attributes:
        step_size: The step along the gradient, before the projection.
        values: The last values [window].
    """

    step_size: Array
    values: Array


@dataclasses.dataclass(frozen=True)
class ProjectedGradient(BaseMethod):
    r"""The projected gradient method, for any set with a projection.

    Args:
        projection: From a tree to the nearest one in a closed convex set: any of `optax.projections`, or a function of
            your own. Pass its numbers by `jax.tree_util.Partial(optax.projections.projection_l2_ball, scale=...)`.
            None for the box of `minimize(..., bounds=(lower, upper))`.
        learning_rate: The step size, below 2/L; None for the spectral step and a search.
        window: How many values to compare with, at least 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> import optax
        >>> from jgd.minimizers import ProjectedGradient, minimize
        >>> fun = lambda x: 0.5 * jnp.sum((x - jnp.array([1.0, 0.5, -2.0])) ** 2)
        >>> method = ProjectedGradient(optax.projections.projection_simplex)
        >>> print(minimize(fun, jnp.ones(3), method=method).params.round(2))
        [0.75 0.25 0.  ]
    """

    projection: Callable[[PyTree], PyTree] | None = None
    learning_rate: Scalar | None = None
    window: int = 10
    handles_bounds: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Checks the window."""
        check_integers("ProjectedGradient", 1, window=self.window)

    def project(self, problem: Problem, params: Array) -> Array:
        """The nearest point of the set [n].

        Raises:
            ValueError: There is no set, or there are two.
        """
        if self.projection is None:
            if problem.bounds is None:
                raise ValueError(
                    "ProjectedGradient: there is no set; expected a projection, such as"
                    " ProjectedGradient(optax.projections.projection_simplex), or minimize(..., bounds=(lower, upper))."
                )
            return jnp.clip(params, *problem.bounds)
        if problem.bounds is not None:
            raise ValueError(
                "ProjectedGradient: found a projection and bounds; expected one of them. Leave out the projection, or"
                " write one onto the points of the set that are within the bounds."
            )
        return apply_to_tree(problem, self.projection, params, "ProjectedGradient: projection")

    def start(self, problem: Problem, params: Array) -> Array:
        """The nearest feasible params."""
        return self.project(problem, params)

    def residual(self, problem: Problem, params: Array, grad: Array) -> Array:
        """The change of a step of size 1."""
        return params - self.project(problem, params - grad)

    def init(self, problem: Problem, point: Point) -> ProjectedState:
        """A first step that moves no entry by much more than 1."""
        size = max_norm(self.residual(problem, point.params, point.grad))
        first = jnp.clip(1 / jnp.where(size > 0, size, 1), SHORTEST, LONGEST).astype(point.params.dtype)
        return ProjectedState(first, jnp.full(self.window, point.value))

    def step(self, problem: Problem, point: Point, state: ProjectedState) -> tuple[Point, ProjectedState, StepInfo]:
        """A step of the learning rate, or a nonmonotone line search towards the projection of a spectral step."""
        if self.learning_rate is not None:
            step_size = jnp.asarray(self.learning_rate, point.params.dtype)
            new = problem.point(self.project(problem, point.params - step_size * point.grad))
            return new, state, StepInfo(step_size, Evaluations(1, 1, 0))
        target = self.project(problem, point.params - state.step_size * point.grad)
        direction = target - point.params
        # in exact arithmetic the first is never above the second, which has no large terms that cancel
        slope = jnp.minimum(dot(point.grad, direction), -dot(direction, direction) / state.step_size)
        new, result, cost = self._search(problem, point, target, slope, jnp.max(state.values))
        s, y = new.params - point.params, new.grad - point.grad
        s_y, s_s = dot(s, y), dot(s, s)
        spectral = s_s / jnp.where(s_y > 0, s_y, 1)
        # along flat or concave directions steps get longer
        step_size = jnp.where(s_y > 0, spectral, 10 * state.step_size)
        step_size = jnp.clip(step_size, SHORTEST, LONGEST).astype(state.step_size.dtype)
        values = jnp.concatenate([state.values[1:], new.value[None]])
        accepted = result.decreased
        info = StepInfo(result.step * state.step_size, cost, ~accepted, accepted, jnp.abs(slope))
        return new, ProjectedState(jnp.where(accepted, step_size, state.step_size), values), info

    def _search(
        self, problem: Problem, point: Point, target: Array, slope: Array, reference: Array
    ) -> tuple[Point, LineSearchResult, Evaluations]:
        """The new point on the way to `target`, where the value is below the reference, the search, and its cost."""

        def between(params: Array, target: Array, t: Array) -> Array:
            return jnp.where(t < 1, params + t * (target - params), target)

        inner = problem.inner
        params, end, dphi0, phi0 = problem.detach(point.params, target, slope, reference)

        def phi(t: Array) -> tuple[Array, Array, Array]:
            # nearly every first step is accepted, so that the gradient comes with the value
            value, grad = inner.value_and_grad(between(params, end, t))
            return value, jnp.zeros_like(t), grad

        result = Armijo()(phi, phi0, dphi0, 1.0, noise=problem.noise(phi0), active=problem.running)
        new_params, count = between(point.params, target, result.step), result.evaluations
        if problem.unrolled:
            new, cost = problem.point(new_params), Evaluations(count + 1, count + 1, 0)
        else:
            new, cost = Point(new_params, result.value, result.data), Evaluations(count, count, 0)
        return tree_where(result.decreased, new, point), result, cost
