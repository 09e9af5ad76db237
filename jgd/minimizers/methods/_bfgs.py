r"""BFGS: a quasi-Newton method with a dense inverse Hessian $H$, $n^2$ numbers.

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
    """The inverse Hessian $H$ [n, n], and whether it is still the identity."""

    inverse: Array
    initial: Array


def _updated(inverse: Array, s: Array, y: Array, s_y: Array) -> Array:
    """The formula of the module's docstring, multiplied out."""
    inverse_y = inverse @ y
    cross = jnp.outer(inverse_y, s) / s_y
    return inverse - cross - cross.T + (1 + dot(y, inverse_y) / s_y) * jnp.outer(s, s) / s_y


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
        """A quasi-Newton direction, a line search along it, and the update of the matrix."""
        direction = -(state.inverse @ point.grad)
        slope = dot(direction, point.grad)
        usable = (slope < 0) & jnp.all(jnp.isfinite(direction)) & ~state.initial
        steepest, steepest_slope, power = steepest_descent(point.grad)
        direction = jnp.where(usable, direction, steepest)
        slope = jnp.where(usable, slope, steepest_slope)
        step0 = jnp.where(usable, 1, first_step(point) / power)
        new, result, cost = search_along(problem, point, direction, slope, step0, self.line_search)
        failed = ~result.decreased

        s, y = new.params - point.params, new.grad - point.grad
        power = safe_scale(y)
        s_y, y_y = dot(s, y), dot(power * y, power * y)
        # the curvature condition; without it the matrix stays
        keep = (s_y > jnp.finfo(s.dtype).eps * norm(s) * norm(y)) & jnp.isfinite(y_y)
        s_y, y_y = jnp.where(keep, s_y, 1), jnp.where(keep, y_y, 1)
        identity = jnp.eye(s.size, dtype=s.dtype)
        before = jnp.where(state.initial, power * (power * s_y / y_y) * identity, state.inverse)
        inverse = jnp.where(keep, _updated(before, s, y, s_y), state.inverse)
        after = BFGSState(jnp.where(failed, identity, inverse), failed | (state.initial & ~keep))
        predicted = jnp.abs(slope * step0)
        # a search along a quasi-Newton direction that failed is tried again along the gradient
        final = failed & (~usable | problem.at_floor(point, predicted))
        return new, after, StepInfo(result.step, cost, final, result.decreased, predicted)
