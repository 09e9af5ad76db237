"""SOAP's formulas on one leaf; `jgd.rules._soap` says what they are."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jgd.core import Array, Hyper, Rule, Slots, debias, fixed_int, root, when, zeros
from jgd.rules._eigenbasis import refreshed_basis
from jgd.rules._preconditioners import along_axes, gram, merged_shape
from jgd.rules._stagger import steps_ahead

_FIRST_ITERATIONS = 4

InitBasis = Literal["qr", "eigh", "identity"]


def check_init_basis(init_basis: str) -> None:
    """Raises ValueError for a name that is none of `InitBasis`."""
    if init_basis not in get_args(InitBasis):
        known = ", ".join(repr(name) for name in get_args(InitBasis))
        raise ValueError(f"soap: init_basis must be one of {known}; got {init_basis!r}.")


def soap_view(
    shape: tuple[int, ...], max_dim: int, merge: bool, precondition_1d: bool
) -> tuple[tuple[int, ...], list[int]]:
    """The shape that the preconditioner sees, and which of its axes have a matrix."""
    max_dim = fixed_int("soap", "max_precond_dim", max_dim)
    seen = merged_shape(shape, max_dim) if merge and math.prod(shape) else shape
    wanted = len(shape) > 1 or (len(shape) == 1 and precondition_1d)
    return seen, [axis for axis, n in enumerate(seen) if wanted and 0 < n <= max_dim]


def soap_rule(
    view: Callable[[tuple[int, ...]], tuple[tuple[int, ...], list[int]]],
    normalize: bool,
    correct_bias: bool,
    init_basis: InitBasis,
) -> Rule:
    """SOAP without weight decay. `view` is `soap_view` of the leaf's shape."""

    def factors_of(param: Array) -> tuple[Array, ...]:
        shape, axes = view(param.shape)
        return tuple(jnp.zeros((shape[axis],) * 2, param.dtype) for axis in axes)

    def basis_of(param: Array) -> tuple[Array, ...]:
        return tuple(jnp.eye(len(factor), dtype=factor.dtype) for factor in factors_of(param))

    def prepare(hyper: Hyper, step: Array) -> Hyper:
        started, count = step > 1, jnp.maximum(step - 1, 1)
        rate = hyper["learning_rate"]
        if correct_bias:
            rate = rate * jnp.sqrt(debias(hyper["1-b2"], count)) / debias(hyper["1-b1"], count)
        every = hyper["precondition_frequency"].astype(jnp.int32)
        due = ((step - 1 + steps_ahead(hyper, every)) % every == 0) | (step == 1)
        beta = "shampoo_beta" if "shampoo_beta" in hyper else "b2"
        return hyper | {
            "step_size": jnp.where(started, rate, 0),
            "mu_weight": jnp.where(started, hyper["1-b1"], 0),
            "nu_weight": jnp.where(started, hyper["1-b2"], 0),
            "factor_weight": hyper[f"1-{beta}"],
            "iterations": jnp.where(started, 1, _FIRST_ITERATIONS),
            "due": due if init_basis == "qr" else due & started,
        }

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del param
        shape, axes = view(grad.shape)

        def turned(x: Array, basis: tuple[Array, ...], *, into: bool) -> Array:
            by_axis = dict(zip(axes, basis, strict=True))
            return along_axes(x, [by_axis.get(axis) for axis in range(len(shape))], transposed=into)

        grad_, basis = grad.reshape(shape), slots["basis"]
        rotated = turned(grad_, basis, into=True)
        mu = hyper["b1"] * slots["mu"].reshape(shape) + hyper["mu_weight"] * rotated
        nu = hyper["b2"] * slots["nu"].reshape(shape) + hyper["nu_weight"] * jnp.square(rotated)
        denominator = jnp.sqrt(nu) + hyper["eps"]
        direction = turned(mu / jnp.where(denominator > 0, denominator, 1), basis, into=False)
        if normalize:
            rms = root(jnp.mean(jnp.square(direction)))
            direction = direction / jnp.where(rms > 0, rms, 1)
        factors = tuple(
            factor + hyper["factor_weight"] * (gram(grad_, axis) - factor)
            for axis, factor in zip(axes, slots["factors"], strict=True)
        )

        def refreshed(moments_and_basis: Any, factors_and_iterations: Any) -> Any:
            """One step of orthogonal iteration; the moments go with the columns."""
            (mu, nu, basis), (factors, iterations) = moments_and_basis, factors_and_iterations
            found = [refreshed_basis(factor, q, iterations) for factor, q in zip(factors, basis, strict=True)]
            new = tuple(q for q, _ in found)
            nu = _taken(nu, {axis: came_from for axis, (_, came_from) in zip(axes, found, strict=True)})
            return turned(turned(mu, basis, into=False), new, into=True), nu, new

        if axes:
            # Only once the direction is known can the new basis take the place of the old.
            due = hyper["due"] & jnp.isfinite(jnp.sum(direction))
            mu, nu, basis = when(due, refreshed, (mu, nu, basis), (factors, hyper["iterations"]))
            if init_basis == "eigh":
                basis = jax.lax.cond(step == 1, _eigenvectors, lambda _: basis, factors)
        slots = {"mu": mu.reshape(grad.shape), "nu": nu.reshape(grad.shape), "factors": factors, "basis": basis}
        return -hyper["step_size"] * direction.reshape(grad.shape), slots

    slots = {"mu": zeros, "nu": zeros, "factors": factors_of, "basis": basis_of}
    return Rule(
        update,
        slots=slots,
        kind="matrix",
        supports_complex=False,
        prepare=prepare,
        nonnegative=("nu",),
        exact=("factors", "basis"),
    )


def _taken(x: Array, places: Mapping[int, Array]) -> Array:
    """`x` with the entries along some axes in another order; read from a vector, whose layout XLA has no say in."""
    flat = jnp.zeros((1,) * x.ndim, jnp.int32)
    for axis, n in enumerate(x.shape):
        along = places.get(axis, jnp.arange(n))
        flat = flat * n + along.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return x.ravel()[flat]


def _eigenvectors(factors: tuple[Array, ...]) -> tuple[Array, ...]:
    """Those of the largest eigenvalues first."""
    return tuple(jnp.linalg.eigh(factor)[1][:, ::-1] for factor in factors)
