r"""Newton's method by conjugate gradients: $H p = -g$ from Hessian-vector products, no Hessian in sight.

`NewtonCG` searches along $p$; `TrustRegion` bounds it, $\lVert p \rVert \le r$, and lets $r$ follow how well the
quadratic model has foretold the decrease. Either solves the system only as well as the gradient's size deserves, to
$\min(0.5, \sqrt{\lVert g \rVert}) \lVert g \rVert$, so that convergence is superlinear.

References:
    - Nocedal and Wright, "Numerical optimization", https://doi.org/10.1007/978-0-387-40065-5, 2006, Algorithms 7.1,
      7.2 and 4.1.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jgd.core import Array
from jgd.minimize._gain import gain_ratio
from jgd.minimize._line_search import LineSearch, search_along
from jgd.minimize._line_search_armijo import Armijo
from jgd.minimize._method import BaseMethod, StepInfo
from jgd.minimize._problem import Point, Problem, dot, norm
from jgd.minimize._result import Evaluations
from jgd.minimize._steihaug import NewtonStep, newton_step


def _solve(problem: Problem, point: Point, radius: Array | float, max_products: int | None) -> NewtonStep:
    product = jax.linearize(jax.grad(problem.fun), point.params)[1]
    size = norm(point.grad)
    tol = jnp.minimum(0.5, jnp.sqrt(size)) * size
    most = max_products or max(20, 2 * point.params.size)
    return newton_step(product, point.grad, radius, tol, most, problem.running)


@dataclasses.dataclass(frozen=True)
class NewtonCG(BaseMethod):
    """Newton's method by conjugate gradients, with a line search.

    Args:
        line_search: The line search, from a step of one.
        max_products: Hessian-vector products in a step at most; None for 2n.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimize import minimize
        >>> rosenbrock = lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
        >>> print(minimize(rosenbrock, jnp.array([-1.2, 1.0]), method="newton_cg", tol=1e-3).params.round(2))
        [1. 1.]
    """

    line_search: LineSearch = dataclasses.field(default_factory=Armijo)
    max_products: int | None = None

    def init(self, problem: Problem, point: Point) -> tuple[()]:
        """No state."""
        del problem, point
        return ()

    def step(self, problem: Problem, point: Point, state: tuple[()]) -> tuple[Point, tuple[()], StepInfo]:
        """One step."""
        inner = _solve(problem, point, jnp.inf, self.max_products)
        slope = dot(inner.step, point.grad)
        usable = (slope < 0) & jnp.all(jnp.isfinite(inner.step))
        direction = jnp.where(usable, inner.step, -point.grad)
        slope = jnp.where(usable, slope, -dot(point.grad, point.grad))
        new, found, cost = search_along(problem, point, direction, slope, 1.0, self.line_search)
        cost = cost._replace(products=inner.products)
        return new, state, StepInfo(found.step, cost, ~found.decreased, found.decreased, jnp.abs(slope))


@dataclasses.dataclass(frozen=True)
class TrustRegion(BaseMethod):
    """Newton's method by conjugate gradients within a trust region (Steihaug).

    It follows directions of negative curvature to the boundary, so it leaves saddles.

    Args:
        radius: The first trust radius; None for the norm of the gradient, one at most.
        max_radius: The largest one.
        max_products: Hessian-vector products in a step at most; None for 2n.
    """

    radius: float | None = None
    max_radius: float = float("inf")
    max_products: int | None = None

    def init(self, problem: Problem, point: Point) -> Array:
        """The trust radius."""
        del problem
        first = jnp.maximum(1.0, 0.1 * norm(point.params)) if self.radius is None else self.radius
        return jnp.asarray(first, point.params.dtype)

    def step(self, problem: Problem, point: Point, state: Array) -> tuple[Point, Array, StepInfo]:
        """One step."""
        inner = _solve(problem, point, state, self.max_products)
        tried = problem.point(point.params + inner.step)
        ratio = gain_ratio(problem, point, tried, -inner.model)
        accepted = ratio > 1e-4
        size = norm(inner.step)
        grown = jnp.where(inner.at_boundary, jnp.maximum(state, 2 * size), state)
        radius = jnp.where(ratio > 0.75, jnp.minimum(grown, self.max_radius), state)
        radius = jnp.where(ratio < 0.25, 0.25 * size, radius).astype(state.dtype)
        new = Point(*(jnp.where(accepted, a, b) for a, b in zip(tried, point, strict=True)))
        eps = jnp.finfo(state.dtype).eps
        failed = ~accepted & (size <= eps * jnp.maximum(norm(point.params), eps))
        info = StepInfo(state, Evaluations(1, 1, inner.products), failed, accepted, jnp.abs(inner.model))
        return new, radius, info
