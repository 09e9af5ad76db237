r"""What line searches share: their result, and the function along a line.

A line search is a frozen dataclass of settings that is called as a pure function,

    search(phi, phi0, dphi0, step0, noise=0.0, max_step=inf, active=True) -> LineSearchResult

where `phi(t) -> (value, slope, data)` is the function along the line, `phi0` and `dphi0 < 0` its value and slope at
zero, `step0` the first step tried. `data` is any tree that comes with an evaluation, such as the gradient: that of the
accepted step is in the result, so nothing is evaluated twice. `noise` is by how much rounding may change a value; with
`active` false nothing is evaluated. A search whose `needs_slope` is false reads values only.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree
from jgd.minimizers.loop._fields import Evaluations
from jgd.minimizers.problem._problem import Point, Problem, choose, dot

#: From a step to the value, the slope and data of the point there.
Phi = Callable[[Array], tuple[Array, Array, PyTree]]


class LineSearchResult(NamedTuple):
    """Where a line search ended.

    Attributes:
        step: The step, a scalar; 0 where there is none to take.
        value: The value there.
        slope: The slope there; 0 or that of the start where the step is 0.
        data: What came with the evaluation there; not to be read where the step is 0.
        evaluations: How often `phi` was evaluated, int32.
        success: Whether the step fulfills the search's condition, as far as rounding lets it be seen. It is False
            where the largest step ends the search and the slope there is still steeper than the condition allows.
        decreased: Whether there is a step to take, to a point at least no worse than the start. A search that has used
            up its evaluations returns the best step met; `StrongWolfe` the best of those that decrease the value
            enough.
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
    """A line search; see the module's docstring."""

    #: Whether it reads slopes.
    needs_slope: ClassVar[bool]

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
        """Searches."""
        ...


def opening(phi: Phi, phi0: Array, dphi0: Array, step0: Any, max_step: Any, active: Any) -> tuple[Array, PyTree, Array]:
    """What every search begins with: the first step to try, zeros in the place of `phi`'s data, and whether to end.

    There is nothing to search for from a value that is not finite, nor by steps that are zero or infinite.
    """
    first = jnp.minimum(jnp.asarray(step0, dphi0.dtype), jnp.asarray(max_step, dphi0.dtype))
    data = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(phi, first)[2])
    possible = (dphi0 < 0) & jnp.isfinite(phi0) & (first > 0) & jnp.isfinite(first)
    return first, data, ~(jnp.asarray(active) & possible)


def search_along(
    problem: Problem,
    point: Point,
    direction: Array,
    slope: Array,
    step0: Any,
    search: LineSearch,
    *,
    reference: Any = None,
    active: Any = True,
) -> tuple[Point, LineSearchResult, Evaluations]:
    """A line search from a point along a direction.

    Args:
        problem: The problem.
        point: Where to start.
        direction: The direction [n].
        slope: The inner product of gradient and direction, negative.
        step0: The first step tried.
        search: The line search.
        reference: What to compare values with, at least the point's value; None for that.
        active: False where the result is not needed.

    Returns:
        The point found (the old one where there was none better), the search's result, and what it cost.
    """
    inner = problem if problem.detached is None else problem.detached
    params, along = stopped(inner, problem, point.params, direction)

    def phi(t: Array) -> tuple[Array, Array, Array]:
        if not search.needs_slope:
            return inner.fun(params + t * along), jnp.zeros_like(t), jnp.zeros_like(params[:0])
        value, grad = inner.value_and_grad(params + t * along)
        return value, dot(grad, along).astype(t.dtype), grad

    dtype = point.params.dtype
    value, descent, step0 = stopped(inner, problem, point.value, slope, jnp.asarray(step0, dtype))
    active = problem.running & jnp.asarray(active)
    value = value if reference is None else stopped(inner, problem, reference)[0]
    found = search(phi, value, descent.astype(dtype), step0, noise=problem.noise(value), active=active)
    moved = point.params + found.step * direction
    count = found.evaluations
    if search.needs_slope and problem.detached is None:
        new = Point(moved, found.value, found.data)
        cost = Evaluations(count, count, 0)
    else:
        new = problem.point(moved)
        cost = Evaluations(count + 1, jnp.ones_like(count), 0)
    kept = choose(found.decreased, new, point)
    return kept, found, cost


def stopped(inner: Problem, problem: Problem, *arrays: Array) -> tuple[Array, ...]:
    """The arrays, without derivatives where the run is unrolled."""
    return arrays if inner is problem else tuple(jax.lax.stop_gradient(a) for a in arrays)
