r"""D-Adaptation for AdamW: the distance to the solution, bounded from below as training goes.

$$
\begin{aligned}
\gamma_t &= \eta\, d_{t-1} \sqrt{1-\beta_2^t} / (1-\beta_1^t), \qquad \sigma = \sqrt{\beta_2} \\
m_t &= \beta_1 m_{t-1} + (1-\beta_1)\, \gamma_t g_t, \qquad v_t = \beta_2 v_{t-1} + (1-\beta_2)\, g_t^2 \\
r_t &= \sigma r_{t-1} + (1-\sigma)\, \gamma_t \langle g_t,\ s_{t-1} / (\sqrt{v_{t-1}} + \epsilon) \rangle, \qquad
s_t = \sigma s_{t-1} + (1-\sigma)\, \gamma_t g_t \\
d_t &= \max\bigl(d_{t-1},\ r_t / ((1-\sigma) \lVert s_t \rVert_1)\bigr), \qquad
\theta_t = \theta_{t-1} - m_t / (\sqrt{v_t} + \epsilon) - \lambda\, \gamma_t\, \theta_{t-1}
\end{aligned}
$$

with the slots `exp_avg` ($m$), `exp_avg_sq` ($v$), `grad_sum` ($s$), and for the tree `estim_lr` ($d$) and
`numerator_weighted` ($r$). With only zero gradients so far $d$ stays as it is.

References:
    - Defazio and Mishchenko, "Learning-rate-free learning by D-Adaptation", https://arxiv.org/abs/2301.07733, 2023,
      Algorithm 5.
"""

import jax.numpy as jnp

from jgd.core import (
    Array,
    Hyper,
    LayoutLike,
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
from jgd.rules.parts._slots import zero


def dadapt_update(
    grads: list[Array], slots: Slots, params: list[Array], hyper: Hyper, step: Array
) -> tuple[list[Array], Slots]:
    """D-Adapted AdamW, on all leaves."""
    del step
    d, eps = slots["estim_lr"], hyper["eps"]
    rate, sigma, rest = d * hyper["rate"], hyper["sigma"], 1 - hyper["sigma"]

    def over_root(x: Array, square: Array) -> Array:
        denominator = jnp.sqrt(square) + eps
        return x / jnp.where(denominator > 0, denominator, 1)

    slots_before = zip(grads, slots["grad_sum"], slots["exp_avg_sq"], strict=True)
    inner_product = sum(jnp.sum(g * over_root(s, v)) for g, s, v in slots_before)
    mu = [hyper["b1"] * m + hyper["1-b1"] * rate * g for m, g in zip(slots["exp_avg"], grads, strict=True)]
    nu = [hyper["b2"] * v + hyper["1-b2"] * abs_sq(g) for v, g in zip(slots["exp_avg_sq"], grads, strict=True)]
    sums = [sigma * s + rest * rate * g for s, g in zip(slots["grad_sum"], grads, strict=True)]
    norm1 = rest * sum(jnp.sum(jnp.abs(s)) for s in sums)
    numerator = sigma * slots["numerator_weighted"] + rest * rate * inner_product
    estimate = jnp.where(norm1 > 0, numerator / jnp.where(norm1 > 0, norm1, 1), d)
    leaves = zip(mu, nu, params, strict=True)
    deltas = [-over_root(m, v) - hyper["weight_decay"] * rate * p for m, v, p in leaves]
    new_slots = {"exp_avg": mu, "exp_avg_sq": nu, "grad_sum": sums, "estim_lr": jnp.maximum(d, estimate)}
    return deltas, new_slots | {"numerator_weighted": numerator}


def prepare(hyper: Hyper, step: Array) -> Hyper:
    """The correction of both moments, joined with the learning rate."""
    correction = jnp.sqrt(debias(hyper["1-b2"], step)) / debias(hyper["1-b1"], step)
    return hyper | {"rate": hyper["learning_rate"] * correction, "sigma": jnp.sqrt(hyper["b2"])}


def dadapt_adamw(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[ScalarOrSchedule, ScalarOrSchedule] = (0.9, 0.999),
    eps: ScalarOrSchedule = 1e-8,
    estim_lr0: StartValue = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """AdamW whose learning rate is found by D-Adaptation.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: A factor on the estimate, at least 0: one, or a schedule that ends in zero.
        betas: The decay rates of the two moments, each in [0, 1).
        eps: Added to the root of the second moment, at least 0.
        estim_lr0: The first estimate, above 0 and far too small.
        weight_decay: The share of each parameter, times the learning rate, that a step takes away; at least 0.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `b1`, `b2`, `eps`, `weight_decay`, three numbers a
        parameter in the slots `exp_avg`, `exp_avg_sq`, `grad_sum`, and `estim_lr`, `numerator_weighted` for the tree.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, a leaf is complex, or
            `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.dadapt_adamw(), jnp.array([5.0])
        >>> state = optimizer.init(params)
        >>> for _ in range(400):
        ...     updates, state = optimizer.update(2 * params, state, params)
        ...     params = jgd.apply_updates(params, updates)
        >>> print(bool(jnp.abs(params[0]) < 1.0))
        True
    """
    hyperparams = {"learning_rate": learning_rate, "b1": betas[0], "b2": betas[1], "eps": eps}
    rule = TreeRule(
        dadapt_update,
        slots={"exp_avg": zeros, "exp_avg_sq": real_zeros, "grad_sum": zeros},
        nonnegative=("exp_avg_sq",),
        scalars={"estim_lr": lambda params: zero(params) + estim_lr0, "numerator_weighted": zero},
        needs_params=True,
        supports_complex=False,
        prepare=prepare,
    )
    hyperparams |= {"weight_decay": weight_decay}
    return lift(rule, hyperparams, name="dadapt_adamw", state_dtype=state_dtype, layout=layout)
