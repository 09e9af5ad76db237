r"""Strong Wolfe: a step that decreases the value enough, at a point flat enough.

$$
\varphi(t) \le \varphi(0) + c_1 t \varphi'(0), \qquad |\varphi'(t)| \le c_2 |\varphi'(0)|
$$

An interval that holds such a step is found by growing steps, then narrowed by the minimizers of cubics and parabolas
through its ends (the four cases of Moré and Thuente), and bisected where that is too slow. Where the values differ by
no more than rounding, the decrease is read off the slopes, as Hager and Zhang do: $(2 c_1 - 1) \varphi'(0) \ge
\varphi'(t)$. One evaluation in an iteration of one loop.

References:
    - Moré and Thuente, "Line search algorithms with guaranteed sufficient decrease",
      https://doi.org/10.1145/192115.192132, 1994.
    - Hager and Zhang, "A new conjugate gradient method with guaranteed descent and an efficient line search",
      https://doi.org/10.1137/030601880, 2005 (the approximate decrease).
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree, Scalar, tree_where
from jgd.minimizers.line_searches._protocol import BaseLineSearch, Line, LineSearchResult

#: Evaluations in which a search goes on by the slopes, where rounding hides what it could gain.
MAX_HIDDEN = 4
#: The shortest step that slopes alone can show to be good, relative to the first trial step.
SHORTEST = 1e-2


class _Endpoint(NamedTuple):
    """A step length, the value there less that at zero (so that no digits are lost), and the slope."""

    step: Array
    rise: Array
    slope: Array


class _State(NamedTuple):
    """The interval of uncertainty, and the trial step to evaluate next.

    Attributes:
        best: The end with the lower value.
        best_rise: The rise of `best` as evaluated, where `best.rise` may be that of the slopes.
        other: The other end.
        trial: The trial step.
        bracketed: Whether the ends hold a minimizer between them; else the steps still grow.
        barrier: The shortest step that led to a value that is not finite.
        saw_minus_infinity: Whether such a value was minus infinity.
        width: The length of the interval; infinite before there is one.
        last_width: That before.
        count: Evaluations made.
        done: Whether the search has ended.
        success: Whether `best` fulfills the conditions.
        data: What came with the evaluation of `best`.
    """

    best: _Endpoint
    best_rise: Array
    other: _Endpoint
    trial: Array
    bracketed: Array
    barrier: Array
    saw_minus_infinity: Array
    width: Array
    last_width: Array
    count: Array
    done: Array
    success: Array
    data: PyTree


def _start(line: Line) -> _State:
    zero = _Endpoint(jnp.zeros_like(line.dphi0), jnp.zeros_like(line.phi0), line.dphi0)
    infinity, false = jnp.full_like(line.dphi0, jnp.inf), jnp.array(False)
    return _State(
        best=zero,
        best_rise=zero.rise,
        other=zero,
        trial=line.step0,
        bracketed=false,
        barrier=infinity,
        saw_minus_infinity=false,
        width=infinity,
        last_width=infinity,
        count=jnp.zeros((), jnp.int32),
        done=~line.active,
        success=false,
        data=line.no_data,
    )


def _cubic(a: _Endpoint, b: _Endpoint) -> tuple[Array, Array]:
    """The minimizer of the cubic through two points with their slopes, and whether it has one."""
    gap = jnp.where(b.step == a.step, 1, b.step - a.step)
    theta = 3 * (a.rise - b.rise) / gap + a.slope + b.slope
    scale = jnp.maximum(jnp.abs(theta), jnp.maximum(jnp.abs(a.slope), jnp.abs(b.slope)))
    scale = jnp.where(scale > 0, scale, 1)
    square = (theta / scale) ** 2 - (a.slope / scale) * (b.slope / scale)
    root = jnp.sign(gap) * scale * jnp.sqrt(jnp.maximum(square, 0))
    denominator = b.slope - a.slope + 2 * root
    return b.step - gap * (b.slope + root - theta) / jnp.where(denominator == 0, jnp.nan, denominator), square > 0


def _next_trial(s: _State, trial: _Endpoint, higher: Array, sign_changed: Array, low: Array, high: Array) -> Array:
    """The next trial step: between the ends, or from `low` to `high` while no minimizer is bracketed."""
    best, other = s.best, s.other
    cubic, has_minimum = _cubic(best, trial)
    gap = trial.step - best.step
    secant = trial.step - gap * trial.slope / jnp.where(trial.slope == best.slope, jnp.nan, trial.slope - best.slope)
    drop = (best.rise - trial.rise) / jnp.where(gap == 0, jnp.nan, gap) + best.slope
    parabola = best.step + 0.5 * gap * best.slope / jnp.where(drop == 0, jnp.nan, drop)

    # (1) the value is higher
    nearer = jnp.abs(cubic - best.step) < jnp.abs(parabola - best.step)
    step1 = jnp.where(nearer, cubic, 0.5 * (cubic + parabola))
    # (2) lower, with a slope of the other sign
    step2 = jnp.where(jnp.abs(cubic - trial.step) >= jnp.abs(secant - trial.step), cubic, secant)
    # (3) lower, with a slope of the same sign that is flatter
    onward = has_minimum & ((cubic - trial.step) * gap > 0)
    cubic3 = jnp.where(onward, cubic, jnp.where(gap > 0, high, low))
    closer = jnp.abs(cubic3 - trial.step) < jnp.abs(secant - trial.step)
    limit = trial.step + 0.66 * (other.step - trial.step)
    inside = jnp.where(closer, cubic3, secant)
    inside = jnp.where(gap > 0, jnp.minimum(limit, inside), jnp.maximum(limit, inside))
    outside = jnp.clip(jnp.where(closer, secant, cubic3), low, high)
    step3 = jnp.where(s.bracketed, inside, outside)
    # (4) lower, with a slope of the same sign that is as steep or steeper
    step4 = jnp.where(s.bracketed, _cubic(other, trial)[0], jnp.where(gap > 0, high, low))

    flatter = jnp.abs(trial.slope) < jnp.abs(best.slope)
    return jnp.where(higher, step1, jnp.where(sign_changed, step2, jnp.where(flatter, step3, step4)))


@dataclasses.dataclass(frozen=True)
class StrongWolfe(BaseLineSearch):
    """A line search for the strong Wolfe conditions.

    Args:
        c1: The part of the decrease that the slope at zero predicts (sufficient decrease), in (0, 0.5).
        c2: The part of the slope at zero that may remain (curvature condition), in (c1, 1); 0.9 for quasi-Newton
            steps, 0.1 for conjugate gradients.
        max_evaluations: Evaluations at most.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimizers import StrongWolfe
        >>> phi = lambda t: ((t - 3.0) ** 2, 2 * (t - 3.0), None)
        >>> result = StrongWolfe(c2=0.1)(phi, jnp.array(9.0), jnp.array(-6.0), 1.0)
        >>> print(f"{result.step:.3f}", result.evaluations, result.success)
        3.000 2 True
    """

    c1: Scalar = 1e-4
    c2: Scalar = 0.9
    max_evaluations: int = 30
    needs_slope: ClassVar[bool] = True

    def search(self, line: Line) -> LineSearchResult:
        """Brackets a minimizer, then narrows the interval."""
        phi0, dphi0, noise = line.phi0, line.dphi0, line.noise
        dtype, value_dtype = dphi0.dtype, phi0.dtype
        # the first step predicts no decrease above rounding: then the slopes may decide
        at_floor = jnp.abs(line.step0 * dphi0) <= 10 * noise

        def body(s: _State) -> _State:
            value, slope, data = line.phi(s.trial)
            rise = value.astype(value_dtype) - phi0
            finite = jnp.isfinite(rise) & jnp.isfinite(slope)
            # where rounding hides what the search could gain, the change of the value is that of the slopes
            hidden = finite & at_floor & (jnp.maximum(jnp.abs(rise), jnp.abs(s.trial * dphi0)) <= noise)
            estimated = jnp.where(hidden, 0.5 * s.trial * (dphi0 + slope), rise).astype(value_dtype)
            trial = _Endpoint(s.trial, estimated, slope.astype(dtype))
            curvature_condition = jnp.abs(slope) <= self.c2 * jnp.abs(dphi0)
            decrease_condition = trial.rise <= self.c1 * s.trial * dphi0
            approximate = (jnp.abs(rise) <= noise) & ((2 * self.c1 - 1) * dphi0 >= slope)
            at_max_step = (s.trial >= line.max_step) & decrease_condition & (slope <= self.c1 * dphi0)
            # a step far shorter than the first trial comes from rounded slopes
            curvature_condition &= ~hidden | (s.trial >= SHORTEST * line.step0)
            wolfe = curvature_condition & (decrease_condition | approximate)
            success = finite & (wolfe | at_max_step)
            narrowed = self._narrow(s, trial, decrease_condition, line.max_step)
            retreat = s._replace(
                trial=s.best.step + 0.2 * (s.trial - s.best.step),
                barrier=s.trial,
                saw_minus_infinity=s.saw_minus_infinity | (rise == -jnp.inf),
            )
            new = tree_where(finite, narrowed, retreat)
            improved = finite & (success | (trial.rise <= s.best.rise))
            count = s.count + 1
            no_trial = (new.trial == s.trial) | (new.trial == new.best.step)
            no_trial |= ~(new.trial > 0) | ~jnp.isfinite(new.trial)
            # the interval holds no decrease that could be told from rounding
            end = jnp.where(new.bracketed, jnp.maximum(new.best.step, new.other.step), s.trial)
            hopeless = (new.bracketed & ((count >= MAX_HIDDEN) | ~at_floor)) | ~finite
            hopeless &= jnp.abs(dphi0) * end <= noise
            return new._replace(
                best=tree_where(success, trial, new.best),
                best_rise=jnp.where(improved, rise, s.best_rise),
                data=tree_where(improved, data, s.data),
                count=count,
                success=success,
                done=success | (count >= self.max_evaluations) | no_trial | hopeless,
            )

        s = jax.lax.while_loop(lambda s: ~s.done, body, _start(line))
        decreased = (s.best.step > 0) & (((s.best_rise <= 0) & ~at_floor) | s.success)
        # where no step decreases to a finite value, but one to minus infinity, that is the result
        unbounded = ~decreased & s.saw_minus_infinity
        step = jnp.where(unbounded, s.barrier, jnp.where(decreased, s.best.step, 0))
        value = jnp.where(unbounded, -jnp.inf, phi0 + jnp.where(decreased, s.best_rise, 0))
        # the largest step ends a search, however steep the function is there
        success = s.success & (jnp.abs(s.best.slope) <= self.c2 * jnp.abs(dphi0))
        return LineSearchResult(step, value, s.best.slope, s.data, s.count, success, decreased | unbounded)

    def _narrow(self, s: _State, trial: _Endpoint, decrease_condition: Array, max_step: Array) -> _State:
        """The interval with the trial step as an end, and the next trial step."""
        low = trial.step + 1.1 * (trial.step - s.best.step)
        high = jnp.minimum(trial.step + 4 * (trial.step - s.best.step), max_step)
        high = jnp.minimum(high, trial.step + 0.5 * (s.barrier - trial.step))
        higher = (trial.rise > s.best.rise) | ~decrease_condition
        sign_changed = trial.slope * jnp.sign(s.best.slope) < 0
        step = _next_trial(s, trial, higher, sign_changed, jnp.minimum(low, high), high)
        bracketed = s.bracketed | higher | sign_changed
        other = tree_where(higher, trial, tree_where(sign_changed, s.best, s.other))
        best = tree_where(higher, s.best, trial)
        width = jnp.abs(other.step - best.step)
        slow = bracketed & (width >= 0.66 * s.last_width)
        left, right = jnp.minimum(best.step, other.step), jnp.maximum(best.step, other.step)
        outside = ~((step > left) & (step < right))
        step = jnp.where(slow | (bracketed & outside), 0.5 * (left + right), step).astype(trial.step.dtype)
        return s._replace(
            best=best,
            other=other,
            trial=step,
            bracketed=bracketed,
            width=jnp.where(bracketed, width, s.width),
            last_width=jnp.where(bracketed, s.width, s.last_width),
        )
