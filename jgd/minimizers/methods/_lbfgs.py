r"""L-BFGS: quasi-Newton steps from the last few changes of params and gradients.

With $s_i = x_{i+1} - x_i$, $y_i = g_{i+1} - g_i$, $\rho_i = 1 / \langle s_i, y_i \rangle$ of the last `memory` steps,
the direction is $-H g$, where

$$
H_{i+1} = (1 - \rho_i s_i y_i^\top)\, H_i\, (1 - \rho_i y_i s_i^\top) + \rho_i s_i s_i^\top, \qquad
H_0 = \gamma I, \quad \gamma = \frac{\lVert s \rVert}{\lVert y \rVert}
$$

by the two-loop recursion, and a line search from a step of one. A pair without positive curvature is not remembered.

The $\gamma$ of the last pair is the geometric mean of the two of Barzilai and Borwein. The smaller of them, $\langle
s, y \rangle / \lVert y \rVert^2$, is the common choice; after steps along directions of high curvature it all but
freezes the others, where rounding then ends the run early. So where a line search fails, the next step tries again with
the $\gamma$ of a first step if that is larger, and the one after it by steepest descent from an empty memory. Where
that fails, too, the run ends.

References:
    - Nocedal, "Updating quasi-Newton matrices with limited storage",
      https://doi.org/10.1090/S0025-5718-1980-0572855-7, 1980.
    - Barzilai and Borwein, "Two-point step size gradient methods", https://doi.org/10.1093/imanum/8.1.141, 1988.
    - Liu and Nocedal, "On the limited memory BFGS method for large scale optimization",
      https://doi.org/10.1007/BF01589116, 1989.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, check_integers, tree_where
from jgd.minimizers.line_searches._protocol import LineSearch, search_along
from jgd.minimizers.line_searches._strong_wolfe import StrongWolfe
from jgd.minimizers.methods._base import BaseMethod, StepInfo
from jgd.minimizers.problem._problem import Point, Problem, dot, max_norm, norm, safe_scale, steepest_descent


class LBFGSMemory(NamedTuple):
    r"""The pairs of the last steps, the oldest one first.

    Attributes:
        s: The changes of the params $s_i$ [memory, n].
        y: The changes of the gradient $y_i$ [memory, n].
        rho: The $\rho_i$ [memory]; 0 where there is no pair.
        gamma: $\gamma$, a scalar; of an empty memory the step length to try first along the negative gradient.
        empty: Whether there is no pair.
    """

    s: Array
    y: Array
    rho: Array
    gamma: Array
    empty: Array


class LBFGSState(NamedTuple):
    """What a step hands to the next.

    Attributes:
        memory: The memory.
        predicted: The least decrease predicted by the line searches in a row that have failed; infinite if the last
            one has not.
    """

    memory: LBFGSMemory
    predicted: Array


def empty_memory(rows: int, like: Array, gamma: Array) -> LBFGSMemory:
    """A memory without a pair, for so many of vectors such as `like` [n]."""
    zeros = jnp.zeros((rows, like.size), like.dtype)
    return LBFGSMemory(zeros, zeros, jnp.zeros(rows, like.dtype), gamma, jnp.array(True))


def two_loop_recursion(memory: LBFGSMemory, vector: Array) -> Array:
    """The inverse Hessian of the memory times a vector [n]."""
    pairs = (memory.s, memory.y, memory.rho)

    def backward(q: Array, pair: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        s, y, rho = pair
        alpha = rho * dot(s, q)
        return q - alpha * y, alpha

    def forward(r: Array, pair_alpha: tuple[tuple[Array, Array, Array], Array]) -> tuple[Array, None]:
        (s, y, rho), alpha = pair_alpha
        beta = rho * dot(y, r)
        return r + (alpha - beta) * s, None

    q, alphas = jax.lax.scan(backward, vector, pairs, reverse=True)
    return jax.lax.scan(forward, memory.gamma * q, (pairs, alphas))[0]


def add_pair(memory: LBFGSMemory, s: Array, y: Array) -> LBFGSMemory:
    """The memory with one pair more and without its oldest, or as it is where the curvature is not positive."""
    power = safe_scale(y)
    s_y, y_y = dot(s, y), dot(power * y, power * y)
    eps = jnp.finfo(s.dtype).eps
    keep = (s_y > eps * norm(s) * norm(y)) & jnp.isfinite(y_y) & (y_y > 0)
    rho = 1 / jnp.where(keep, s_y, 1)
    # a root of one, not of zero, where there is no pair: its derivative is finite
    gamma_squared = jnp.where(keep & (dot(s, s) > 0), dot(s, s) / jnp.where(keep, y_y, 1), 1)

    def shifted(rows: Array, new: Array) -> Array:
        return jnp.where(keep, jnp.concatenate([rows[1:], new[None]]), rows)

    return LBFGSMemory(
        s=shifted(memory.s, s),
        y=shifted(memory.y, y),
        rho=shifted(memory.rho, rho),
        gamma=jnp.where(keep, power * jnp.sqrt(gamma_squared), memory.gamma),
        empty=memory.empty & ~keep,
    )


def first_step(point: Point) -> Array:
    """The first step length: at most 1, for a step no longer than the largest entry of the params, or 1."""
    size, distance = norm(point.grad), jnp.maximum(1, max_norm(point.params))
    return jnp.minimum(1, distance / jnp.where(size > 0, size, 1)).astype(size.dtype)


@dataclasses.dataclass(frozen=True)
class LBFGS(BaseMethod):
    """L-BFGS, the default method of `minimize`.

    Args:
        memory: How many pairs to remember, at least 1.
        line_search: The line search; strong Wolfe by default.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimizers import LBFGS, minimize
        >>> bowl = lambda x: jnp.sum(jnp.cosh(x - 1.0))
        >>> print(minimize(bowl, jnp.zeros(3), method=LBFGS(memory=5), tol=1e-3).params.round(2))
        [1. 1. 1.]
    """

    memory: int = 10
    line_search: LineSearch = dataclasses.field(default_factory=StrongWolfe)

    def __post_init__(self) -> None:
        """Checks the memory."""
        check_integers("LBFGS", 1, memory=self.memory)

    def init(self, problem: Problem, point: Point) -> LBFGSState:
        """An empty memory."""
        del problem
        memory = empty_memory(self.memory, point.params, first_step(point))
        return LBFGSState(memory, jnp.full((), jnp.inf, point.params.dtype))

    def warm(self, problem: Problem, point: Point, state: LBFGSState) -> LBFGSState:
        """The memory as it is."""
        return self.init(problem, point)._replace(memory=state.memory)

    def step(self, problem: Problem, point: Point, state: LBFGSState) -> tuple[Point, LBFGSState, StepInfo]:
        """A quasi-Newton direction, a line search along it, and the pair that the step adds to the memory."""
        memory, last_predicted = state
        direction = -two_loop_recursion(memory, point.grad)
        slope = dot(direction, point.grad)
        usable = (slope < 0) & jnp.all(jnp.isfinite(direction)) & ~memory.empty
        steepest, steepest_slope, power = steepest_descent(point.grad)
        direction = jnp.where(usable, direction, steepest)
        slope = jnp.where(usable, slope, steepest_slope)
        # of an empty memory, gamma is the last step length along the negative gradient
        step0 = jnp.where(usable, 1.0, jnp.where(memory.empty, memory.gamma, first_step(point)) / power)
        new, result, cost = search_along(problem, point, direction, slope, step0, self.line_search)

        extended = add_pair(memory, new.params - point.params, new.grad - point.grad)
        extended = extended._replace(gamma=jnp.where(extended.empty, power * result.step, extended.gamma))
        # where the search failed: once more with a larger gamma, then from an empty memory
        failed, initial = ~result.decreased, self.init(problem, point)
        larger_gamma = memory._replace(gamma=jnp.maximum(memory.gamma, first_step(point)))
        retry = tree_where(last_predicted < jnp.inf, initial.memory, larger_gamma)
        # of searches that failed in a row, the smallest predicted decrease counts
        predicted = jnp.minimum(jnp.abs(slope * step0), last_predicted)
        predicted = jnp.minimum(predicted, jnp.finfo(predicted.dtype).max)
        after = tree_where(failed, LBFGSState(retry, predicted), LBFGSState(extended, initial.predicted))
        return new, after, StepInfo(result.step, cost, failed & ~usable, result.decreased, predicted)
