r"""Penalties $h(x)$ with a proximal operator, for `ProximalGradient`.

$$
\operatorname{prox}_{t h}(v) = \arg\min_x \; h(x) + \frac{1}{2t} \lVert x - v \rVert^2
$$

With $s_t(v) = \operatorname{sign}(v) \max(\lvert v \rvert - t, 0)$, entry by entry:

| penalty | $h(x)$ | proximal operator |
| --- | --- | --- |
| `L1(strength)` | $\lambda \lVert x \rVert_1$ | $s_{t \lambda}(v)$ |
| `NonNegativeL1(strength)` | the same, and $x \ge 0$ | $\max(v - t \lambda, 0)$ |
| `ElasticNet(a, b)` | $a \lVert x \rVert_1 + \frac{b}{2} \lVert x \rVert^2$ | $s_{t a}(v) / (1 + t b)$ |
| `GroupLasso(strength)` | $\lambda \sum_g \lVert x_g \rVert$ | $v_g \max(1 - t \lambda / \lVert v_g \rVert, 0)$ |
| `Indicator(projection)` | 0 in a set, infinite outside | $P(v)$ |

A penalty of your own is any frozen dataclass with `value(params)` and `prox(params, step)`, and, where it is infinite
somewhere, `project(params)`: the nearest params where it is not, for the start.

References:
    - Parikh and Boyd, "Proximal algorithms", https://doi.org/10.1561/2400000003, 2014.
    - Yuan and Lin, "Model selection and estimation in regression with grouped variables",
      https://doi.org/10.1111/j.1467-9868.2005.00532.x, 2006 (the group lasso).
    - Zou and Hastie, "Regularization and variable selection via the elastic net",
      https://doi.org/10.1111/j.1467-9868.2005.00503.x, 2005.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import jax.numpy as jnp

from jgd.core import Array, ArrayLike, ArrayTree, PyTree, abs_sq
from jgd.minimizers.problem._flatten import refuse_complex
from jgd.minimizers.problem._leafwise import map_floats, total


class Penalty(Protocol):
    """What `ProximalGradient` needs of a penalty; see the module's docstring."""

    def value(self, params: PyTree) -> Array:
        """The penalty, a scalar."""
        ...

    def prox(self, params: PyTree, step: ArrayLike) -> PyTree:
        """The proximal operator of `step`, a positive scalar, times the penalty."""
        ...


def _shrunk(leaf: Array, by: Array) -> Array:
    return jnp.sign(leaf) * jnp.maximum(jnp.abs(leaf) - by, 0)  # of a complex number the sign is x / |x|


@dataclasses.dataclass(frozen=True)
class L1:
    r"""The lasso's penalty, $\lambda \lVert x \rVert_1$: many entries of a solution are exactly zero.

    Args:
        strength: $\lambda \ge 0$: a number, an array that broadcasts to each leaf, or a tree of these as params (0 for
            a leaf that is not to be penalized). An array can be swept by `vmap` and differentiated.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimizers import L1
        >>> print(L1(0.5).prox(jnp.array([2.0, -0.2, -1.0]), 1.0))
        [ 1.5 -0.  -0.5]
    """

    strength: ArrayTree

    def value(self, params: PyTree) -> Array:
        """The penalty, a scalar."""
        return total(params, map_floats("L1: strength", lambda x, s: s * jnp.abs(x), params, self.strength))

    def prox(self, params: PyTree, step: ArrayLike) -> PyTree:
        """Entries shrunk by `step * strength`."""
        return map_floats("L1: strength", lambda x, s: _shrunk(x, step * s), params, self.strength)


@dataclasses.dataclass(frozen=True)
class NonNegativeL1:
    r"""The sum of entries that must not be negative: $\lambda \sum_i x_i$ and $x \ge 0$.

    Args:
        strength: $\lambda \ge 0$, as in `L1`.
    """

    strength: ArrayTree

    def value(self, params: PyTree) -> Array:
        """The penalty of params that are not negative, a scalar."""
        refuse_complex("NonNegativeL1: the penalty", params)
        return total(params, map_floats("NonNegativeL1: strength", lambda x, s: s * x, params, self.strength))

    def prox(self, params: PyTree, step: ArrayLike) -> PyTree:
        """Entries less `step * strength`, or 0."""
        what = "NonNegativeL1: strength"
        refuse_complex("NonNegativeL1: the penalty", params)
        return map_floats(what, lambda x, s: jnp.maximum(x - step * s, 0), params, self.strength)

    def project(self, params: PyTree) -> PyTree:
        """Negative entries become 0."""
        refuse_complex("NonNegativeL1: the penalty", params)
        return map_floats("NonNegativeL1", lambda x: jnp.maximum(x, 0), params)


@dataclasses.dataclass(frozen=True)
class ElasticNet:
    r"""The elastic net, $\lambda_1 \lVert x \rVert_1 + \frac{\lambda_2}{2} \lVert x \rVert^2$.

    Args:
        l1: $\lambda_1 \ge 0$, as the strength of `L1`.
        l2: $\lambda_2 \ge 0$, of the same kinds.
    """

    l1: ArrayTree
    l2: ArrayTree

    def value(self, params: PyTree) -> Array:
        """The penalty, a scalar."""
        terms = map_floats("ElasticNet: l1", lambda x, s: s * jnp.abs(x), params, self.l1)
        return total(params, terms) + total(
            params, map_floats("ElasticNet: l2", lambda x, s: s / 2 * abs_sq(x), params, self.l2)
        )

    def prox(self, params: PyTree, step: ArrayLike) -> PyTree:
        """Entries shrunk, then scaled."""
        shrunk = map_floats("ElasticNet: l1", lambda x, s: _shrunk(x, step * s), params, self.l1)
        return map_floats("ElasticNet: l2", lambda x, s: x / (1 + step * s), shrunk, self.l2)


def _norms(leaf: Array) -> Array:
    """The norms along the last axis, kept as one of length 1; their derivative at zero is zero."""
    square = jnp.sum(abs_sq(leaf), axis=-1, keepdims=True) if leaf.ndim else abs_sq(leaf)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


@dataclasses.dataclass(frozen=True)
class GroupLasso:
    r"""The group lasso, $\lambda \sum_g \lVert x_g \rVert_2$: whole groups of a solution are exactly zero.

    A group is the last axis of a leaf: a matrix [features, outputs] has a group for each feature.

    Args:
        strength: $\lambda \ge 0$: a number, an array that broadcasts to each leaf with a last axis of length 1 (such as
            [features, 1]), or a tree of these as params.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimizers import GroupLasso
        >>> print(GroupLasso(1.0).prox(jnp.array([[3.0, 4.0], [0.3, 0.4]]), 1.0))
        [[2.4 3.2]
         [0.  0. ]]
    """

    strength: ArrayTree

    def value(self, params: PyTree) -> Array:
        """The penalty, a scalar."""
        return total(params, map_floats("GroupLasso: strength", lambda x, s: s * _norms(x), params, self.strength))

    def prox(self, params: PyTree, step: ArrayLike) -> PyTree:
        """Groups shrunk by `step * strength`."""

        def shrunk(x: Array, strength: Array) -> Array:
            size = _norms(x)
            safe = jnp.where(size > 0, size, 1)
            return x * jnp.maximum(1 - step * strength / safe, 0)

        return map_floats("GroupLasso: strength", shrunk, params, self.strength)


@dataclasses.dataclass(frozen=True)
class Indicator:
    """A set as a penalty: 0 inside, infinite outside; its proximal operator is the projection, whatever the step.

    Args:
        projection: From a tree to the nearest one in a closed convex set, such as those of `optax.projections`. Give
            numbers of it by `jax.tree_util.Partial(projection, scale=...)`.
    """

    projection: Callable[[PyTree], PyTree]

    def value(self, params: PyTree) -> Array:
        """Zero, since all params of a run are in the set."""
        del params
        return jnp.zeros(())

    def prox(self, params: PyTree, step: ArrayLike) -> PyTree:
        """The projection."""
        del step
        return self.projection(params)

    def project(self, params: PyTree) -> PyTree:
        """The projection."""
        return self.projection(params)
