r"""Armijo backtracking: shorter and shorter steps, until the value has decreased enough.

$$
\varphi(t) \le \varphi(0) + c_1 t \varphi'(0)
$$

The next step is the minimizer of the parabola, later of the cubic, through the values known, kept between a tenth and
a half of the last one. It reads values only, so a method computes one gradient a step. Where rounding hides the
decrease asked for, or no evaluation is left, the lowest value met is taken.

References:
    - Armijo, "Minimization of functions having Lipschitz continuous first partial derivatives",
      https://doi.org/10.2140/pjm.1966.16.1, 1966.
    - Dennis and Schnabel, "Numerical methods for unconstrained optimization and nonlinear equations",
      https://doi.org/10.1137/1.9781611971200, 1996, Algorithm A6.3.1 (the interpolation).
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree
from jgd.minimizers.line_searches._protocol import LineSearchResult, Phi, opening
from jgd.minimizers.problem._problem import choose

#: Evaluations after which a search ends where rounding hides what it could gain.
PROBES = 4


class _State(NamedTuple):
    trial: Array
    last: Array
    last_drop: Array
    step: Array
    drop: Array
    slope: Array
    count: Array
    success: Array
    done: Array
    data: PyTree


def _shorter(trial: Array, drop: Array, last: Array, last_drop: Array, slope: Array) -> Array:
    """The minimizer of the parabola through the last value, or of the cubic through the last two."""
    parabola = -slope * trial**2 / (2 * (drop - slope * trial))
    first, second = (drop - slope * trial) / trial**2, (last_drop - slope * last) / last**2
    cube = (first - second) / (trial - last)
    square = (trial * second - last * first) / (trial - last)
    root = jnp.sqrt(jnp.maximum(square**2 - 3 * cube * slope, 0))
    cubic = (root - square) / (3 * cube)
    step = jnp.where(jnp.isfinite(cubic) & jnp.isfinite(last_drop) & (last > 0), cubic, parabola)
    step = jnp.where(jnp.isfinite(step), step, 0.5 * trial)
    return jnp.clip(step, 0.1 * trial, 0.5 * trial)


@dataclasses.dataclass(frozen=True)
class Armijo:
    """Backtracking with interpolation, for a sufficient decrease.

    Args:
        c1: The part of the decrease that the slope at zero promises, in (0, 1).
        max_evaluations: Evaluations at most.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimizers import Armijo
        >>> phi = lambda t: ((t - 0.3) ** 2, 0.0, None)
        >>> found = Armijo()(phi, jnp.array(0.09), jnp.array(-0.6), 1.0)
        >>> print(f"{found.step:.3f}", found.evaluations)
        0.300 2
    """

    c1: float = 1e-4
    max_evaluations: int = 40
    needs_slope: ClassVar[bool] = False

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
        dtype = dphi0.dtype
        first, data, done = opening(phi, phi0, dphi0, step0, max_step, active)
        zero, large = jnp.zeros((), dtype), jnp.full((), jnp.inf, phi0.dtype)
        count, false = jnp.zeros((), jnp.int32), jnp.array(False)
        state = _State(first, zero, large, zero, jnp.zeros_like(phi0), zero, count, false, done, data)

        def turn(s: _State) -> _State:
            value, slope, data = phi(s.trial)
            drop = value.astype(phi0.dtype) - phi0
            # within rounding, a value that is not higher is all that can be asked for
            small = jnp.abs(s.trial * dphi0) <= noise
            enough = drop <= self.c1 * s.trial * dphi0
            success = enough | (small & (drop <= 0))
            kept = enough | ((drop < s.drop) & (drop < -noise)) | (success & (s.step == 0))
            shorter = _shorter(s.trial, drop, s.last, s.last_drop, dphi0).astype(dtype)
            trial = jnp.where(jnp.isfinite(drop), shorter, 0.2 * s.trial)
            count = s.count + 1
            # shorter steps cannot be told from rounding any better
            hidden = small & (jnp.abs(drop) <= noise) & (count >= PROBES)
            done = success | hidden | (count >= self.max_evaluations) | ~(trial > 0)
            # a step that rounding alone lets pass is none where a longer one has a lower value
            found = (s.trial, drop, jnp.asarray(slope, dtype))
            step, least, slope = choose(kept, found, (s.step, s.drop, s.slope))
            data = choose(kept, data, s.data)
            return _State(trial, s.trial, drop, step, least, slope, count, success & kept, done, data)

        s = jax.lax.while_loop(lambda s: ~s.done, turn, state)
        return LineSearchResult(s.step, phi0 + s.drop, s.slope, s.data, s.count, s.success, s.step > 0)
