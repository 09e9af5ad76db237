r"""Nonlinear conjugate gradients: $d_{t+1} = -g_{t+1} + \beta_t d_t$, with a line search along $d$.

With $y_t = g_{t+1} - g_t$ the formulas are

$$
\beta^\text{PR+} = \max\Bigl(0, \frac{g_{t+1}^\top y_t}{\lVert g_t \rVert^2}\Bigr), \qquad
\beta^\text{DY} = \frac{\lVert g_{t+1} \rVert^2}{d_t^\top y_t}, \qquad
\beta^\text{HZ} = \frac{1}{d_t^\top y_t} \Bigl(y_t - 2 d_t \frac{\lVert y_t \rVert^2}{d_t^\top y_t}\Bigr)^\top g_{t+1}
$$

the last one not below $-1 / (\lVert d_t \rVert \min(0.01, \lVert g_t \rVert))$. Where $d$ is no direction of descent,
or a search fails, it starts again from $-g$; Dai and Yuan's also where successive gradients are far from orthogonal.

References:
    - Polak and Ribière, "Note sur la convergence de méthodes de directions conjuguées", 1969; Gilbert and Nocedal,
      https://doi.org/10.1137/0802003, 1992 (the positive part).
    - Powell, "Restart procedures for the conjugate gradient method", https://doi.org/10.1007/BF01593790, 1977.
    - Dai and Yuan, https://doi.org/10.1137/S1052623497318992, 1999.
    - Hager and Zhang, https://doi.org/10.1137/030601880, 2005.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax.numpy as jnp

from jgd.core import Array, check_choice
from jgd.minimizers.line_searches._protocol import LineSearch, search_along
from jgd.minimizers.line_searches._strong_wolfe import StrongWolfe
from jgd.minimizers.methods._base import BaseMethod, StepInfo
from jgd.minimizers.problem._problem import Point, Problem, dot, norm, steepest_descent, unit_step

Formula = Literal["hager_zhang", "polak_ribiere", "dai_yuan"]


class CGState(NamedTuple):
    """The next direction [n], whether it is $-g$, and the last step times its slope."""

    direction: Array
    fresh: Array
    decrease: Array


def _divide(a: Array, b: Array) -> Array:
    return a / jnp.where(b == 0, jnp.inf, b)


def beta(formula: Formula, before: Array, after: Array, direction: Array) -> Array:
    """How much of the last direction to keep."""
    change = after - before
    bend = dot(direction, change)
    if formula == "polak_ribiere":
        return jnp.maximum(_divide(dot(after, change), dot(before, before)), 0)
    if formula == "dai_yuan":
        # after a short step of its own this formula keeps making short ones; gradients that are far from orthogonal
        # are the sign of it
        jammed = jnp.abs(dot(after, before)) >= 0.2 * dot(after, after)
        return jnp.where(jammed, 0, jnp.maximum(_divide(dot(after, after), bend), 0))
    full = _divide(dot(change, after) - 2 * _divide(dot(change, change), bend) * dot(direction, after), bend)
    return jnp.maximum(full, -_divide(jnp.ones(()), norm(direction) * jnp.minimum(0.01, norm(before))))


@dataclasses.dataclass(frozen=True)
class ConjugateGradient(BaseMethod):
    """Nonlinear conjugate gradients.

    Args:
        formula: Which one: `"hager_zhang"`, `"polak_ribiere"` (PR+) or `"dai_yuan"`.
        line_search: The line search; strong Wolfe with a tight slope by default, which Dai and Yuan's formula and PR+
            need.
    """

    formula: Formula = "hager_zhang"
    line_search: LineSearch = dataclasses.field(default_factory=lambda: StrongWolfe(c2=0.1))

    def __post_init__(self) -> None:
        check_choice("ConjugateGradient", "formula", self.formula, Formula)

    def init(self, problem: Problem, point: Point) -> CGState:
        """Steepest descent."""
        del problem
        return CGState(-point.grad, jnp.array(True), jnp.zeros((), point.grad.dtype))

    def step(self, problem: Problem, point: Point, state: CGState) -> tuple[Point, CGState, StepInfo]:
        """One step."""
        steepest, steepest_slope, power = steepest_descent(point.grad)
        along = power * state.direction
        slope = dot(along, point.grad)
        usable = (slope < 0) & ~state.fresh
        direction = jnp.where(usable, along, steepest)
        slope = jnp.where(usable, slope, steepest_slope)
        # the decrease to first order is that of the last step, for want of better
        again = _divide(state.decrease, slope)
        step0 = jnp.where(again > 0, again, unit_step(point.grad) / power)
        new, found, cost = search_along(problem, point, direction, slope, step0, self.line_search)
        failed = ~found.decreased
        keep = beta(self.formula, power * point.grad, power * new.grad, direction)
        keep = jnp.where(failed | ~jnp.isfinite(keep), 0, keep).astype(slope.dtype)
        after = -new.grad + keep * (direction / power)
        decrease = jnp.where(failed, 0, found.step * slope)
        predicted = jnp.abs(slope * step0)
        over = failed & (~usable | problem.at_floor(point, predicted))
        info = StepInfo(power * found.step, cost, over, found.decreased, predicted)
        return new, CGState(after, failed, decrease.astype(slope.dtype)), info
