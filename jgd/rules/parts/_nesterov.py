"""NAdam's update in the form of optax, for all rules of Adam's family that take `nesterov=True`."""

from jgd.core import Array, Hyper, Rule, Slots, debias, increment
from jgd.rules.parts._moments import MOMENT_SLOTS, adam_scales, denominator, moments


def nadam_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """Adam with Nesterov momentum, on one leaf."""
    del param, step
    mu, nu = moments(grad, slots, hyper)
    mu_hat = hyper["mu_scale"] * mu + hyper["grad_scale"] * grad
    return -mu_hat / denominator(nu, hyper), {"mu": mu, "nu": nu}


def nadam_scales(hyper: Hyper, step: Array) -> Hyper:
    """What to multiply the moments with, the momentum one step ahead."""
    rate, b1, weight = hyper["learning_rate"], hyper["b1"], hyper["1-b1"]
    mu_scale = rate * b1 / debias(weight, increment(step))
    return adam_scales(hyper, step) | {"mu_scale": mu_scale, "grad_scale": rate * weight / debias(weight, step)}


NADAM = Rule(nadam_update, slots=MOMENT_SLOTS, prepare=nadam_scales, nonnegative=("nu",))
