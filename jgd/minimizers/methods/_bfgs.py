r"""BFGS: a quasi-Newton method that keeps the whole inverse Hessian $H$, $n^2$ numbers.

$$
H_{t+1} = (1 - \rho s y^\top) H_t (1 - \rho y s^\top) + \rho s s^\top, \qquad \rho = 1 / \langle s, y \rangle
$$

with $H_0 = \langle s, y \rangle / \lVert y \rVert^2$ from the first pair. For more than a few thousand params see
`LBFGS`.

References:
    - Nocedal and Wright, "Numerical optimization", https://doi.org/10.1007/978-0-387-40065-5, 2006, Algorithm 6.1.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.line_searches._protocol import LineSearch, search_along
from jgd.minimizers.line_searches._strong_wolfe import StrongWolfe
from jgd.minimizers.methods._base import BaseMethod, StepInfo
from jgd.minimizers.methods._lbfgs import first_step
from jgd.minimizers.problem._problem import Point, Problem, dot, norm, safe_scale, steepest_descent


class BFGSState(NamedTuple):
    """The inverse Hessian [n, n], and whether it is still the identity."""

    inverse: Array
    fresh: Array


def _updated(inverse: Array, move: Array, change: Array, curvature: Array) -> Array:
    applied = inverse @ change
    cross = jnp.outer(applied, move) / curvature
    return inverse - cross - cross.T + (1 + dot(change, applied) / curvature) * jnp.outer(move, move) / curvature


@dataclasses.dataclass(frozen=True)
class BFGS(BaseMethod):
    """BFGS with a dense inverse Hessian.

    Args:
        line_search: The line search; strong Wolfe by default.
    """

    line_search: LineSearch = dataclasses.field(default_factory=StrongWolfe)

    def init(self, problem: Problem, point: Point) -> BFGSState:
        """The identity."""
        del problem
        return BFGSState(jnp.eye(point.params.size, dtype=point.params.dtype), jnp.array(True))

    def warm(self, problem: Problem, point: Point, state: BFGSState) -> BFGSState:
        """The matrix as it is."""
        del problem, point
        return state

    def step(self, problem: Problem, point: Point, state: BFGSState) -> tuple[Point, BFGSState, StepInfo]:
        """One step."""
        direction = -(state.inverse @ point.grad)
        slope = dot(direction, point.grad)
        usable = (slope < 0) & jnp.all(jnp.isfinite(direction)) & ~state.fresh
        steepest, steepest_slope, power = steepest_descent(point.grad)
        direction = jnp.where(usable, direction, steepest)
        slope = jnp.where(usable, slope, steepest_slope)
        step0 = jnp.where(usable, 1, first_step(point) / power)
        new, found, cost = search_along(problem, point, direction, slope, step0, self.line_search)
        failed = ~found.decreased

        move, change = new.params - point.params, new.grad - point.grad
        power = safe_scale(change)
        curvature, square = dot(move, change), dot(power * change, power * change)
        keep = (curvature > jnp.finfo(move.dtype).eps * norm(move) * norm(change)) & jnp.isfinite(square)
        curvature, square = jnp.where(keep, curvature, 1), jnp.where(keep, square, 1)
        eye = jnp.eye(move.size, dtype=move.dtype)
        base = jnp.where(state.fresh, power * (power * curvature / square) * eye, state.inverse)
        inverse = jnp.where(keep, _updated(base, move, change, curvature), state.inverse)
        inverse = jnp.where(failed, eye, inverse)
        predicted = jnp.abs(slope * step0)
        over = failed & (~usable | problem.at_floor(point, predicted))
        info = StepInfo(found.step, cost, over, found.decreased, predicted)
        return new, BFGSState(inverse, failed | (state.fresh & ~keep)), info
