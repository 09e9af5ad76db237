r"""What line searches share: how they are called, their arguments, their result, and a search from a point.

A line search is a frozen dataclass of settings that is called as a pure function, as `LineSearch` says. Those of the
library are `BaseLineSearch`: they see their arguments as one `Line`.
"""

from collections.abc import Callable
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jgd.core import Array, ArrayLike, PyTree, tree_where
from jgd.minimizers.loop._fields import Evaluations
from jgd.minimizers.problem._problem import Point, Problem, dot

#: From a step length to the value, the slope and data of the point there.
Phi = Callable[[Array], tuple[Array, Array, PyTree]]


class LineSearchResult(NamedTuple):
    """Where a line search ended.

    Attributes:
        step: The step length, a scalar; 0 where there is no step to take.
        value: The value there.
        slope: The slope there; 0 or that of the start where the step is 0.
        data: What came with the evaluation there; not to be read where the step is 0.
        evaluations: How often `phi` was evaluated, int32.
        success: Whether the step fulfills the search's condition, as far as rounding lets it be seen. It is False
            where the largest step ends the search and the slope there is still steeper than the condition allows.
        decreased: Whether there is a step to take, to a point at least no worse than the start. A search that has used
            up its evaluations returns the best trial step; `StrongWolfe` the best of those that decrease the value
            sufficiently.
    """

    step: Array
    value: Array
    slope: Array
    data: PyTree
    evaluations: Array
    success: Array
    decreased: Array


@runtime_checkable
class LineSearch(Protocol):
    r"""A line search along $\varphi(t) = f(x + t d)$, $t \ge 0$: what `line_search=` takes."""

    #: Whether the search reads slopes; one that does not reads values only.
    needs_slope: ClassVar[bool]

    def __call__(
        self,
        phi: Phi,
        phi0: Array,
        dphi0: Array,
        step0: ArrayLike,
        noise: Array | float = 0.0,
        max_step: ArrayLike = jnp.inf,
        active: ArrayLike = True,
    ) -> LineSearchResult:
        r"""Finds a step length.

        Args:
            phi: From a step length, a scalar, to `(value, slope, data)` there. `data` is any tree of arrays that comes
                with an evaluation, such as the gradient: that of the accepted step is in the result, so that nothing
                is evaluated twice.
            phi0: $\varphi(0)$, a scalar.
            dphi0: $\varphi'(0)$, a scalar, negative: the direction is one of descent.
            step0: The first trial step, above 0.
            noise: By how much rounding may change a value, at least 0.
            max_step: The largest trial step.
            active: False to evaluate nothing: where the result is not needed.

        Returns:
            The step length, and what is known there.
        """
        ...


class Line(NamedTuple):
    """The arguments of a `LineSearch` as arrays, checked.

    Attributes:
        phi: The function along the line.
        phi0: Its value at zero.
        dphi0: Its slope at zero.
        step0: The first trial step, at most `max_step`.
        noise: By how much rounding may change a value.
        max_step: The largest trial step.
        active: Whether to search. There is nothing to search for from a value that is not finite, along a slope that
            is not negative, or by steps that are zero or infinite.
        no_data: Zeros in the place of `phi`'s data.
    """

    phi: Phi
    phi0: Array
    dphi0: Array
    step0: Array
    noise: Array | float
    max_step: Array
    active: Array
    no_data: PyTree


class BaseLineSearch:
    """The searches of the library: called as a `LineSearch`, each defines `search` of a `Line`."""

    needs_slope: ClassVar[bool]

    def __call__(
        self,
        phi: Phi,
        phi0: Array,
        dphi0: Array,
        step0: ArrayLike,
        noise: Array | float = 0.0,
        max_step: ArrayLike = jnp.inf,
        active: ArrayLike = True,
    ) -> LineSearchResult:
        """Finds a step length; see `jgd.minimizers.LineSearch`."""
        phi0, dphi0 = jnp.asarray(phi0), jnp.asarray(dphi0)
        first, max_step = jnp.asarray(step0, dphi0.dtype), jnp.asarray(max_step, dphi0.dtype)
        first = jnp.minimum(first, max_step)
        no_data = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(phi, first)[2])
        possible = (dphi0 < 0) & jnp.isfinite(phi0) & (first > 0) & jnp.isfinite(first)
        active = jnp.asarray(active) & possible
        return self.search(Line(phi, phi0, dphi0, first, noise, max_step, active, no_data))

    def search(self, line: Line) -> LineSearchResult:
        """Finds a step length."""
        raise NotImplementedError


def search_along(
    problem: Problem,
    point: Point,
    direction: Array,
    slope: Array,
    step0: ArrayLike,
    line_search: LineSearch,
    *,
    reference: Array | None = None,
    max_step: ArrayLike = jnp.inf,
) -> tuple[Point, LineSearchResult, Evaluations]:
    """A line search from a point along a direction.

    Args:
        problem: The problem.
        point: Where to start.
        direction: The direction of descent [n].
        slope: The inner product of gradient and direction, negative.
        step0: The first trial step.
        line_search: The line search.
        reference: The value that a step must decrease, at least the point's; None for the point's.
        max_step: The largest trial step.

    Returns:
        The new point (the old one where no better one was found), the search's result, and its cost.
    """
    inner, dtype = problem.inner, point.params.dtype
    params, along = problem.detach(point.params, direction)

    def phi(t: Array) -> tuple[Array, Array, Array]:
        if not line_search.needs_slope:
            return inner.fun(params + t * along), jnp.zeros_like(t), jnp.zeros_like(params[:0])
        value, grad = inner.value_and_grad(params + t * along)
        return value, dot(grad, along).astype(t.dtype), grad

    phi0, dphi0, first = problem.detach(
        point.value if reference is None else reference, slope.astype(dtype), jnp.asarray(step0, dtype)
    )
    result = line_search(phi, phi0, dphi0, first, noise=problem.noise(phi0), max_step=max_step, active=problem.running)
    params, count = point.params + result.step * direction, result.evaluations
    if line_search.needs_slope and not problem.unrolled:
        new, cost = Point(params, result.value, result.data), Evaluations(count, count, 0)
    else:
        new, cost = problem.point(params), Evaluations(count + 1, jnp.ones_like(count), 0)
    return tree_where(result.decreased, new, point), result, cost
