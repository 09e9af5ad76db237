"""What the rules of Adam's family share: the two moments, their bias corrections and the denominator."""

import jax.numpy as jnp

from jgd.core import Array, Hyper, Slots, abs_sq, debias, real_zeros, zeros

MOMENT_SLOTS = {"mu": zeros, "nu": real_zeros}


def moments(grad: Array, slots: Slots, hyper: Hyper) -> tuple[Array, Array]:
    """The averages of the gradient and of its square."""
    mu = hyper["b1"] * slots["mu"] + hyper["1-b1"] * grad
    nu = hyper["b2"] * slots["nu"] + hyper["1-b2"] * abs_sq(grad)
    return mu, nu


def denominator(nu: Array, hyper: Hyper) -> Array:
    """The root of the corrected second moment, kept from zero."""
    return jnp.sqrt(hyper["nu_scale"] * nu + hyper["eps_root"]) + hyper["eps"]


# The corrections and the learning rate are numbers of the step: joined here, they cost nothing on the leaves.


def adam_scales(hyper: Hyper, step: Array) -> Hyper:
    """What to multiply the moments with: the corrections of their start at zero, the learning rate in the first."""
    mu_scale = hyper["learning_rate"] / debias(hyper["1-b1"], step)
    return hyper | {"mu_scale": mu_scale, "nu_scale": 1 / debias(hyper["1-b2"], step)}
