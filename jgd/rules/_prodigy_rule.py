"""The formula of Prodigy; `jgd.rules._prodigy` says where it is from."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from jgd.core import Array, Hyper, Slots, TreeRule, abs_sq, debias, real_zeros, zeros
from jgd.rules._distance import same, zero


def prodigy_rule(
    first: Any, corrected: bool, safeguard: bool, has_beta3: bool, decays: Sequence[bool] | None = None
) -> TreeRule:
    """The rule, its first estimate given, with and without correction and safeguard; None where all leaves decay."""

    def update(
        grads: list[Array], slots: Slots, params: list[Array], hyper: Hyper, step: Array
    ) -> tuple[list[Array], Slots]:
        del step
        d, start = slots["estim_lr"], slots["params0"]
        rate = d * hyper["rate"]
        b1, b2, b3 = hyper["b1"], hyper["b2"], hyper["b3"]
        weight = d / first * (d if safeguard else rate)
        inner = sum(jnp.sum(g * (p0 - p)) for g, p0, p in zip(grads, start, params, strict=True))
        numerator = b3 * slots["numerator_weighted"] + d / first * rate * inner
        mu = [b1 * m + hyper["1-b1"] * d * g for m, g in zip(slots["exp_avg"], grads, strict=True)]
        nu = [b2 * v + hyper["1-b2"] * d**2 * abs_sq(g) for v, g in zip(slots["exp_avg_sq"], grads, strict=True)]
        sums = [b3 * s + weight * g for s, g in zip(slots["grad_sum"], grads, strict=True)]
        size = sum(jnp.sum(jnp.abs(s)) for s in sums)
        estimate = jnp.where(size > 0, hyper["estim_lr_coef"] * numerator / jnp.where(size > 0, size, 1), d)
        largest = jnp.maximum(slots["estim_lr_max"], estimate)
        # The first estimate is taken whole; later ones are approached at the rate of growth.
        before = jnp.where(d == first, jnp.maximum(d, estimate), d)
        new_d = jnp.minimum(largest, before * hyper["growth_rate"])
        deltas = []
        for m, v, p, decay in zip(mu, nu, params, decays or [True] * len(params), strict=True):
            denominator = jnp.sqrt(v) + new_d * hyper["eps"]
            direction = m / jnp.where(denominator > 0, denominator, 1)
            deltas.append(-rate * (direction + hyper["weight_decay"] * p if decay else direction))
        new = {"exp_avg": mu, "exp_avg_sq": nu, "grad_sum": sums, "params0": start, "estim_lr": new_d}
        return deltas, new | {"numerator_weighted": numerator, "estim_lr_max": largest}

    def prepare(hyper: Hyper, step: Array) -> Hyper:
        correction = jnp.sqrt(debias(hyper["1-b2"], step)) / debias(hyper["1-b1"], step) if corrected else 1
        more = {"rate": hyper["learning_rate"] * correction} | ({} if has_beta3 else {"b3": jnp.sqrt(hyper["b2"])})
        return {"growth_rate": jnp.asarray(jnp.inf, hyper["b2"].dtype)} | hyper | more

    slots = {"exp_avg": zeros, "exp_avg_sq": real_zeros, "grad_sum": zeros, "params0": same}

    def start_at_first(params: list[Array]) -> Array:
        return zero(params) + first

    scalars = {"estim_lr": start_at_first, "estim_lr_max": start_at_first, "numerator_weighted": zero}
    declared = {"nonnegative": ("exp_avg_sq",), "exact": ("params0",)}
    return TreeRule(update, slots, scalars, needs_params=True, supports_complex=False, prepare=prepare, **declared)
