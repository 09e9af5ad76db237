r"""Sums of clipped gradients.

$$
\frac1B \sum_i g_i \cdot \min\left(1, \frac{c}{\lVert g_i \rVert}\right)
$$

References:
    - Abadi et al., "Deep Learning with Differential Privacy", https://arxiv.org/abs/1607.00133, 2016, Algorithm 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from jgd.core import Array, ArrayLike, PyTree, Scalar, check_kind
from jgd.gradients._chunk import Chunk
from jgd.gradients._patterns import groups_of_floats
from jgd.gradients._reductions import BatchSummary, Sum, by_group, over


@dataclass(frozen=True)
class ClippedSum(Sum):
    """The sum of the gradients, each shortened to at most `max_norm` first, in float32 or wider.

    Norms come from their squares here: one whose square overflows (above 1.8e19 in float32) makes the sum NaN.

    Attributes:
        max_norm: The largest Euclidean norm let through, above 0: a number or scalar array; or a mapping from patterns
            of paths, as `jgd.groups` has them, to such numbers: each group of leaves is then clipped on its own.
        per: `"all"` clips all leaves together, `"leaf"` each leaf on its own. A gradient can then have a norm of up to
            `max_norm` times the root of the number of leaves.
    """

    max_norm: Scalar | Mapping[str, Scalar]
    per: Literal["all", "leaf"] = "all"
    reads_grads = True

    def __post_init__(self) -> None:
        check_kind(type(self).__name__, "per", self.per, Literal["all", "leaf"])
        if isinstance(self.max_norm, Mapping) and self.per != "all":
            raise ValueError(f"{type(self).__name__}: per={self.per!r} does not go with a max_norm for each group.")
        for value in jax.tree.leaves(dict(self.max_norm) if isinstance(self.max_norm, Mapping) else [self.max_norm]):
            check_kind(type(self).__name__, "max_norm", value, float)
            if isinstance(value, int | float) and not value > 0:
                raise ValueError(f"{type(self).__name__}: max_norm must be above 0; got {value!r}.")

    def add(self, carry: PyTree, chunk: Chunk) -> PyTree:
        """Adds the clipped gradients."""
        return jax.tree.map(jnp.add, carry, chunk.weighted_sum(self.factors(chunk)))

    def factors(self, chunk: Chunk) -> Array | list[Array]:
        """What each gradient is multiplied by, `[c]`; a list with one for each float leaf where they differ."""
        if isinstance(self.max_norm, Mapping):
            names = groups_of_floats(type(self).__name__, list(self.max_norm), chunk.params)
            squares = by_group(list(self.max_norm), names, chunk.leaf_squared_norms)
            factors = {name: clip_factors(square, self.max_norm[name]) for name, square in squares.items()}
            return [factors[name] for name in names]
        if self.per == "leaf":
            return [clip_factors(square, self.max_norm) for square in chunk.leaf_squared_norms]
        return clip_factors(chunk.squared_norms, self.max_norm)


@dataclass(frozen=True)
class ClippedMean(ClippedSum):
    """The mean of the gradients, each shortened to at most `max_norm` first; see `ClippedSum`.

    Attributes:
        max_norm: The largest Euclidean norm let through.
        per: `"all"` clips all leaves together, `"leaf"` each leaf on its own.
    """

    def finish(self, carry: PyTree, each: PyTree, summary: BatchSummary) -> PyTree:
        """Divides by the number of examples that count."""
        return over(super().finish(carry, each, summary), summary.count)


def clip_factors(squared_norms: Array, max_norm: ArrayLike) -> Array:
    """`min(1, max_norm / norm)`, 1 for a gradient of zero. NaN where the norm is not finite: it is not hidden."""
    limit = jnp.asarray(max_norm, squared_norms.dtype)
    longer = squared_norms > limit * limit
    factors = jnp.where(longer, limit / jnp.sqrt(jnp.where(longer, squared_norms, 1)), 1)
    return jnp.where(jnp.isfinite(squared_norms), factors, jnp.nan)
