r"""Nonlinear conjugate gradients: $d_{t+1} = -g_{t+1} + \beta_t d_t$, with a line search along $d$.

With $y_t = g_{t+1} - g_t$ the formulas are

$$
\beta^\text{PR+} = \max\Bigl(0, \frac{g_{t+1}^\top y_t}{\lVert g_t \rVert^2}\Bigr), \qquad
\beta^\text{DY} = \frac{\lVert g_{t+1} \rVert^2}{d_t^\top y_t}, \qquad
\beta^\text{HZ} = \frac{1}{d_t^\top y_t} \Bigl(y_t - 2 d_t \frac{\lVert y_t \rVert^2}{d_t^\top y_t}\Bigr)^\top g_{t+1}
$$

the last one not below $-1 / (\lVert d_t \rVert \min(0.01, \lVert g_t \rVert))$. Where $d$ is no direction of descent,
or a search fails, it restarts from $-g$; Dai and Yuan's also where successive gradients are far from orthogonal.

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
    """What a step hands to the next.

    Attributes:
        direction: The next direction [n].
        restarted: Whether it is $-g$.
        decrease: The last step length times its slope, a decrease to first order; 0 where there is none.
    """

    direction: Array
    restarted: Array
    decrease: Array


def _divide(a: Array, b: Array) -> Array:
    """The quotient; 0 where `b` is."""
    return a / jnp.where(b == 0, jnp.inf, b)


def beta(formula: Formula, last_grad: Array, grad: Array, direction: Array) -> Array:
    r"""$\beta_t$ of the gradients [n] before and after a step, and the step's direction [n]."""
    y = grad - last_grad
    d_y = dot(direction, y)
    if formula == "polak_ribiere":
        return jnp.maximum(_divide(dot(grad, y), dot(last_grad, last_grad)), 0)
    if formula == "dai_yuan":
        # after a short step of its own this formula keeps making short ones; gradients that are far from orthogonal
        # are the sign of it
        jammed = jnp.abs(dot(grad, last_grad)) >= 0.2 * dot(grad, grad)
        return jnp.where(jammed, 0, jnp.maximum(_divide(dot(grad, grad), d_y), 0))
    hager_zhang = _divide(dot(y, grad) - 2 * _divide(dot(y, y), d_y) * dot(direction, grad), d_y)
    return jnp.maximum(hager_zhang, -_divide(jnp.ones(()), norm(direction) * jnp.minimum(0.01, norm(last_grad))))


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
        """Checks the formula."""
        check_choice("ConjugateGradient", "formula", self.formula, Formula)

    def init(self, problem: Problem, point: Point) -> CGState:
        """Steepest descent."""
        del problem
        return CGState(-point.grad, jnp.array(True), jnp.zeros((), point.grad.dtype))

    def step(self, problem: Problem, point: Point, state: CGState) -> tuple[Point, CGState, StepInfo]:
        """A line search along the direction, and the next direction."""
        steepest, steepest_slope, power = steepest_descent(point.grad)
        conjugate = power * state.direction
        slope = dot(conjugate, point.grad)
        usable = (slope < 0) & ~state.restarted
        direction = jnp.where(usable, conjugate, steepest)
        slope = jnp.where(usable, slope, steepest_slope)
        # the first trial step decreases the value, to first order, as much as the last step did
        same_decrease = _divide(state.decrease, slope)
        step0 = jnp.where(same_decrease > 0, same_decrease, unit_step(point.grad) / power)
        new, result, cost = search_along(problem, point, direction, slope, step0, self.line_search)
        failed = ~result.decreased
        beta_t = beta(self.formula, power * point.grad, power * new.grad, direction)
        beta_t = jnp.where(failed | ~jnp.isfinite(beta_t), 0, beta_t).astype(slope.dtype)
        next_direction = -new.grad + beta_t * (direction / power)
        decrease = jnp.where(failed, 0, result.step * slope).astype(slope.dtype)
        predicted = jnp.abs(slope * step0)
        # a search along a conjugate direction that failed is tried again along the gradient
        final = failed & (~usable | problem.at_floor(point, predicted))
        info = StepInfo(power * result.step, cost, final, result.decreased, predicted)
        return new, CGState(next_direction, failed, decrease), info
