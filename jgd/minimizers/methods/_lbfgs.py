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
freezes the others, where rounding then ends the run early. So where a search fails, it is first tried again with a
$\gamma$ as for a first step where no pair is known, then by steepest descent from an emptied memory. Where
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

from jgd.core import Array
from jgd.minimizers.line_searches._protocol import LineSearch, search_along
from jgd.minimizers.line_searches._strong_wolfe import StrongWolfe
from jgd.minimizers.methods._base import BaseMethod, StepInfo
from jgd.minimizers.problem._problem import Point, Problem, choose, descent, dot, guard, max_norm, norm


class LBFGSState(NamedTuple):
    """The memory, oldest pair first.

    Attributes:
        moves: Changes of the params [memory, n].
        changes: Changes of the gradient [memory, n].
        weights: One over their inner products [memory]; 0 where there is no pair.
        scale: The first inverse Hessian, a scalar; of an empty memory the step to try first.
        fresh: Whether the memory is empty.
    """

    moves: Array
    changes: Array
    weights: Array
    scale: Array
    fresh: Array


def two_loops(vector: Array, state: LBFGSState) -> Array:
    """The inverse Hessian of the memory times a vector [n]."""
    pairs = (state.moves, state.changes, state.weights)

    def right(vector: Array, pair: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        move, change, weight = pair
        alpha = weight * dot(move, vector)
        return vector - alpha * change, alpha

    def left(vector: Array, pair_alpha: tuple[tuple[Array, Array, Array], Array]) -> tuple[Array, None]:
        (move, change, weight), alpha = pair_alpha
        return vector + (alpha - weight * dot(change, vector)) * move, None

    vector, alphas = jax.lax.scan(right, vector, pairs, reverse=True)
    return jax.lax.scan(left, state.scale * vector, (pairs, alphas))[0]


def remember(state: LBFGSState, move: Array, change: Array) -> LBFGSState:
    """The memory with one pair more and without its oldest, or as it is where the curvature is not positive."""
    power = guard(change)
    curvature, square = dot(move, change), dot(power * change, power * change)
    eps = jnp.finfo(move.dtype).eps
    keep = (curvature > eps * norm(move) * norm(change)) & jnp.isfinite(square) & (square > 0)
    safe = jnp.where(keep, curvature, 1)
    # a root of one, not of zero, where there is no pair: its derivative is finite
    ratio = jnp.where(keep & (dot(move, move) > 0), dot(move, move) / jnp.where(keep, square, 1), 1)

    def shifted(memory: Array, new: Array) -> Array:
        return jnp.where(keep, jnp.concatenate([memory[1:], new[None]]), memory)

    return LBFGSState(
        shifted(state.moves, move),
        shifted(state.changes, change),
        shifted(state.weights, 1 / safe),
        jnp.where(keep, power * jnp.sqrt(ratio), state.scale),
        state.fresh & ~keep,
    )


def check_memory(method: str, memory: int) -> None:
    """Refuses a memory that holds no pair."""
    if memory < 1:
        raise ValueError(f"{method}: memory must be at least 1; got {memory}.")


def first_step(point: Point) -> Array:
    """The size of a first step along the negative gradient: at most one, of a length of the params' size or 1."""
    size, length = norm(point.grad), jnp.maximum(1, max_norm(point.params))
    return jnp.minimum(1, length / jnp.where(size > 0, size, 1)).astype(size.dtype)


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
        check_memory("LBFGS", self.memory)

    def init(self, problem: Problem, point: Point) -> tuple[LBFGSState, Array]:
        """An empty memory, and what the last direction of one that was emptied promised: nothing yet."""
        del problem
        rows = jnp.zeros((self.memory, point.params.size), point.params.dtype)
        weights = jnp.zeros(self.memory, rows.dtype)
        empty = LBFGSState(rows, rows, weights, first_step(point), jnp.array(True))
        return empty, jnp.full((), jnp.inf, rows.dtype)

    def warm(self, problem: Problem, point: Point, state: tuple[LBFGSState, Array]) -> tuple[LBFGSState, Array]:
        """The memory as it is."""
        return state[0], self.init(problem, point)[1]

    def step(
        self, problem: Problem, point: Point, state: tuple[LBFGSState, Array]
    ) -> tuple[Point, tuple[LBFGSState, Array], StepInfo]:
        """One step."""
        memory, last_promise = state
        direction = -two_loops(point.grad, memory)
        slope = dot(direction, point.grad)
        downhill = (slope < 0) & jnp.all(jnp.isfinite(direction)) & ~memory.fresh
        steepest, steepest_slope, power = descent(point.grad)
        direction = jnp.where(downhill, direction, steepest)
        slope = jnp.where(downhill, slope, steepest_slope)
        # with nothing remembered, the scale is the last step along the negative gradient
        step0 = jnp.where(downhill, 1.0, jnp.where(memory.fresh, memory.scale, first_step(point)) / power)
        new, found, cost = search_along(problem, point, direction, slope, step0, self.line_search)
        after = remember(memory, new.params - point.params, new.grad - point.grad)
        after = after._replace(scale=jnp.where(after.fresh, power * found.step, after.scale))
        empty, none = self.init(problem, point)
        # once with a longer scale, then without a memory; of searches that failed, the smallest promise counts
        longer = memory._replace(scale=jnp.maximum(memory.scale, first_step(point)))
        retried = choose(last_promise < none, empty, longer)
        failed, promise = ~found.decreased, jnp.minimum(jnp.abs(slope * step0), last_promise)
        promise = jnp.minimum(promise, jnp.finfo(promise.dtype).max)
        after = choose(failed, (retried, promise), (after, none))
        return new, after, StepInfo(found.step, cost, failed & ~downhill, found.decreased, promise)
