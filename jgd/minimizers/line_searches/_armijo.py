r"""Armijo backtracking: shorter and shorter steps, until the value has decreased sufficiently.

$$
\varphi(t) \le \varphi(0) + c_1 t \varphi'(0)
$$

The next trial step is the minimizer of the parabola, later of the cubic, through the values known, kept between a tenth
and a half of the last one. It reads values only, so a method computes one gradient a step. Where rounding hides the
decrease asked for, or no evaluation is left, the lowest value found is taken.

References:
    - Armijo, "Minimization of functions having Lipschitz continuous first partial derivatives",
      https://doi.org/10.2140/pjm.1966.16.1, 1966.
    - Dennis and Schnabel, "Numerical methods for unconstrained optimization and nonlinear equations",
      https://doi.org/10.1137/1.9781611971200, 1996, Algorithm A6.3.1 (the interpolation).
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree, Scalar, tree_where
from jgd.minimizers.line_searches._protocol import BaseLineSearch, Line, LineSearchResult

#: Evaluations after which a search ends where rounding hides what it could gain.
MAX_HIDDEN = 4


class _State(NamedTuple):
    """The trial step and the last one, the accepted step (0 before there is one), and how the search stands.

    A rise is the value less that at zero.
    """

    trial: Array
    last: Array
    last_rise: Array
    step: Array
    rise: Array
    slope: Array
    count: Array
    success: Array
    done: Array
    data: PyTree


def _interpolate(trial: Array, rise: Array, last: Array, last_rise: Array, slope: Array) -> Array:
    """The minimizer of the parabola through the last value, or of the cubic through the last two."""
    parabola = -slope * trial**2 / (2 * (rise - slope * trial))
    first, second = (rise - slope * trial) / trial**2, (last_rise - slope * last) / last**2
    cube = (first - second) / (trial - last)
    square = (trial * second - last * first) / (trial - last)
    root = jnp.sqrt(jnp.maximum(square**2 - 3 * cube * slope, 0))
    cubic = (root - square) / (3 * cube)
    step = jnp.where(jnp.isfinite(cubic) & jnp.isfinite(last_rise) & (last > 0), cubic, parabola)
    step = jnp.where(jnp.isfinite(step), step, 0.5 * trial)
    return jnp.clip(step, 0.1 * trial, 0.5 * trial)


@dataclasses.dataclass(frozen=True)
class Armijo(BaseLineSearch):
    """Backtracking with interpolation, to a sufficient decrease.

    Args:
        c1: The part of the decrease that the slope at zero predicts, in (0, 1).
        max_evaluations: Evaluations at most.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimizers import Armijo
        >>> phi = lambda t: ((t - 0.3) ** 2, 0.0, None)
        >>> result = Armijo()(phi, jnp.array(0.09), jnp.array(-0.6), 1.0)
        >>> print(f"{result.step:.3f}", result.evaluations)
        0.300 2
    """

    c1: Scalar = 1e-4
    max_evaluations: int = 40
    needs_slope: ClassVar[bool] = False

    def search(self, line: Line) -> LineSearchResult:
        """Backtracks from the first trial step."""
        phi0, dphi0, dtype = line.phi0, line.dphi0, line.dphi0.dtype
        zero = jnp.zeros((), dtype)
        start = _State(
            trial=line.step0,
            last=zero,
            last_rise=jnp.full((), jnp.inf, phi0.dtype),
            step=zero,
            rise=jnp.zeros_like(phi0),
            slope=zero,
            count=jnp.zeros((), jnp.int32),
            success=jnp.array(False),
            done=~line.active,
            data=line.no_data,
        )

        def body(s: _State) -> _State:
            value, slope, data = line.phi(s.trial)
            rise = value.astype(phi0.dtype) - phi0
            # within rounding, a value that is not higher is all that can be asked for
            within_noise = jnp.abs(s.trial * dphi0) <= line.noise
            sufficient = rise <= self.c1 * s.trial * dphi0
            success = sufficient | (within_noise & (rise <= 0))
            # a step that rounding alone lets pass is not accepted where a longer one has a lower value
            accept = sufficient | ((rise < s.rise) & (rise < -line.noise)) | (success & (s.step == 0))
            shorter = _interpolate(s.trial, rise, s.last, s.last_rise, dphi0).astype(dtype)
            trial = jnp.where(jnp.isfinite(rise), shorter, 0.2 * s.trial)
            count = s.count + 1
            # shorter steps cannot be told from rounding any better
            hidden = within_noise & (jnp.abs(rise) <= line.noise) & (count >= MAX_HIDDEN)
            done = success | hidden | (count >= self.max_evaluations) | ~(trial > 0)
            here = (s.trial, rise, jnp.asarray(slope, dtype))
            step, lowest, slope = tree_where(accept, here, (s.step, s.rise, s.slope))
            data = tree_where(accept, data, s.data)
            return _State(trial, s.trial, rise, step, lowest, slope, count, success & accept, done, data)

        s = jax.lax.while_loop(lambda s: ~s.done, body, start)
        return LineSearchResult(s.step, phi0 + s.rise, s.slope, s.data, s.count, s.success, s.step > 0)
