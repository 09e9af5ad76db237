r"""What a linear model of residuals lacks of the curvature of the value, $S = \sum_i r_i \nabla^2 r_i$: its diagonal.

Along a step $s$ to new residuals $r_+$ and a new Jacobian $J_+$ the missing part bends the gradient by
$y = (J_+ - J)^\top r_+$. Each $S_{jj}$ is the quotient of decayed sums of $s_j y_j$ and $s_j^2$, at least 0, and no
more than the last step has shown (sized). The next step counts on it where it has told the decrease of the last one
better than the linear model alone. Where residuals stay large, steps become as long as the value allows; where they
vanish, the model is Gauss and Newton's.

References:
    - Dennis, Gay and Welsch, "An adaptive nonlinear least-squares algorithm", https://doi.org/10.1145/355958.355965,
      1981: the bend of the gradient, the sizing, the choice of the model; there of the whole matrix.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.problem._problem import dot

DECAY = 0.5


class Bends(NamedTuple):
    """What steps have shown of the missing curvature: decayed sums [n] of $s_j y_j$, and of $s_j^2$."""

    products: Array
    squares: Array

    def diagonal(self) -> Array:
        """The diagonal of the missing curvature [n], at least 0."""
        return jnp.maximum(_over(self.products, self.squares), 0)


def _over(numerator: Array, denominator: Array) -> Array:
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1), 0)


def no_bends(params: Array) -> Bends:
    """Before the first step."""
    return Bends(jnp.zeros_like(params), jnp.zeros_like(params))


def missing_after(
    before: Bends, step: Array, bend: Array, size: Array, plain: Array, decrease: Array, noise: Array
) -> tuple[Bends, Array]:
    """What is known after a step, and the diagonal [n] that the next one is to count on.

    Args:
        before: What was known.
        step: The step [n].
        bend: By how much the change of the Jacobian bends the gradient [n].
        size: The scaled length of the step: steps count alike, long or short.
        plain: The decrease that the linear model promised.
        decrease: The decrease of the value.
        noise: Its rounding error: where that hides the decrease, the bend along the step tells.
    """
    expected, found = dot(step, before.diagonal() * step), dot(step, bend)
    better = jnp.abs(decrease - plain + 0.5 * expected) < jnp.abs(decrease - plain)
    told = jnp.where(plain <= noise, jnp.abs(found - expected) < jnp.abs(found), better)
    weight = _over(jnp.ones_like(size), size**2)
    sums = Bends(*(DECAY * old + weight * step * new for old, new in zip(before, (bend, step), strict=True)))
    diagonal = sums.diagonal()
    along = dot(step, diagonal * step)
    sized = diagonal * jnp.clip(_over(found, along), 0, 1)
    return sums, jnp.where(told, sized, 0)
