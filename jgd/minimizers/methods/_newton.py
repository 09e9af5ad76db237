r"""Newton's method by conjugate gradients: $H p = -g$ from Hessian-vector products, no Hessian in sight.

`NewtonCG` searches along $p$; `TrustRegion` bounds it, $\lVert p \rVert \le r$, and adapts $r$ to how well the
quadratic model has predicted the decrease. Both solve the system inexactly, to a residual of $\eta \lVert g \rVert$
with $\eta = \min(0.1, 0.9 (\lVert g \rVert / \lVert g_{-1} \rVert)^2)$ from this gradient and the last, so that
convergence is faster than linear.

References:
    - Eisenstat and Walker, "Choosing the forcing terms in an inexact Newton method",
      https://doi.org/10.1137/0917003, 1996, Choice 2.
    - Nocedal and Wright, "Numerical optimization", https://doi.org/10.1007/978-0-387-40065-5, 2006, Algorithms 7.1,
      7.2 and 4.1.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, Scalar, tree_where
from jgd.minimizers.least_squares._gain_ratio import gain_ratio
from jgd.minimizers.line_searches._armijo import Armijo
from jgd.minimizers.line_searches._protocol import LineSearch, search_along
from jgd.minimizers.loop._fields import Evaluations
from jgd.minimizers.methods._base import BaseMethod, StepInfo
from jgd.minimizers.methods._steihaug import NewtonStep, newton_step
from jgd.minimizers.problem._problem import Point, Problem, dot, norm

#: The loosest tolerance of an inner solve, relative to the gradient; that of the first step.
FORCING = 0.1


def _newton_step(
    problem: Problem, point: Point, radius: Array | None, max_products: int | None, last_norm: Array
) -> tuple[NewtonStep, Array]:
    """The step, and the norm of the gradient; `last_norm` is that of the last step, infinite before the first."""
    hessian_product = jax.linearize(jax.grad(problem.fun), point.params)[1]
    grad_norm = norm(jax.lax.stop_gradient(point.grad))
    known = jnp.isfinite(last_norm) & (last_norm > 0)
    quotient = jnp.where(known, grad_norm / jnp.where(last_norm > 0, last_norm, 1), 1)
    tol = jnp.minimum(FORCING, 0.9 * quotient**2) * grad_norm
    max_products = max_products or max(20, 2 * point.params.size)
    step = newton_step(hessian_product, point.grad, radius, tol, max_products, problem.running, problem.unrolled)
    return step, grad_norm


@dataclasses.dataclass(frozen=True)
class NewtonCG(BaseMethod):
    """Newton's method by conjugate gradients, with a line search.

    Args:
        line_search: The line search, from a step of one.
        max_products: Hessian-vector products in a step at most; None for 2n.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimizers import minimize
        >>> rosenbrock = lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
        >>> print(minimize(rosenbrock, jnp.array([-1.2, 1.0]), method="newton_cg", tol=1e-3).params.round(2))
        [1. 1.]
    """

    line_search: LineSearch = dataclasses.field(default_factory=Armijo)
    max_products: int | None = None

    def init(self, problem: Problem, point: Point) -> Array:
        """The norm of the last gradient: infinite, as there is none."""
        del problem
        return jnp.full((), jnp.inf, point.params.dtype)

    def step(self, problem: Problem, point: Point, state: Array) -> tuple[Point, Array, StepInfo]:
        """A line search along Newton's step."""
        newton, grad_norm = _newton_step(problem, point, None, self.max_products, state)
        slope = dot(newton.step, point.grad)
        usable = (slope < 0) & jnp.all(jnp.isfinite(newton.step))
        direction = jnp.where(usable, newton.step, -point.grad)
        slope = jnp.where(usable, slope, -dot(point.grad, point.grad))
        new, result, cost = search_along(problem, point, direction, slope, 1.0, self.line_search)
        cost = cost._replace(products=newton.products)
        return new, grad_norm, StepInfo(result.step, cost, ~result.decreased, result.decreased, jnp.abs(slope))


class TrustState(NamedTuple):
    """The trust radius, and the norm of the last gradient."""

    radius: Array
    grad_norm: Array


@dataclasses.dataclass(frozen=True)
class TrustRegion(BaseMethod):
    """Newton's method by conjugate gradients within a trust region (Steihaug).

    It follows directions of negative curvature to the boundary, so it leaves saddles.

    Args:
        radius: The first trust radius; None for a tenth of the norm of the params, one at least.
        max_radius: The largest one.
        max_products: Hessian-vector products in a step at most; None for 2n.
    """

    radius: Scalar | None = None
    max_radius: Scalar = float("inf")
    max_products: int | None = None

    def init(self, problem: Problem, point: Point) -> TrustState:
        """The first radius."""
        del problem
        first = jnp.maximum(1.0, 0.1 * norm(point.params)) if self.radius is None else self.radius
        dtype = point.params.dtype
        return TrustState(jnp.asarray(first, dtype), jnp.full((), jnp.inf, dtype))

    def warm(self, problem: Problem, point: Point, state: TrustState) -> TrustState:
        """The radius as it is."""
        return self.init(problem, point)._replace(radius=state.radius)

    def step(self, problem: Problem, point: Point, state: TrustState) -> tuple[Point, TrustState, StepInfo]:
        """Newton's step within the trust region, taken where the value decreases enough."""
        newton, grad_norm = _newton_step(problem, point, state.radius, self.max_products, state.grad_norm)
        trial = problem.point(point.params + newton.step)
        ratio = gain_ratio(problem, point, trial, -newton.model)
        accepted = ratio > 1e-4
        size = norm(newton.step)
        grown = jnp.where(newton.at_boundary, jnp.maximum(state.radius, 2 * size), state.radius)
        radius = jnp.where(ratio > 0.75, jnp.minimum(grown, self.max_radius), state.radius)
        radius = jnp.where(ratio < 0.25, 0.25 * size, radius).astype(state.radius.dtype)
        eps = jnp.finfo(radius.dtype).eps
        failed = ~accepted & (size <= eps * jnp.maximum(norm(point.params), eps))
        cost = Evaluations(1, 1, newton.products)
        info = StepInfo(state.radius, cost, failed, accepted, jnp.abs(newton.model))
        return tree_where(accepted, trial, point), TrustState(radius, grad_norm), info
