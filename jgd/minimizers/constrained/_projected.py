r"""Projected gradient: minimization over a set that one knows how to project onto.

$$
x_{k+1} = x_k + t_k d_k, \qquad d_k = P(x_k - a_k \nabla f(x_k)) - x_k
$$

with the step of Barzilai and Borwein, $a_k = \langle s, s \rangle / \langle s, y \rangle$ from the last changes of
params and gradient, and $t_k \le 1$ from a backtracking search that compares with the largest of the last values, not
with the last one: the spectral projected gradient method. All params of a run are in the set, if it is convex. With a
given step it is $x_{k+1} = P(x_k - \eta \nabla f(x_k))$.

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

from jgd.core import Array, PyTree, Scalar, tree_where
from jgd.minimizers.line_searches._armijo import Armijo
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
            one's own. Give numbers of it by `jax.tree_util.Partial(optax.projections.projection_l2_ball, scale=...)`.
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
        if self.window < 1:
            raise ValueError(f"ProjectedGradient: window must be at least 1; got {self.window}.")

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
        """The first step, which moves no entry by much more than 1."""
        size = max_norm(self.residual(problem, point.params, point.grad))
        first = jnp.clip(1 / jnp.where(size > 0, size, 1), SHORTEST, LONGEST).astype(point.params.dtype)
        return ProjectedState(first, jnp.full(self.window, point.value))

    def step(self, problem: Problem, point: Point, state: ProjectedState) -> tuple[Point, ProjectedState, StepInfo]:
        """One step."""
        if self.learning_rate is not None:
            size = jnp.asarray(self.learning_rate, point.params.dtype)
            new = problem.point(self.project(problem, point.params - size * point.grad))
            return new, state, StepInfo(size, Evaluations(1, 1, 0))
        end = self.project(problem, point.params - state.step_size * point.grad)
        along = end - point.params
        # in exact arithmetic the first is never above the second, which has no large terms that cancel
        slope = jnp.minimum(dot(point.grad, along), -dot(along, along) / state.step_size)
        new, part, found, cost = self._search(problem, point, end, slope, jnp.max(state.values))
        move, change = new.params - point.params, new.grad - point.grad
        curvature, square = dot(move, change), dot(move, move)
        spectral = square / jnp.where(curvature > 0, curvature, 1)
        # along flat or concave directions steps get longer
        size = jnp.where(curvature > 0, spectral, 10 * state.step_size)
        size = jnp.clip(size, SHORTEST, LONGEST).astype(state.step_size.dtype)
        values = jnp.concatenate([state.values[1:], new.value[None]])
        info = StepInfo(part * state.step_size, cost, ~found, found, jnp.abs(slope))
        return new, ProjectedState(jnp.where(found, size, state.step_size), values), info

    def _search(
        self, problem: Problem, point: Point, end: Array, slope: Array, worst: Array
    ) -> tuple[Point, Array, Array, Evaluations]:
        """The point found on the way to `end`, how far that is, whether there is one, and what it cost."""

        def between(params: Array, end: Array, t: Array) -> Array:
            return jnp.where(t < 1, params + t * (end - params), end)

        inner = problem.inner
        params, goal, descent, reference = problem.detach(point.params, end, slope, worst)

        def phi(t: Array) -> tuple[Array, Array, Array]:
            # nearly every first step is taken, so that the gradient comes with the value
            value, grad = inner.value_and_grad(between(params, goal, t))
            return value, jnp.zeros_like(t), grad

        noise = problem.noise(reference)
        search = Armijo()(phi, reference, descent, 1.0, noise=noise, active=problem.running)
        moved, count = between(point.params, end, search.step), search.evaluations
        if problem.detached is None:
            new, cost = Point(moved, search.value, search.data), Evaluations(count, count, 0)
        else:
            new, cost = problem.point(moved), Evaluations(count + 1, count + 1, 0)
        kept = tree_where(search.decreased, new, point)
        return kept, search.step, search.decreased, cost
