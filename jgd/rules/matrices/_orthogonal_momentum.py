"""Orthogonalized momentum, which Muon and its relatives share."""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from optax.contrib import MuonDimensionNumbers

from jgd.core import Array, DTypeLike, Hyper, Rule, Slots, debias, fixed_int, increment, is_traced, show_by_name, zeros
from jgd.rules.matrices._axes import as_tuple
from jgd.rules.matrices._newton_schulz import Preconditioning, orthogonalize

Like = Literal["keller", "moonshot", "torch"]
show_by_name(globals(), "Like")


@dataclasses.dataclass(frozen=True)
class OrthogonalMomentum:
    """Momentum whose matrices are orthogonalized, in the form that is fixed before a step is compiled.

    Attributes:
        like: Whose momentum, `eps` and scale: optax's where None.
        steps: Newton-Schulz iterations with one triple of coefficients.
        nesterov: Whether the direction looks ahead.
        preconditioning: See `orthogonalize`.
        ns_dtype: See `dtype` of `orthogonalize`.
    """

    like: Like | None = "keller"
    steps: int = 5
    nesterov: bool = True
    preconditioning: Preconditioning = "frobenius"
    ns_dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        if not is_traced(self.steps):  # `optax.inject_hyperparams` traces it; the iteration then is a counted loop
            object.__setattr__(self, "steps", fixed_int("muon", "ns_steps", self.steps, least=0))

    def prepare(self, hyper: Hyper, step: Array) -> Hyper:
        """Adds what `average` and `orthogonalize` read: two weights, and the `eps` of the iteration."""
        beta, weight, eps = hyper["beta"], hyper["1-beta"], hyper["eps"]
        mu_scale, grad_scale = (beta, weight) if self.nesterov else (jnp.ones_like(beta), jnp.zeros_like(beta))
        if self.like is None:
            next_step = increment(step) if self.nesterov else step
            mu_scale, grad_scale = mu_scale / debias(weight, next_step), grad_scale / debias(weight, step)
        if self.like == "moonshot":
            eps = eps * weight  # there the sum of gradients is divided by its norm, not their average
        return hyper | {"mu_scale": mu_scale, "grad_scale": grad_scale, "ns_eps": eps}

    def average(self, grad: Array, mu: Array, hyper: Hyper) -> tuple[Array, Array]:
        """The new average of gradients, and the direction that follows from it."""
        mu = hyper["beta"] * mu + hyper["1-beta"] * grad
        mu_hat = hyper["mu_scale"] * mu
        return mu, mu_hat + hyper["grad_scale"] * grad if self.nesterov else mu_hat

    def orthogonalize(self, matrices: Array, hyper: Hyper) -> Array:
        """Newton-Schulz on a stack of matrices."""
        return orthogonalize(
            matrices,
            hyper["ns_coeffs"],
            self.steps,
            hyper["ns_eps"],
            self.preconditioning,
            dtype=self.ns_dtype,
            clamp=self.like == "torch",
        )


def shape_scale(
    shape: tuple[int, ...], axes: MuonDimensionNumbers, leaf_shape: tuple[int, ...], like: Like | None
) -> float:
    """`sqrt(max(1, out / in))`; in Jordan's code, for kernels of convolutions, of height and width in their place."""
    fan_in, fan_out = shape[-2:]
    rows = as_tuple(axes.reduction_axis)
    if like == "keller" and len(rows) > 2:
        fan_out, fan_in = leaf_shape[rows[-2]], leaf_shape[rows[-1]]
    return math.sqrt(max(1.0, fan_out / max(fan_in, 1)))


def matrix_rule(
    update: Callable[..., tuple[Array, Slots]], momentum: OrthogonalMomentum, **slots: Callable[[Array], Array]
) -> Rule:
    """A rule for matrices with the slot `mu`, and `slots` beside it."""
    return Rule(
        update,
        slots={"mu": zeros, **slots},
        kind="matrix",
        needs_params=True,
        supports_complex=momentum.ns_dtype is None,
        prepare=momentum.prepare,
    )
