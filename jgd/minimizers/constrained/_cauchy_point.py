r"""The generalized Cauchy point: the first minimizer of a quadratic model along the projected gradient path.

The path $x(t) = P(x - t \gamma g)$ bends where an entry reaches its bound, at its breakpoint. From one breakpoint to
the next it is a segment along the direction $d$ of the entries that have not reached theirs, and the model's slope and
curvature along it are

$$
q' = \lVert d \rVert^2 (t - 1) + d^\top C z, \qquad q'' = \lVert d \rVert^2 + d^\top C d, \qquad
z = x(t) - x, \quad C = \gamma B - I
$$

$C$ is of low rank, so sums over the sorted breakpoints give all of them at once, in place of a loop over the segments.
The sums for $d$ go from the last breakpoint backwards: nothing is subtracted from a sum that shrinks to zero.

References:
    - Byrd, Lu, Nocedal and Zhu, "A limited memory algorithm for bound constrained optimization",
      https://doi.org/10.1137/0916069, 1995, section 4.
"""

import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.methods._compact_form import CompactForm


def cauchy_point(params: Array, scaled: Array, bounds: tuple[Array, Array], matrix: CompactForm) -> tuple[Array, Array]:
    r"""The point, and which entries are free there.

    Args:
        params: The params [n], inside the bounds.
        scaled: The gradient over the first Hessian, $\gamma g$ [n].
        bounds: Lower and upper bounds, each [n].
        matrix: The Hessian of the model over its first scale.

    Returns:
        The Cauchy point [n], and a mask [n] of the entries that have not reached a bound.
    """
    lower, upper = bounds
    fixed = ((params <= lower) & (scaled >= 0)) | ((params >= upper) & (scaled <= 0))
    bound = jnp.where(scaled > 0, lower, upper)
    direction = jnp.where(fixed, 0, -scaled)
    moving, bounded = direction != 0, jnp.isfinite(bound)
    reach = jnp.where(bounded & ~fixed, bound - params, 0)
    breaks = jnp.where(moving & bounded, reach / jnp.where(moving, direction, 1), jnp.where(fixed, 0, jnp.inf))

    order = jnp.argsort(breaks)
    breaks_sorted, sorted_direction = breaks[order], direction[order]
    rows = jnp.concatenate([matrix.y, matrix.q])[:, order]
    signs = jnp.repeat(jnp.array([1, -1], rows.dtype), len(matrix.y))[:, None]
    # column k belongs to the segment that begins at breakpoint k, the first one at zero
    along = _sum_from_last(rows * sorted_direction)
    square = _sum_from_last(sorted_direction**2)
    reached = jnp.pad(jnp.cumsum(rows * reach[order], axis=1), ((0, 0), (1, 0)))
    begin = jnp.pad(breaks_sorted, (1, 0))
    usable = jnp.isfinite(begin)
    begin = jnp.where(usable, begin, 0)
    length = jnp.pad(breaks_sorted, (0, 1), constant_values=jnp.inf) - begin
    slope = square * (begin - 1) + jnp.sum(signs * along * (reached + begin * along), axis=0)
    curvature = square + jnp.sum(signs * along * along, axis=0)
    curvature = jnp.maximum(curvature, jnp.finfo(curvature.dtype).eps * square)
    constant = square == 0
    ends = usable & (length > 0) & (constant | (slope + jnp.where(constant, 1, curvature) * length >= 0))

    k = jnp.argmax(ends)
    onward = jnp.where(constant[k], 0, -slope[k] / jnp.where(constant[k], 1, curvature[k]))
    time = begin[k] + jnp.clip(onward, 0, length[k])
    free = breaks > time
    point = jnp.where(free, params + time * direction, jnp.where(fixed, params, bound))
    return jnp.clip(point, lower, upper), free


def _sum_from_last(columns: Array) -> Array:
    """Sums over the last axis of each entry and all that follow, with a zero at the end."""
    sums = jnp.flip(jnp.cumsum(jnp.flip(columns, -1), axis=-1), -1)
    return jnp.pad(sums, [(0, 0)] * (columns.ndim - 1) + [(0, 1)])
