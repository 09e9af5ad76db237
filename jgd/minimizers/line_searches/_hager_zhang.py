r"""Hager and Zhang's line search: the Wolfe conditions, or near a minimum those that rounding leaves.

A step is taken where the Wolfe conditions hold,

$$
\varphi(t) \le \varphi(0) + \delta t \varphi'(0), \qquad \varphi'(t) \ge \sigma \varphi'(0)
$$

or the approximate ones: $(2\delta - 1) \varphi'(0) \ge \varphi'(t) \ge \sigma \varphi'(0)$ and $\varphi(t) \le
\varphi(0) + \epsilon$. The former cannot be seen in the values once their differences are below rounding, about
$\sqrt{\epsilon}$ from a minimum; the latter can, in the slopes. An interval whose ends have slopes of opposite sign is
narrowed by pairs of secant steps, and halved where they are too slow.

References:
    - Hager and Zhang, "A new conjugate gradient method with guaranteed descent and an efficient line search",
      https://doi.org/10.1137/030601880, 2005 (conditions T1 and T2, bracket, update, and double secant steps).
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree
from jgd.minimizers.line_searches._protocol import LineSearchResult, Phi, opening
from jgd.minimizers.problem._problem import choose

#: What the next evaluation is for: growing the interval, the two secant steps, the middle of a slow interval.
GROW, FIRST, SECOND, MIDDLE = range(4)


class _End(NamedTuple):
    step: Array
    drop: Array
    slope: Array


class _State(NamedTuple):
    low: _End
    high: _End
    low_before: _End
    high_before: _End
    best: _End
    fell: Array
    trial: Array
    phase: Array
    halving: Array
    bracketed: Array
    count: Array
    success: Array
    done: Array
    data: PyTree


def _secant(a: _End, b: _End) -> Array:
    return (a.step * b.slope - b.step * a.slope) / (b.slope - a.slope)


@dataclasses.dataclass(frozen=True)
class HagerZhang:
    """A line search for the Wolfe or the approximate Wolfe conditions.

    Args:
        delta: The part of the decrease that the slope at zero promises, in (0, 0.5).
        sigma: The part of the slope at zero that may remain, in [delta, 1).
        expansion: By what a step grows while no interval is known, above 1.
        shrinkage: What an interval must become, in (0, 1), or it is halved.
        max_evaluations: Evaluations at most.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimizers import HagerZhang
        >>> phi = lambda t: ((t - 3.0) ** 2, 2 * (t - 3.0), None)
        >>> found = HagerZhang(sigma=0.1)(phi, jnp.array(9.0), jnp.array(-6.0), 1.0)
        >>> print(f"{found.step:.3f}", found.evaluations, found.success)
        5.000 2 True
    """

    delta: float = 0.1
    sigma: float = 0.9
    expansion: float = 5.0
    shrinkage: float = 0.66
    max_evaluations: int = 40
    needs_slope: ClassVar[bool] = True

    def __call__(
        self,
        phi: Phi,
        phi0: Array,
        dphi0: Array,
        step0: Any,
        noise: Any = 0.0,
        max_step: Any = jnp.inf,
        active: Any = True,
    ) -> LineSearchResult:
        """Searches; see `jgd.minimizers.LineSearchResult`."""
        phi0, dphi0 = jnp.asarray(phi0), jnp.asarray(dphi0)
        dtype, ceiling = dphi0.dtype, jnp.asarray(max_step, dphi0.dtype)
        first, data, done = opening(phi, phi0, dphi0, step0, max_step, active)
        origin = _End(jnp.zeros((), dtype), jnp.zeros((), phi0.dtype), dphi0)
        nowhere = _End(jnp.full((), jnp.inf, dtype), jnp.full((), jnp.inf, phi0.dtype), jnp.ones((), dtype))
        false = jnp.array(False)
        state = _State(
            low=origin,
            high=nowhere,
            low_before=origin,
            high_before=nowhere,
            best=origin,
            fell=jnp.zeros((), dtype),
            trial=first,
            phase=jnp.array(GROW),
            halving=false,
            bracketed=false,
            count=jnp.zeros((), jnp.int32),
            success=false,
            done=done,
            data=data,
        )

        def turn(s: _State) -> _State:
            value, slope, data = phi(s.trial)
            drop = value.astype(phi0.dtype) - phi0
            finite = jnp.isfinite(drop) & jnp.isfinite(slope)
            end = _End(s.trial, jnp.where(finite, drop, jnp.inf), jnp.where(finite, slope, -1).astype(dtype))
            steep = end.slope < self.sigma * dphi0
            wolfe = (end.drop <= self.delta * s.trial * dphi0) & ~steep
            approximate = (end.drop <= noise) & ((2 * self.delta - 1) * dphi0 >= end.slope) & ~steep
            at_ceiling = (s.trial >= ceiling) & (end.drop <= self.delta * s.trial * dphi0)
            success = finite & (wolfe | approximate | at_ceiling)
            better = success | (finite & (end.drop < s.best.drop))
            new = self._narrow(s, end, noise, ceiling)
            count = s.count + 1
            stuck = (new.trial == s.trial) | ~(new.trial > 0) | ~jnp.isfinite(new.trial)
            return new._replace(
                best=choose(better, end, s.best),
                fell=jnp.where(drop == -jnp.inf, s.trial, s.fell),
                data=choose(better, data, s.data),
                count=count,
                success=success,
                done=success | stuck | (count >= self.max_evaluations),
            )

        s = jax.lax.while_loop(lambda s: ~s.done, turn, state)
        decreased = (s.best.step > 0) & (s.success | (s.best.drop <= 0))
        # the largest step ends a search, however steep the function is there
        success = s.success & (s.best.slope >= self.sigma * dphi0)
        # where nothing but a value of minus infinity was found, that is the answer
        bottomless = ~decreased & (s.fell > 0)
        step = jnp.where(bottomless, s.fell, s.best.step)
        value = jnp.where(bottomless, -jnp.inf, phi0 + s.best.drop)
        return LineSearchResult(step, value, s.best.slope, s.data, s.count, success, decreased | bottomless)

    def _narrow(self, s: _State, end: _End, noise: Any, ceiling: Array) -> _State:
        """The interval with one point more, and the next point to look at."""
        inside = (end.step > s.low.step) & (end.step < s.high.step)
        turned, high = end.slope >= 0, (end.slope < 0) & ~(end.drop <= noise)
        to_high = inside & (turned | high)
        to_low = inside & ~(turned | high)
        low, top = choose(to_low, end, s.low), choose(to_high, end, s.high)
        halving = (inside & high) | (s.halving & ~turned)
        bracketed = s.bracketed | to_high

        # the second secant step goes through the end that the first one has replaced
        second = jnp.where(to_high, _secant(s.high_before, top), _secant(s.low_before, low))
        usable = (second > low.step) & (second < top.step)
        middle = 0.5 * (low.step + top.step)
        slow = top.step - low.step > self.shrinkage * (s.high_before.step - s.low_before.step)
        was_first, was_second = s.phase == FIRST, s.phase == SECOND
        secant = _secant(low, top)
        # the end of a halving has no slope of the right sign to draw a secant through while halving goes on
        secant = jnp.where((secant > low.step) & (secant < top.step), secant, middle)
        phase = jnp.where(was_first & usable, SECOND, jnp.where((was_first | was_second) & slow, MIDDLE, FIRST))
        trial = jnp.where(phase == SECOND, second, jnp.where(phase == MIDDLE, middle, secant))
        trial = jnp.where(halving, middle, trial)
        trial = jnp.where(bracketed, trial, jnp.minimum(self.expansion * end.step, ceiling))
        phase = jnp.where(bracketed, jnp.where(halving, s.phase, phase), GROW)
        fresh = (phase == FIRST) & ~halving
        return s._replace(
            low=low,
            high=top,
            low_before=choose(fresh, low, s.low_before),
            high_before=choose(fresh, top, s.high_before),
            trial=trial,
            phase=phase,
            halving=halving,
            bracketed=bracketed,
        )
