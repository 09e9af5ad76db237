r"""Prodigy: Adam that estimates how far away the solution is, and steps accordingly.

$$
\begin{aligned}
m_t &= \beta_1 m_{t-1} + (1-\beta_1)\, d_{t-1} g_t, \qquad v_t = \beta_2 v_{t-1} + (1-\beta_2)\, d_{t-1}^2 g_t^2 \\
r_t &= \beta_3 r_{t-1} + \tfrac{d_{t-1}}{d_0} \gamma_t \langle g_t, \theta_0 - \theta_{t-1} \rangle, \qquad
s_t = \beta_3 s_{t-1} + \tfrac{d_{t-1}}{d_0} \gamma_t\, g_t \\
d_t &= \max(d_{t-1},\ c\, r_t / \lVert s_t \rVert_1), \qquad
\theta_t = \theta_{t-1} - \gamma_t \bigl( m_t / (\sqrt{v_t} + d_t \epsilon) + \lambda\, \theta_{t-1} \bigr)
\end{aligned}
$$

with $\gamma_t = \eta\, d_{t-1} \sqrt{1-\beta_2^t} / (1-\beta_1^t)$. The slots are `exp_avg`, `exp_avg_sq`, `grad_sum`
($s$), `params0`, and for the tree `estim_lr` ($d$), `estim_lr_max` and `numerator_weighted` ($r$). optax always
corrects the moments; the authors' code does so on demand, and its default is `bias_correction=False`. With only zero
gradients so far $d$ stays as it is (optax 0.2.8 then holds NaN for ever).

References:
    - Mishchenko and Defazio, "Prodigy: An expeditiously adaptive parameter-free learner",
      https://arxiv.org/abs/2306.06101, 2023, Algorithm 4.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from jgd.core import (
    DECAY_RATE,
    Array,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    ScalarOrSchedule,
    Slots,
    StartValue,
    StateDtype,
    TreeRule,
    abs_sq,
    debias,
    lift,
    real_zeros,
    zeros,
)
from jgd.rules.parts._slots import initial_param, zero
from jgd.rules.parts._weight_decay import choose_decaying


def prodigy_rule(
    estim_lr0: Any, corrected: bool, safeguard: bool, has_beta3: bool, decays: Sequence[bool] | None = None
) -> TreeRule:
    """The rule, with or without bias correction and safeguard; `decays` says which leaves decay, None for all."""

    def update(
        grads: list[Array], slots: Slots, params: list[Array], hyper: Hyper, step: Array
    ) -> tuple[list[Array], Slots]:
        del step
        d, params0 = slots["estim_lr"], slots["params0"]
        rate = d * hyper["rate"]
        b1, b2, b3 = hyper["b1"], hyper["b2"], hyper["b3"]
        weight = d / estim_lr0 * (d if safeguard else rate)
        inner_product = sum(jnp.sum(g * (p0 - p)) for g, p0, p in zip(grads, params0, params, strict=True))
        numerator = b3 * slots["numerator_weighted"] + d / estim_lr0 * rate * inner_product
        mu = [b1 * m + hyper["1-b1"] * d * g for m, g in zip(slots["exp_avg"], grads, strict=True)]
        nu = [b2 * v + hyper["1-b2"] * d**2 * abs_sq(g) for v, g in zip(slots["exp_avg_sq"], grads, strict=True)]
        sums = [b3 * s + weight * g for s, g in zip(slots["grad_sum"], grads, strict=True)]
        norm1 = sum(jnp.sum(jnp.abs(s)) for s in sums)
        estimate = jnp.where(norm1 > 0, hyper["estim_lr_coef"] * numerator / jnp.where(norm1 > 0, norm1, 1), d)
        max_estimate = jnp.maximum(slots["estim_lr_max"], estimate)
        # The estimate grows by at most the growth rate a step, except the first time, when it is taken in full.
        base = jnp.where(d == estim_lr0, jnp.maximum(d, estimate), d)
        new_d = jnp.minimum(max_estimate, base * hyper["growth_rate"])
        deltas = []
        for m, v, p, decay in zip(mu, nu, params, decays or [True] * len(params), strict=True):
            denominator = jnp.sqrt(v) + new_d * hyper["eps"]
            direction = m / jnp.where(denominator > 0, denominator, 1)
            deltas.append(-rate * (direction + hyper["weight_decay"] * p if decay else direction))
        new_slots = {"exp_avg": mu, "exp_avg_sq": nu, "grad_sum": sums, "params0": params0, "estim_lr": new_d}
        return deltas, new_slots | {"numerator_weighted": numerator, "estim_lr_max": max_estimate}

    def prepare(hyper: Hyper, step: Array) -> Hyper:
        correction = jnp.sqrt(debias(hyper["1-b2"], step)) / debias(hyper["1-b1"], step) if corrected else 1
        more = {"rate": hyper["learning_rate"] * correction} | ({} if has_beta3 else {"b3": jnp.sqrt(hyper["b2"])})
        return {"growth_rate": jnp.asarray(jnp.inf, hyper["b2"].dtype)} | hyper | more

    slots = {"exp_avg": zeros, "exp_avg_sq": real_zeros, "grad_sum": zeros, "params0": initial_param}

    def start_at_first(params: list[Array]) -> Array:
        return zero(params) + estim_lr0

    scalars = {"estim_lr": start_at_first, "estim_lr_max": start_at_first, "numerator_weighted": zero}
    declared = {"nonnegative": ("exp_avg_sq",), "exact": ("params0",)}
    return TreeRule(update, slots, scalars, needs_params=True, supports_complex=False, prepare=prepare, **declared)


def prodigy(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[ScalarOrSchedule, ScalarOrSchedule] = (0.9, 0.999),
    beta3: ScalarOrSchedule | None = None,
    eps: ScalarOrSchedule = 1e-8,
    estim_lr0: StartValue = 1e-6,
    estim_lr_coef: ScalarOrSchedule = 1.0,
    weight_decay: ScalarOrSchedule = 0.0,
    safeguard_warmup: bool = False,
    weight_decay_mask: Mask = None,
    *,
    bias_correction: bool = True,
    growth_rate: ScalarOrSchedule | None = None,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Prodigy: Adam that estimates its own learning rate.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: A factor on the estimate, at least 0: one, or a schedule that ends in zero.
        betas: The decay rates of the two moments, each in [0, 1).
        beta3: Decay rate of the estimate's sums, in [0, 1); None for the root of the second of `betas`.
        eps: Added to the root of the second moment, times the estimate; at least 0.
        estim_lr0: The first estimate, above 0 and far too small.
        estim_lr_coef: A factor on later estimates; two or more where steps stay too small.
        weight_decay: The share of each parameter, times the learning rate, that a step takes away; at least 0.
        safeguard_warmup: Whether the sum in the denominator leaves the learning rate out, for long warm-ups.
        weight_decay_mask: Which leaves decay; as the mask of `jgd.adamw`.
        bias_correction: Whether the moments are corrected for their start at zero.
        growth_rate: The largest factor by which the estimate may grow in a step, above 1; None for no bound.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules (`betas` as `b1`, `b2`; `beta3` as
        `b3`), with four numbers a parameter in the slots `exp_avg`, `exp_avg_sq`, `grad_sum`, `params0`, and
        `estim_lr`, `estim_lr_max`, `numerator_weighted` for the tree.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, a leaf is complex, the mask
            does not fit, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.prodigy(), jnp.array([5.0])
        >>> state = optimizer.init(params)
        >>> for _ in range(300):
        ...     updates, state = optimizer.update(2 * params, state, params)
        ...     params = jgd.apply_updates(params, updates)
        >>> print(bool(jnp.abs(params[0]) < 0.2))
        True
    """
    hyperparams = {"learning_rate": learning_rate, "b1": betas[0], "b2": betas[1], "eps": eps}
    hyperparams |= {"estim_lr_coef": estim_lr_coef, "weight_decay": weight_decay}
    hyperparams |= {} if beta3 is None else {"b3": beta3}
    hyperparams |= {} if growth_rate is None else {"growth_rate": growth_rate}

    def rule(decays: Sequence[bool] | None = None) -> TreeRule:
        return prodigy_rule(estim_lr0, bias_correction, safeguard_warmup, beta3 is not None, decays)

    return lift(
        rule(),
        hyperparams,
        name="prodigy",
        choose=None if weight_decay_mask is None else choose_decaying("prodigy", weight_decay_mask, rule),
        ranges={"b3": DECAY_RATE},
        state_dtype=state_dtype,
        layout=layout,
    )
