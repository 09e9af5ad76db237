r"""Conjugate gradients for a Newton step: $\min_p\; g^\top p + \tfrac12 p^\top H p$ within $\lVert p \rVert \le r$.

References:
    - Steihaug, "The conjugate gradient method and trust regions in large scale optimization",
      https://doi.org/10.1137/0720042, 1983.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array
from jgd.minimizers.problem._problem import dot, norm, safe_scale


def inner_loop(goes_on: Callable[[Any], Array], turn: Callable[[Any], Any], start: Any, most: int, unroll: bool) -> Any:
    """A `lax.while_loop` of at most `most` turns; with `unroll` a scan that reverse mode can pass.

    Each turn of the scan is a `lax.cond`: those that are not needed cost no time, though their memory is kept.

    Args:
        goes_on: From the state to whether there is another turn.
        turn: From a state to the next.
        start: The first state.
        most: Turns at most; read with `unroll` only.
        unroll: Whether the loop is to be differentiated in reverse.

    Returns:
        The last state.
    """
    if not unroll:
        return jax.lax.while_loop(goes_on, turn, start)

    def body(state: Any, _: None) -> tuple[Any, None]:
        return jax.lax.cond(goes_on(state), turn, lambda state: state, state), None

    return jax.lax.scan(body, start, None, length=most)[0]


class NewtonStep(NamedTuple):
    """What CG has found.

    Attributes:
        step: The step [n].
        model: The change of the quadratic model along it, at most 0.
        at_boundary: Whether it ends on the boundary, or where the curvature is negative.
        products: Hessian-vector products made, int32.
    """

    step: Array
    model: Array
    at_boundary: Array
    products: Array


class _State(NamedTuple):
    step: Array
    residual: Array
    direction: Array
    applied: Array
    square: Array
    at_boundary: Array
    count: Array
    done: Array


def _to_boundary(step: Array, direction: Array, radius: Array) -> Array:
    """How far along the direction the boundary is."""
    # the square of a radius in units of a huge gradient would vanish
    power = safe_scale(radius)
    step, radius = power * step, power * radius
    a, b, c = dot(direction, direction), dot(step, direction), dot(step, step) - radius**2
    square = b * b - a * c
    root = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    return jnp.where(b > 0, -c / jnp.where(b > 0, b + root, 1), (root - b) / jnp.where(a > 0, a, 1)) / power


def newton_step(
    product: Callable[[Array], Array],
    grad: Array,
    radius: Array | None,
    tol: Array,
    max_products: int,
    active: Any,
    unroll: bool = False,
) -> NewtonStep:
    """Truncated conjugate gradients.

    Args:
        product: The Hessian times a vector [n].
        grad: The gradient [n].
        radius: The trust radius; None for none: then the step ends before a direction of negative curvature, and is
            $-g$ where the first one is.
        tol: The norm of the residual to reach.
        max_products: Products at most.
        active: False to do nothing.
        unroll: Whether to loop so that reverse mode can pass.

    Returns:
        The step, and what it cost.
    """
    # of a gradient of length one: the curvature along a long one overflows float32 where the step would not
    size = norm(jax.lax.stop_gradient(grad))
    size = jnp.where((size > 0) & jnp.isfinite(size), size, 1)
    grad, tol = grad / size, tol / size
    radius = None if radius is None else radius / size
    zero = jnp.zeros_like(grad)
    square = dot(grad, grad)
    start = _State(
        zero, grad, -grad, zero, square, jnp.array(False), jnp.zeros((), jnp.int32), ~(active & (square > 0))
    )

    def turn(s: _State) -> _State:
        applied = product(s.direction)
        curvature = dot(s.direction, applied)
        negative = ~(curvature > 0)
        alpha = s.square / jnp.where(negative, 1, curvature)
        if radius is None:
            outside, edge = negative, jnp.where(s.count == 0, 1.0, 0.0)
        else:
            outside = negative | (norm(s.step + alpha * s.direction) >= radius)
            edge = _to_boundary(s.step, s.direction, radius)
        alpha = jnp.where(outside, edge, alpha).astype(grad.dtype)
        step, residual = s.step + alpha * s.direction, s.residual + alpha * applied
        square = dot(residual, residual)
        direction = -residual + square / s.square * s.direction
        count = s.count + 1
        done = outside | (jnp.sqrt(square) <= tol) | (count >= max_products)
        sum_applied = s.applied + alpha * applied
        return _State(step, residual, direction, sum_applied, square, outside, count, done)

    s = inner_loop(lambda s: ~s.done, turn, start, max_products, unroll)
    model = size * (size * (dot(grad, s.step) + 0.5 * dot(s.step, s.applied)))
    return NewtonStep(size * s.step, model, s.at_boundary, s.count)
