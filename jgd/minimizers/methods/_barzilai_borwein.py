r"""Barzilai and Borwein's gradient method: the step of a quasi-Newton method with one number for a Hessian."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from jgd.core import Array, check_integers
from jgd.minimizers.line_searches._armijo import Armijo
from jgd.minimizers.line_searches._protocol import LineSearch, search_along
from jgd.minimizers.methods._base import BaseMethod, StepInfo
from jgd.minimizers.problem._problem import Point, Problem, dot, steepest_descent, unit_step


class BarzilaiBorweinState(NamedTuple):
    """What a step hands to the next.

    Attributes:
        step_size: The step length to try first, in units of the gradient.
        values: The last values [window].
        odd: Whether the next step length is the shorter of the two.
    """

    step_size: Array
    values: Array
    odd: Array


@dataclasses.dataclass(frozen=True)
class BarzilaiBorwein(BaseMethod):
    r"""Gradient descent with the steps of Barzilai and Borwein, and a nonmonotone line search.

    The two step lengths $\langle s, s \rangle / \langle s, y \rangle$ and $\langle s, y \rangle / \langle y, y \rangle$
    alternate. The value must be below the largest of the last `window` values, not below the last one: the steps are
    fast because they do not descend in each.

    References: Barzilai and Borwein, https://doi.org/10.1093/imanum/8.1.141, 1988; Raydan,
    https://doi.org/10.1137/S1052623494266365, 1997 (the line search).

    Args:
        window: How many values to compare with, at least 1.
        line_search: The line search, which shortens steps that are too long.
    """

    window: int = 10
    line_search: LineSearch = dataclasses.field(default_factory=Armijo)

    def __post_init__(self) -> None:
        """Checks the window."""
        check_integers("BarzilaiBorwein", 1, window=self.window)

    def init(self, problem: Problem, point: Point) -> BarzilaiBorweinState:
        """A first step of a norm of at most 1."""
        del problem
        values = jnp.full(self.window, point.value)
        return BarzilaiBorweinState(unit_step(point.grad), values, jnp.array(False))

    def step(
        self, problem: Problem, point: Point, state: BarzilaiBorweinState
    ) -> tuple[Point, BarzilaiBorweinState, StepInfo]:
        """A line search along the negative gradient, and the next step length."""
        direction, slope, power = steepest_descent(point.grad)
        step0, largest = state.step_size / power, jnp.max(state.values)
        new, result, cost = search_along(problem, point, direction, slope, step0, self.line_search, reference=largest)
        # both step lengths are in units of the direction searched along, the gradient but where that is huge
        s, y = new.params - point.params, power * (new.grad - point.grad)
        s_y = dot(s, y)
        long, short = dot(s, s) / s_y, s_y / dot(y, y)
        usable = (s_y > 0) & jnp.isfinite(long) & jnp.isfinite(short)
        step_size = jnp.where(usable, jnp.where(state.odd, short, long), 2 * result.step)
        step_size = jnp.where(result.decreased & (step_size > 0), step_size, 0.1 * step0)
        values = jnp.concatenate([state.values[1:], new.value[None]])
        info = StepInfo(power * result.step, cost, ~result.decreased, result.decreased, jnp.abs(slope * step0))
        return new, BarzilaiBorweinState((power * step_size).astype(step0.dtype), values, ~state.odd), info
