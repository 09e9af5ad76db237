"""What a method sees of a problem: a function of one flat vector, its derivatives, and a point."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, ArrayLike, PyTree


class Point(NamedTuple):
    """Where a run stands.

    Attributes:
        params: The params as one vector [n].
        value: The value there, a scalar.
        grad: The gradient there [n].
    """

    params: Array
    value: Array
    grad: Array


def _identity(value: PyTree) -> PyTree:
    """The tree of a problem whose params are a vector for the user, too."""
    return value


@dataclasses.dataclass(frozen=True)
class Problem:
    """A function of a flat vector.

    Attributes:
        fun: From params [n] to the value, a scalar.
        residuals: From params [n] to residuals [m], where the value is half the sum of their squares; else None.
        eps: The relative rounding error of a value, about the machine epsilon.
        running: Whether this lane of a `vmap` has not ended. Inner loops of a lane that has must end at once, since
            the others wait for them: pass it to line searches and to the conditions of inner loops.
        detached: The same problem without derivatives with respect to its arguments, for inner loops of an unrolled
            run; None where the run is not unrolled.
        ravel: From the user's tree to a vector [n].
        unravel: From a vector [n] to the user's tree.
        bounds: Lower and upper bounds [n], for methods that know them; else None.
        magnitude: The size of the terms whose sum the value is, where they cancel: rounding is relative to it.
    """

    fun: Callable[[Array], Array]
    residuals: Callable[[Array], Array] | None = None
    eps: float = 2.0**-52
    running: ArrayLike = True
    detached: "Problem | None" = None
    ravel: Callable[[PyTree], Array] = _identity
    unravel: Callable[[Array], PyTree] = _identity
    bounds: tuple[Array, Array] | None = None
    magnitude: ArrayLike = 0.0

    @property
    def unrolled(self) -> bool:
        """Whether the run is differentiated step by step: then reverse mode must be able to pass its inner loops."""
        return self.detached is not None

    @property
    def inner(self) -> "Problem":
        """The problem as inner loops, such as line searches, evaluate it: `detached` where the run is unrolled."""
        return self if self.detached is None else self.detached

    def detach(self, *arrays: Array) -> tuple[Array, ...]:
        """Arrays that inner loops read: without derivatives where the run is unrolled."""
        return arrays if self.detached is None else tuple(jax.lax.stop_gradient(array) for array in arrays)

    def value_and_grad(self, params: Array) -> tuple[Array, Array]:
        """The value and the gradient [n]."""
        value, grad = jax.value_and_grad(self.fun)(params)
        return value, grad

    def point(self, params: Array) -> Point:
        """Params with their value and gradient."""
        return Point(params, *self.value_and_grad(params))

    def hessian_product(self, params: Array, vector: Array) -> Array:
        """The Hessian times a vector [n]."""
        return jax.jvp(jax.grad(self.fun), (params,), (vector,))[1]

    def noise(self, value: Array) -> Array:
        """By how much rounding may change a value: ten times the error of one operation."""
        return 10 * self.eps * jnp.maximum(jnp.abs(value), jnp.asarray(self.magnitude, value.dtype))

    def at_floor(self, point: Point, decrease: Array | float) -> Array:
        """Whether rounding of the value and of the params hides a decrease of this size."""
        eps = float(jnp.finfo(point.params.dtype).eps)
        rounded = eps * jnp.sum(jnp.abs(point.params * point.grad))
        return jnp.abs(decrease) <= 10 * (self.noise(point.value) + 10 * rounded)


def apply_to_tree(problem: Problem, fun: Callable[[PyTree], PyTree], params: Array, what: str) -> Array:
    """A function from the user's tree to a tree of the same shapes, applied to a vector [n]; `what` is for errors.

    Raises:
        ValueError: The function returns another kind of tree.
    """
    before = problem.unravel(params)
    after = fun(before)
    shapes, expected = (jax.tree.map(lambda leaf: jnp.shape(leaf), tree) for tree in (after, before))
    if shapes != expected:
        raise ValueError(f"{what} returned a tree of the shapes {shapes}; expected those of params, {expected}.")
    return problem.ravel(after)


def dot(a: Array, b: Array) -> Array:
    """The inner product of two real vectors, in full precision on every device."""
    return jnp.dot(a, b, precision=jax.lax.Precision.HIGHEST)


def norm(a: Array) -> Array:
    """The Euclidean norm of a vector, without overflow of the squares; its derivative at zero is zero."""
    scale = jnp.max(jnp.abs(a), initial=0.0)
    safe = jnp.where((scale > 0) & jnp.isfinite(scale), scale, 1)
    square = dot(a / safe, a / safe)
    # lanes of an unrolled run that have ended make steps of zero, through which derivatives are taken, too
    zero = square == 0
    return jnp.where(zero, 0, safe * jnp.sqrt(jnp.where(zero, 1, square)))


def safe_scale(vector: Array) -> Array:
    """A power of two by which a vector has a square that neither overflows nor vanishes: 1 but for extreme entries."""
    far = jnp.finfo(vector.dtype).maxexp * 3 // 8
    size = max_norm(jax.lax.stop_gradient(vector))
    power = jnp.where(size > 2.0**far, 2.0 ** -(far * 5 // 3), 1.0)
    return jnp.where((size > 0) & (size < 2.0**-far), 2.0 ** (far * 5 // 3), power).astype(vector.dtype)


def steepest_descent(grad: Array) -> tuple[Array, Array, Array]:
    """The negative gradient [n] times a power of two, its slope, and the power: 1, but where the slope overflows."""
    power = jnp.minimum(safe_scale(grad), 1)
    direction = -power * grad
    return direction, dot(direction, grad), power


def unit_step(vector: Array) -> Array:
    """The step length along a vector [n], at most 1, for a step of a norm of at most 1."""
    size = norm(vector)
    return jnp.minimum(1, 1 / jnp.where(size > 0, size, 1)).astype(size.dtype)


def max_norm(a: Array) -> Array:
    """The largest absolute entry; 0 of an empty vector."""
    return jnp.max(jnp.abs(a), initial=0.0)
