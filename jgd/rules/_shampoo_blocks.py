"""What Shampoo does to one block: by stored inverse roots, or in the eigenbasis of its factors."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, Hyper, when
from jgd.rules._eigenbasis import eigenvalues_in, refreshed_basis
from jgd.rules._preconditioners import along_axes, gram

Own = Mapping[str, tuple[Array, ...]]  # the slots of a block: for each name one array an axis


class Found(NamedTuple):
    """Attributes:
    direction: The preconditioned momentum; before the first refresh the momentum itself.
    mu: The momentum, uncorrected, in the coordinates in which it is stored.
    own: The block's new slots.
    """

    direction: Array
    mu: Array
    own: Own


def _exponent(hyper: Hyper, grad: Array) -> Array | float:
    return hyper.get("inverse_exponent_override", 1 / (2 * max(grad.ndim, 1)))


def _damped(values: Array, hyper: Hyper) -> Array:
    largest = jnp.minimum(jnp.max(values), jnp.finfo(values.dtype).max)  # zero times infinity is no number
    return values + hyper["eps"] + hyper["relative_eps"] * largest


def _summed(factors: tuple[Array, ...], grad: Array, hyper: Hyper) -> tuple[Array, ...]:
    return tuple(
        hyper["b2"] * factor + hyper["factor_weight"] * gram(grad, axis) for axis, factor in enumerate(factors)
    )


def by_roots(hyper: Hyper, grad: Array, mu: Array, own: Own) -> Found:
    """Inverse roots by `eigh`, kept from one refresh to the next. `mu` is that of this step."""
    factors = _summed(own["factors"], grad, hyper)

    def taken(roots: tuple[Array, ...], read: tuple[tuple[Array, ...], Hyper]) -> tuple[Array, ...]:
        (factors, hyper), new = read, []
        for factor, root in zip(factors, roots, strict=True):
            values, vectors = jnp.linalg.eigh(factor * hyper["factor_scale"])
            values = _damped(values - jnp.minimum(jnp.min(values), 0), hyper)  # rounding may leave them below zero
            scaled = vectors * values ** -_exponent(hyper, grad)
            found = jnp.matmul(scaled, vectors.T, precision=jax.lax.Precision.HIGHEST)
            new.append(jnp.where(jnp.all(jnp.isfinite(found)), found, root))
        return tuple(new)

    roots = own["roots"]
    if factors:
        roots = when(hyper["due"], taken, roots, (factors, hyper))
    return Found(along_axes(hyper["mu_scale"] * mu, roots), mu, {"factors": factors, "roots": roots})


def by_basis(hyper: Hyper, grad: Array, mu: Array, own: Own, *, mu_turned: bool) -> Found:
    """Eigenvectors that follow the factors at every refresh; their eigenvalues are right in every step.

    `mu` is that of the last step in the basis of then where `mu_turned`, else that of this step in plain coordinates.
    """
    basis, turned = own["basis"], along_axes(grad, own["basis"], transposed=True)
    factors = _summed(own["factors"], grad, hyper)
    # The diagonal of the factor in the basis, without the products that this would take.
    values = tuple(
        hyper["b2"] * old + hyper["factor_weight"] * gram(turned, axis, diagonal=True)
        for axis, old in enumerate(own["eigenvalues"])
    )
    if mu_turned:
        mu = hyper["b1"] * mu + hyper["1-b1"] * turned

    def refreshed(carry: tuple, read: tuple[tuple[Array, ...], Array]) -> tuple:
        (mu, basis, _), (factors, iterations) = carry, read
        new = tuple(refreshed_basis(factor, q, iterations)[0] for factor, q in zip(factors, basis, strict=True))
        if mu_turned:
            mu = along_axes(along_axes(mu, basis), new, transposed=True)
        return mu, new, tuple(eigenvalues_in(q, factor) for q, factor in zip(new, factors, strict=True))

    if factors:
        mu, basis, values = when(hyper["due"], refreshed, (mu, basis, values), (factors, hyper["iterations"]))
    direction = hyper["mu_scale"] * (mu if mu_turned else along_axes(mu, basis, transposed=True))
    for axis, axis_values in enumerate(values):
        scale = _damped(hyper["factor_scale"] * axis_values, hyper) ** -_exponent(hyper, grad)
        scale = jnp.where(hyper["started"], scale, 1)
        direction = direction * scale.reshape([-1 if i == axis else 1 for i in range(grad.ndim)])
    return Found(along_axes(direction, basis), mu, {"factors": factors, "basis": basis, "eigenvalues": values})
