r"""Strong Wolfe: a step that decreases the value enough, at a point flat enough.

$$
\varphi(t) \le \varphi(0) + c_1 t \varphi'(0), \qquad |\varphi'(t)| \le c_2 |\varphi'(0)|
$$

An interval that holds such a step is found by growing steps, then narrowed by the minimizers of cubics and parabolas
through its ends (the four cases of Moré and Thuente), and halved where that is too slow. Where the values differ by no
more than rounding, the decrease is read off the slopes, as Hager and Zhang do: $(2 c_1 - 1) \varphi'(0) \ge
\varphi'(t)$. One evaluation a turn of one loop.

References:
    - Moré and Thuente, "Line search algorithms with guaranteed sufficient decrease",
      https://doi.org/10.1145/192115.192132, 1994.
    - Hager and Zhang, "A new conjugate gradient method with guaranteed descent and an efficient line search",
      https://doi.org/10.1137/030601880, 2005 (the approximate decrease).
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree
from jgd.minimizers.line_searches._protocol import LineSearchResult, Phi, opening
from jgd.minimizers.problem._problem import choose


class _End(NamedTuple):
    step: Array
    value: Array
    slope: Array


#: Evaluations in which a search goes on by the slopes, where rounding hides what it could gain.
PROBES = 4
#: The shortest step that slopes alone can show to be good, relative to the first one tried.
SHORTEST = 1e-2


class _State(NamedTuple):
    best: _End
    drop: Array
    other: _End
    trial: Array
    bracketed: Array
    ceiling: Array
    wall: Array
    fell: Array
    width: Array
    width_before: Array
    count: Array
    done: Array
    success: Array
    data: PyTree


def _cubic(a: _End, b: _End) -> tuple[Array, Array]:
    """The minimizer of the cubic through two ends with their slopes, and whether it has one."""
    gap = jnp.where(b.step == a.step, 1, b.step - a.step)
    theta = 3 * (a.value - b.value) / gap + a.slope + b.slope
    scale = jnp.maximum(jnp.abs(theta), jnp.maximum(jnp.abs(a.slope), jnp.abs(b.slope)))
    scale = jnp.where(scale > 0, scale, 1)
    square = (theta / scale) ** 2 - (a.slope / scale) * (b.slope / scale)
    root = jnp.sign(gap) * scale * jnp.sqrt(jnp.maximum(square, 0))
    below = b.slope - a.slope + 2 * root
    return b.step - gap * (b.slope + root - theta) / jnp.where(below == 0, jnp.nan, below), square > 0


def _next_step(s: _State, trial: _End, higher: Array, turned: Array, low: Array, high: Array) -> Array:
    """Where to look next: between the ends, or from `low` to `high` while no interval is known."""
    best, other = s.best, s.other
    cubic, has_minimum = _cubic(best, trial)
    gap = trial.step - best.step
    secant = trial.step - gap * trial.slope / jnp.where(trial.slope == best.slope, jnp.nan, trial.slope - best.slope)
    drop = (best.value - trial.value) / jnp.where(gap == 0, jnp.nan, gap) + best.slope
    parabola = best.step + 0.5 * gap * best.slope / jnp.where(drop == 0, jnp.nan, drop)

    # 1: the value is higher. 2: the slope has turned. 3: it is flatter. 4: it is as steep or steeper.
    nearer = jnp.abs(cubic - best.step) < jnp.abs(parabola - best.step)
    step1 = jnp.where(nearer, cubic, 0.5 * (cubic + parabola))
    step2 = jnp.where(jnp.abs(cubic - trial.step) >= jnp.abs(secant - trial.step), cubic, secant)
    onward = has_minimum & ((cubic - trial.step) * gap > 0)
    cubic3 = jnp.where(onward, cubic, jnp.where(gap > 0, high, low))
    closer = jnp.abs(cubic3 - trial.step) < jnp.abs(secant - trial.step)
    guarded = trial.step + 0.66 * (other.step - trial.step)
    inside = jnp.where(closer, cubic3, secant)
    inside = jnp.where(gap > 0, jnp.minimum(guarded, inside), jnp.maximum(guarded, inside))
    outside = jnp.clip(jnp.where(closer, secant, cubic3), low, high)
    step3 = jnp.where(s.bracketed, inside, outside)
    step4 = jnp.where(s.bracketed, _cubic(other, trial)[0], jnp.where(gap > 0, high, low))

    flatter = jnp.abs(trial.slope) < jnp.abs(best.slope)
    return jnp.where(higher, step1, jnp.where(turned, step2, jnp.where(flatter, step3, step4)))


@dataclasses.dataclass(frozen=True)
class StrongWolfe:
    """A line search for the strong Wolfe conditions.

    Args:
        c1: The part of the decrease that the slope at zero promises, in (0, 0.5).
        c2: The part of the slope at zero that may remain, in (c1, 1); 0.9 for quasi-Newton steps, 0.1 for conjugate
            gradients.
        max_evaluations: Evaluations at most.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimizers import StrongWolfe
        >>> phi = lambda t: ((t - 3.0) ** 2, 2 * (t - 3.0), None)
        >>> found = StrongWolfe(c2=0.1)(phi, jnp.array(9.0), jnp.array(-6.0), 1.0)
        >>> print(f"{found.step:.3f}", found.evaluations, found.success)
        3.000 2 True
    """

    c1: float = 1e-4
    c2: float = 0.9
    max_evaluations: int = 30
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
        """Searches; see `jgd.minimizers.LineSearchResult` and the module's docstring."""
        dphi0 = jnp.asarray(dphi0)
        dtype = dphi0.dtype
        wide = jnp.asarray(phi0).dtype
        first, data, done = opening(phi, jnp.asarray(phi0), dphi0, step0, max_step, active)
        start = _End(jnp.zeros((), dtype), jnp.zeros((), wide), dphi0)
        ceiling, floor = jnp.asarray(max_step, dtype), jnp.abs(first * dphi0) <= 10 * noise
        # values are kept as differences from the first: no digits are lost in what follows
        state = _State(
            best=start,
            drop=start.value,
            other=start,
            trial=first,
            bracketed=jnp.array(False),
            ceiling=ceiling,
            wall=jnp.asarray(jnp.inf, dtype),
            fell=jnp.array(False),
            width=jnp.asarray(jnp.inf, dtype),
            width_before=jnp.asarray(jnp.inf, dtype),
            count=jnp.zeros((), jnp.int32),
            done=done,
            success=jnp.array(False),
            data=data,
        )

        def turn(s: _State) -> _State:
            value, slope, data = phi(s.trial)
            drop = value.astype(wide) - phi0
            finite = jnp.isfinite(drop) & jnp.isfinite(slope)
            # where rounding hides what the search could gain, the change of the value is that of the slopes
            hidden = finite & floor & (jnp.maximum(jnp.abs(drop), jnp.abs(s.trial * dphi0)) <= noise)
            change = jnp.where(hidden, 0.5 * s.trial * (dphi0 + slope), drop).astype(wide)
            trial = _End(s.trial, change, slope.astype(dtype))
            flat = jnp.abs(slope) <= self.c2 * jnp.abs(dphi0)
            enough = change <= self.c1 * s.trial * dphi0
            nearly = (jnp.abs(drop) <= noise) & ((2 * self.c1 - 1) * dphi0 >= slope)
            at_end = (s.trial >= s.ceiling) & enough & (slope <= self.c1 * dphi0)
            # far shorter steps than the one that was to be made are those of rounded slopes
            flat &= ~hidden | (s.trial >= SHORTEST * first)
            success = finite & ((flat & (enough | nearly)) | at_end)
            moved = self._narrow(s, trial, enough)
            retreat = s._replace(trial=s.best.step + 0.2 * (s.trial - s.best.step), wall=s.trial)
            retreat = retreat._replace(fell=s.fell | (drop == -jnp.inf))
            new = choose(finite, moved, retreat)
            improved = finite & (success | (change <= s.best.value))
            kept = choose(improved, data, s.data)
            best = choose(success, trial, new.best)
            count = s.count + 1
            stuck = (new.trial == s.trial) | (new.trial == new.best.step) | ~(new.trial > 0) | ~jnp.isfinite(new.trial)
            # what is left of the interval promises no decrease that could be told from rounding
            end = jnp.where(new.bracketed, jnp.maximum(new.best.step, new.other.step), s.trial)
            hopeless = (new.bracketed & ((count >= PROBES) | ~floor)) | ~finite
            stuck |= hopeless & (jnp.abs(dphi0) * end <= noise)
            done = success | (count >= self.max_evaluations) | stuck
            fallen = jnp.where(improved, drop, s.drop)
            return new._replace(best=best, drop=fallen, data=kept, count=count, success=success, done=done)

        s = jax.lax.while_loop(lambda s: ~s.done, turn, state)
        decreased = (s.best.step > 0) & (((s.drop <= 0) & ~floor) | s.success)
        # where nothing but a value of minus infinity was found, that is the answer
        bottomless = ~decreased & s.fell
        step = jnp.where(bottomless, s.wall, jnp.where(decreased, s.best.step, 0))
        value = jnp.where(bottomless, -jnp.inf, phi0 + jnp.where(decreased, s.drop, 0))
        # the largest step ends a search, however steep the function is there
        success = s.success & (jnp.abs(s.best.slope) <= self.c2 * jnp.abs(dphi0))
        return LineSearchResult(step, value, s.best.slope, s.data, s.count, success, decreased | bottomless)

    def _narrow(self, s: _State, trial: _End, enough: Array) -> _State:
        low = trial.step + 1.1 * (trial.step - s.best.step)
        high = jnp.minimum(trial.step + 4 * (trial.step - s.best.step), s.ceiling)
        high = jnp.minimum(high, trial.step + 0.5 * (s.wall - trial.step))
        higher = (trial.value > s.best.value) | ~enough
        turned = trial.slope * jnp.sign(s.best.slope) < 0
        step = _next_step(s, trial, higher, turned, jnp.minimum(low, high), high)
        bracketed = s.bracketed | higher | turned

        def pick(condition: Array, a: _End, b: _End) -> _End:
            return _End(*(jnp.where(condition, x, y) for x, y in zip(a, b, strict=True)))

        other = pick(higher, trial, pick(turned, s.best, s.other))
        best = pick(higher, s.best, trial)
        width = jnp.abs(other.step - best.step)
        slow = bracketed & (width >= 0.66 * s.width_before)
        left, right = jnp.minimum(best.step, other.step), jnp.maximum(best.step, other.step)
        outside = ~((step > left) & (step < right))
        step = jnp.where(slow | (bracketed & outside), 0.5 * (left + right), step).astype(trial.step.dtype)
        return s._replace(
            best=best,
            other=other,
            trial=step,
            bracketed=bracketed,
            width=jnp.where(bracketed, width, s.width),
            width_before=jnp.where(bracketed, s.width, s.width_before),
        )
