r"""Barzilai and Borwein's gradient method: the step of a quasi-Newton method with one number for a Hessian."""

import dataclasses

import jax.numpy as jnp

from jgd.core import Array, check_integers
from jgd.minimizers.line_searches._armijo import Armijo
from jgd.minimizers.line_searches._protocol import LineSearch, search_along
from jgd.minimizers.methods._base import BaseMethod, StepInfo
from jgd.minimizers.problem._problem import Point, Problem, dot, steepest_descent, unit_step


@dataclasses.dataclass(frozen=True)
class BarzilaiBorwein(BaseMethod):
    r"""Gradient descent with the steps of Barzilai and Borwein, and a nonmonotone safeguard.

    The two steps $\langle s, s \rangle / \langle s, y \rangle$ and $\langle s, y \rangle / \langle y, y \rangle$ take
    turns. The value must be below the largest of the last `window` values, not below the last one: the steps are fast
    because they do not descend in each.

    References: Barzilai and Borwein, https://doi.org/10.1093/imanum/8.1.141, 1988; Raydan,
    https://doi.org/10.1137/S1052623494266365, 1997 (the safeguard).

    Args:
        window: How many values to compare with, at least 1.
        line_search: Which search shortens steps that are too long.
    """

    window: int = 10
    line_search: LineSearch = dataclasses.field(default_factory=Armijo)

    def __post_init__(self) -> None:
        """Checks the window."""
        check_integers("BarzilaiBorwein", 1, window=self.window)

    def init(self, problem: Problem, point: Point) -> tuple[Array, Array, Array]:
        """The step to try first, the last values, and the parity."""
        del problem
        return unit_step(point.grad), jnp.full(self.window, point.value), jnp.array(False)

    def step(
        self, problem: Problem, point: Point, state: tuple[Array, Array, Array]
    ) -> tuple[Point, tuple[Array, Array, Array], StepInfo]:
        """One step."""
        step0, values, odd = state
        direction, slope, power = steepest_descent(point.grad)
        step0, worst = step0 / power, jnp.max(values)
        new, found, cost = search_along(problem, point, direction, slope, step0, self.line_search, reference=worst)
        # both steps are of the direction searched along, which is the gradient but where that is huge
        move, change = new.params - point.params, power * (new.grad - point.grad)
        curvature = dot(move, change)
        long, short = dot(move, move) / curvature, curvature / dot(change, change)
        usable = (curvature > 0) & jnp.isfinite(long) & jnp.isfinite(short)
        size = jnp.where(usable, jnp.where(odd, short, long), 2 * found.step)
        size = jnp.where(found.decreased & (size > 0), size, 0.1 * step0)
        values = jnp.concatenate([values[1:], new.value[None]])
        info = StepInfo(power * found.step, cost, ~found.decreased, found.decreased, jnp.abs(slope * step0))
        return new, ((power * size).astype(step0.dtype), values, ~odd), info
