r"""Hager and Zhang's line search: the Wolfe conditions, or near a minimum those that rounding leaves.

A step is taken where the Wolfe conditions hold,

$$
\varphi(t) \le \varphi(0) + \delta t \varphi'(0), \qquad \varphi'(t) \ge \sigma \varphi'(0)
$$

or the approximate ones: $(2\delta - 1) \varphi'(0) \ge \varphi'(t) \ge \sigma \varphi'(0)$ and $\varphi(t) \le
\varphi(0) + \epsilon$. The former cannot be seen in the values once their differences are below rounding, about
$\sqrt{\epsilon}$ from a minimum; the latter can, in the slopes. An interval whose ends have slopes of opposite sign is
narrowed by pairs of secant steps, and bisected where they are too slow.

References:
    - Hager and Zhang, "A new conjugate gradient method with guaranteed descent and an efficient line search",
      https://doi.org/10.1137/030601880, 2005 (conditions T1 and T2, bracket, update, and double secant steps).
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree, Scalar, tree_where
from jgd.minimizers.line_searches._protocol import BaseLineSearch, Line, LineSearchResult

#: What the trial step is for: to expand the interval, the two secant steps, the middle of an interval that shrinks
#: slowly.
EXPAND, FIRST_SECANT, SECOND_SECANT, MIDDLE = range(4)


class _Endpoint(NamedTuple):
    """A step length, the value there less that at zero (so that no digits are lost), and the slope."""

    step: Array
    rise: Array
    slope: Array


class _State(NamedTuple):
    """The interval, and the trial step to evaluate next.

    Attributes:
        low: The left end, where the slope is negative and the value at most `noise` above that at zero.
        high: The right end, where the slope is not negative, or the value higher; infinite before there is one.
        last_low: The left end when the last pair of secant steps began.
        last_high: The right end then.
        best: The lowest point found.
        minus_infinity: The step that led to a value of minus infinity; 0 where none did.
        trial: The trial step.
        phase: What it is for.
        bisecting: Whether the right end has a negative slope and a higher value, so that only bisection helps.
        bracketed: Whether there is a right end.
        count: Evaluations made.
        success: Whether `best` fulfills the conditions.
        done: Whether the search has ended.
        data: What came with the evaluation of `best`.
    """

    low: _Endpoint
    high: _Endpoint
    last_low: _Endpoint
    last_high: _Endpoint
    best: _Endpoint
    minus_infinity: Array
    trial: Array
    phase: Array
    bisecting: Array
    bracketed: Array
    count: Array
    success: Array
    done: Array
    data: PyTree


def _start(line: Line) -> _State:
    zero = _Endpoint(jnp.zeros_like(line.dphi0), jnp.zeros_like(line.phi0), line.dphi0)
    nowhere = _Endpoint(
        jnp.full_like(line.dphi0, jnp.inf), jnp.full_like(line.phi0, jnp.inf), jnp.ones_like(line.dphi0)
    )
    false = jnp.array(False)
    return _State(
        low=zero,
        high=nowhere,
        last_low=zero,
        last_high=nowhere,
        best=zero,
        minus_infinity=zero.step,
        trial=line.step0,
        phase=jnp.array(EXPAND),
        bisecting=false,
        bracketed=false,
        count=jnp.zeros((), jnp.int32),
        success=false,
        done=~line.active,
        data=line.no_data,
    )


def _secant(a: _Endpoint, b: _Endpoint) -> Array:
    """Where the line through two slopes is zero."""
    return (a.step * b.slope - b.step * a.slope) / (b.slope - a.slope)


@dataclasses.dataclass(frozen=True)
class HagerZhang(BaseLineSearch):
    """A line search for the Wolfe or the approximate Wolfe conditions.

    Args:
        delta: The part of the decrease that the slope at zero predicts, in (0, 0.5).
        sigma: The part of the slope at zero that may remain, in [delta, 1).
        expansion: The factor by which a trial step grows while no minimizer is bracketed, above 1.
        shrinkage: The part of its length to which a pair of secant steps must shrink an interval, in (0, 1), or it is
            bisected.
        max_evaluations: Evaluations at most.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimizers import HagerZhang
        >>> phi = lambda t: ((t - 3.0) ** 2, 2 * (t - 3.0), None)
        >>> result = HagerZhang(sigma=0.1)(phi, jnp.array(9.0), jnp.array(-6.0), 1.0)
        >>> print(f"{result.step:.3f}", result.evaluations, result.success)
        5.000 2 True
    """

    delta: Scalar = 0.1
    sigma: Scalar = 0.9
    expansion: Scalar = 5.0
    shrinkage: Scalar = 0.66
    max_evaluations: int = 40
    needs_slope: ClassVar[bool] = True

    def search(self, line: Line) -> LineSearchResult:
        """Brackets a minimizer, then narrows the interval."""
        phi0, dphi0, noise = line.phi0, line.dphi0, line.noise
        dtype, value_dtype = dphi0.dtype, phi0.dtype

        def body(s: _State) -> _State:
            value, slope, data = line.phi(s.trial)
            rise = value.astype(value_dtype) - phi0
            finite = jnp.isfinite(rise) & jnp.isfinite(slope)
            trial = _Endpoint(s.trial, jnp.where(finite, rise, jnp.inf), jnp.where(finite, slope, -1).astype(dtype))
            steep = trial.slope < self.sigma * dphi0
            sufficient = trial.rise <= self.delta * s.trial * dphi0
            wolfe = sufficient & ~steep
            approximate = (trial.rise <= noise) & ((2 * self.delta - 1) * dphi0 >= trial.slope) & ~steep
            at_max_step = (s.trial >= line.max_step) & sufficient
            success = finite & (wolfe | approximate | at_max_step)
            better = success | (finite & (trial.rise < s.best.rise))
            new = self._narrow(s, trial, line)
            count = s.count + 1
            no_trial = (new.trial == s.trial) | ~(new.trial > 0) | ~jnp.isfinite(new.trial)
            return new._replace(
                best=tree_where(better, trial, s.best),
                minus_infinity=jnp.where(rise == -jnp.inf, s.trial, s.minus_infinity),
                data=tree_where(better, data, s.data),
                count=count,
                success=success,
                done=success | no_trial | (count >= self.max_evaluations),
            )

        s = jax.lax.while_loop(lambda s: ~s.done, body, _start(line))
        decreased = (s.best.step > 0) & (s.success | (s.best.rise <= 0))
        # the largest step ends a search, however steep the function is there
        success = s.success & (s.best.slope >= self.sigma * dphi0)
        # where no step decreases to a finite value, but one to minus infinity, that is the result
        unbounded = ~decreased & (s.minus_infinity > 0)
        step = jnp.where(unbounded, s.minus_infinity, s.best.step)
        value = jnp.where(unbounded, -jnp.inf, phi0 + s.best.rise)
        return LineSearchResult(step, value, s.best.slope, s.data, s.count, success, decreased | unbounded)

    def _narrow(self, s: _State, trial: _Endpoint, line: Line) -> _State:
        """The interval with the trial step as an end where it is inside, and the next trial step."""
        inside = (trial.step > s.low.step) & (trial.step < s.high.step)
        uphill, higher = trial.slope >= 0, (trial.slope < 0) & ~(trial.rise <= line.noise)
        to_high = inside & (uphill | higher)
        to_low = inside & ~(uphill | higher)
        low, high = tree_where(to_low, trial, s.low), tree_where(to_high, trial, s.high)
        bisecting = (inside & higher) | (s.bisecting & ~uphill)
        bracketed = s.bracketed | to_high

        # the second secant step goes through the end that the first one has replaced
        second = jnp.where(to_high, _secant(s.last_high, high), _secant(s.last_low, low))
        usable = (second > low.step) & (second < high.step)
        middle = 0.5 * (low.step + high.step)
        slow = high.step - low.step > self.shrinkage * (s.last_high.step - s.last_low.step)
        was_first, was_second = s.phase == FIRST_SECANT, s.phase == SECOND_SECANT
        secant = _secant(low, high)
        # while bisection goes on, the right end has no slope of the right sign to draw a secant through
        secant = jnp.where((secant > low.step) & (secant < high.step), secant, middle)
        phase = jnp.where((was_first | was_second) & slow, MIDDLE, FIRST_SECANT)
        phase = jnp.where(was_first & usable, SECOND_SECANT, phase)
        step = jnp.where(phase == SECOND_SECANT, second, jnp.where(phase == MIDDLE, middle, secant))
        step = jnp.where(bisecting, middle, step)
        step = jnp.where(bracketed, step, jnp.minimum(self.expansion * trial.step, line.max_step))
        phase = jnp.where(bracketed, jnp.where(bisecting, s.phase, phase), EXPAND)
        new_pair = (phase == FIRST_SECANT) & ~bisecting
        return s._replace(
            low=low,
            high=high,
            last_low=tree_where(new_pair, low, s.last_low),
            last_high=tree_where(new_pair, high, s.last_high),
            trial=step,
            phase=phase,
            bisecting=bisecting,
            bracketed=bracketed,
        )
