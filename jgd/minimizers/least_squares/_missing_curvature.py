r"""The curvature of the value that a linear model of residuals lacks, $S = \sum_i r_i \nabla^2 r_i$: its diagonal.

A step $s$ to new residuals $r_+$ and a new Jacobian $J_+$ shows $S s \approx y = (J_+ - J)^\top r_+$. Each $S_{jj}$ is
the quotient of decayed sums of $s_j y_j$ and $s_j^2$, at least 0, and at most what the last step has shown (sizing).
The next step uses it where it has predicted the decrease of the last one better than the linear model alone. Where
residuals stay large, steps become as long as the value allows; where they vanish, the model is that of Gauss-Newton.

References:
    - Dennis, Gay and Welsch, "An adaptive nonlinear least-squares algorithm", https://doi.org/10.1145/355958.355965,
      1981: $y$, the sizing, the choice of the model; there of the whole matrix.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.problem._problem import dot

#: The part of the sums that the next step keeps.
DECAY = 0.5


class CurvatureSums(NamedTuple):
    """Decayed sums [n] of $s_j y_j$, and of $s_j^2$."""

    s_y: Array
    s_s: Array

    def diagonal(self) -> Array:
        """The diagonal of the missing curvature [n], at least 0."""
        return jnp.maximum(_divide(self.s_y, self.s_s), 0)


def _divide(numerator: Array, denominator: Array) -> Array:
    """The quotient; 0 where the denominator is."""
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1), 0)


def zero_sums(params: Array) -> CurvatureSums:
    """Before the first step."""
    return CurvatureSums(jnp.zeros_like(params), jnp.zeros_like(params))


def update_missing_curvature(
    sums: CurvatureSums, s: Array, y: Array, length: Array, predicted: Array, decrease: Array, noise: Array
) -> tuple[CurvatureSums, Array]:
    """The sums after a step, and the diagonal [n] that the next step uses.

    Args:
        sums: The sums before it.
        s: The step [n].
        y: $y$ [n].
        length: The scaled length of the step: steps count alike, long or short.
        predicted: The decrease that the linear model predicted.
        decrease: The decrease of the value.
        noise: Its rounding error: where that hides the decrease, $y$ along the step decides.
    """
    expected, observed = dot(s, sums.diagonal() * s), dot(s, y)
    better = jnp.abs(decrease - predicted + 0.5 * expected) < jnp.abs(decrease - predicted)
    better = jnp.where(predicted <= noise, jnp.abs(observed - expected) < jnp.abs(observed), better)
    weight = _divide(jnp.ones_like(length), length**2)
    new = CurvatureSums(*(DECAY * old + weight * s * part for old, part in zip(sums, (y, s), strict=True)))
    diagonal = new.diagonal()
    along = dot(s, diagonal * s)
    sized = diagonal * jnp.clip(_divide(observed, along), 0, 1)
    return new, jnp.where(better, sized, 0)
