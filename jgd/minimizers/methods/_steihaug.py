r"""Conjugate gradients for a Newton step: $\min_p\; g^\top p + \tfrac12 p^\top H p$ within $\lVert p \rVert \le r$.

References:
    - Steihaug, "The conjugate gradient method and trust regions in large scale optimization",
      https://doi.org/10.1137/0720042, 1983.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, ArrayLike
from jgd.minimizers.problem._inner_loop import inner_loop
from jgd.minimizers.problem._problem import dot, norm, safe_scale


class NewtonStep(NamedTuple):
    """A step of truncated conjugate gradients.

    Attributes:
        step: The step [n].
        model: The change of the quadratic model along it, at most 0.
        at_boundary: Whether it ends on the boundary, or where the curvature is not positive.
        products: Hessian-vector products made, int32.
    """

    step: Array
    model: Array
    at_boundary: Array
    products: Array


class _State(NamedTuple):
    """The step and the Hessian times it, the residual and its square, and the next direction."""

    step: Array
    hessian_step: Array
    residual: Array
    square: Array
    direction: Array
    at_boundary: Array
    count: Array
    done: Array


def _to_boundary(step: Array, direction: Array, radius: Array) -> Array:
    """How far along the direction the boundary is: the root of a quadratic equation."""
    # the square of a radius in units of a huge gradient would vanish
    power = safe_scale(radius)
    step, radius = power * step, power * radius
    a, b, c = dot(direction, direction), dot(step, direction), dot(step, step) - radius**2
    square = b * b - a * c
    root = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    return jnp.where(b > 0, -c / jnp.where(b > 0, b + root, 1), (root - b) / jnp.where(a > 0, a, 1)) / power


def newton_step(
    hessian_product: Callable[[Array], Array],
    grad: Array,
    radius: Array | None,
    tol: Array,
    max_products: int,
    active: ArrayLike,
    unroll: bool = False,
) -> NewtonStep:
    """Truncated conjugate gradients.

    Args:
        hessian_product: The Hessian times a vector [n].
        grad: The gradient [n].
        radius: The trust radius; None for none: then the step ends before a direction of negative curvature, and is
            $-g$ where the first one is.
        tol: The norm of the residual to reach.
        max_products: Products at most.
        active: False to do nothing.
        unroll: Whether to loop so that reverse mode can pass.

    Returns:
        The step, and its cost.
    """
    # of a gradient of length one: the curvature along a long one overflows float32 where the step would not
    size = norm(jax.lax.stop_gradient(grad))
    size = jnp.where((size > 0) & jnp.isfinite(size), size, 1)
    grad, tol = grad / size, tol / size
    radius = None if radius is None else radius / size
    zero, square = jnp.zeros_like(grad), dot(grad, grad)
    start = _State(
        step=zero,
        hessian_step=zero,
        residual=grad,
        square=square,
        direction=-grad,
        at_boundary=jnp.array(False),
        count=jnp.zeros((), jnp.int32),
        done=~(jnp.asarray(active) & (square > 0)),
    )

    def body(s: _State) -> _State:
        product = hessian_product(s.direction)
        curvature = dot(s.direction, product)
        negative = ~(curvature > 0)
        alpha = s.square / jnp.where(negative, 1, curvature)
        if radius is None:
            outside, to_boundary = negative, jnp.where(s.count == 0, 1.0, 0.0)
        else:
            outside = negative | (norm(s.step + alpha * s.direction) >= radius)
            to_boundary = _to_boundary(s.step, s.direction, radius)
        alpha = jnp.where(outside, to_boundary, alpha).astype(grad.dtype)
        residual = s.residual + alpha * product
        square = dot(residual, residual)
        count = s.count + 1
        return _State(
            step=s.step + alpha * s.direction,
            hessian_step=s.hessian_step + alpha * product,
            residual=residual,
            square=square,
            direction=-residual + square / s.square * s.direction,
            at_boundary=outside,
            count=count,
            done=outside | (jnp.sqrt(square) <= tol) | (count >= max_products),
        )

    s = inner_loop(lambda s: ~s.done, body, start, max_products, unroll)
    model = size * (size * (dot(grad, s.step) + 0.5 * dot(s.step, s.hessian_step)))
    return NewtonStep(size * s.step, model, s.at_boundary, s.count)
