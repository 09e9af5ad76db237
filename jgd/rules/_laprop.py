r"""LaProp: momentum over normalized gradients, where Adam normalizes the momentum.

$$
\begin{aligned}
v_t &= \beta_2 v_{t-1} + (1-\beta_2)\, |g_t|^2, \qquad \hat v_t = v_t / (1-\beta_2^t) \\
m_t &= \beta_1 m_{t-1} + (1-\beta_1)\, \eta_t\, g_t / (\sqrt{\hat v_t} + \epsilon) \\
r_t &= \beta_1 r_{t-1} + (1-\beta_1)\, \eta_t \\
\theta_t &= \theta_{t-1} - \eta_t\, m_t / r_t
\end{aligned}
$$

with the slots $m$ (`mu`), $v$ (`nu`) and $r$ (`rate`, one number a leaf). This is the authors' code: under a schedule,
steps taken at a larger learning rate weigh more in the average. At a constant rate $r_t = \eta\,(1-\beta_1^t)$, which
is the paper's form. Where the learning rate is zero params do not move; their code takes $m_t$.

`centered` subtracts the squared mean from $v$ after ten steps, and `amsgrad` takes the largest value so far, before
the correction. The authors decay by $\lambda$ without the learning rate, after the step: `weight_decay=λ/η,
decay_form="after"`.

References:
    - Ziyin, Wang and Ueda, "LaProp: Separating momentum and adaptivity in Adam", https://arxiv.org/abs/2002.04839,
      2020, Algorithm 1.
"""

import jax.numpy as jnp

from jgd.core import (
    Array,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    SlotDtype,
    Slots,
    StateDtype,
    abs_sq,
    debias,
    real_zero,
    real_zeros,
    zeros,
)
from jgd.rules.parts._weight_decay import DecayForm, lift_decayed

STEPS_NOT_CENTERED = 10  # the mean is too noisy before


def laprop_rule(amsgrad: bool = False, centered: bool = False) -> Rule:
    """The rule, with the largest second moment so far, a centered one, or both."""

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del param
        new_slots = {"nu": hyper["b2"] * slots["nu"] + hyper["1-b2"] * abs_sq(grad)}
        nu = new_slots["nu"]
        settled = step > STEPS_NOT_CENTERED
        if centered:
            new_slots["mean"] = hyper["b2"] * slots["mean"] + hyper["1-b2"] * grad
            # never negative but for rounding
            nu = jnp.where(settled, jnp.maximum(nu - abs_sq(new_slots["mean"]), 0), nu)
        if amsgrad:
            largest = jnp.maximum(slots["nu_max"], nu)
            new_slots["nu_max"] = jnp.where(settled, largest, slots["nu_max"]) if centered else largest
            nu = jnp.where(settled, largest, nu) if centered else largest
        scaled = hyper["learning_rate"] * grad / (jnp.sqrt(hyper["nu_scale"] * nu) + hyper["eps"])
        new_slots["mu"] = hyper["b1"] * slots["mu"] + hyper["1-b1"] * scaled
        new_slots["rate"] = hyper["b1"] * slots["rate"] + hyper["1-b1"] * hyper["learning_rate"]
        has_moved = new_slots["rate"] > 0
        scale = jnp.where(has_moved, -hyper["learning_rate"] / jnp.where(has_moved, new_slots["rate"], 1), 0)
        return scale * new_slots["mu"], new_slots

    slots = {"mu": zeros, "nu": real_zeros, "rate": real_zero}
    slots |= {"mean": zeros} if centered else {}
    slots |= {"nu_max": real_zeros} if amsgrad else {}
    exact = ("nu", "mean") if centered else ()  # their difference may be far smaller than either
    squares = tuple(slot for slot in ("nu", "nu_max") if slot in slots)
    return Rule(update, slots=slots, kind="leaf", prepare=_correction, nonnegative=squares, exact=exact)


def _correction(hyper: Hyper, step: Array) -> Hyper:
    return hyper | {"nu_scale": 1 / debias(hyper["1-b2"], step)}


def laprop(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-15,
    mu_dtype: SlotDtype | None = "auto",
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    amsgrad: bool = False,
    centered: bool = False,
    decay_form: DecayForm = "scaled",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """LaProp: Adam with momentum and adaptivity decoupled, which tolerates larger `b1` and smaller `b2`.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: About the size of a step in each parameter, at least 0; the authors' is 4e-4.
        b1: Decay rate of the average of normalized gradients, in [0, 1).
        b2: Decay rate of the average of squared gradients, in [0, 1).
        eps: Added to the root of the second moment, at least 0.
        amsgrad: Whether to divide by the largest second moment so far.
        centered: Whether to divide by the variance in place of the second moment.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `b1`, `b2`, `eps`, `weight_decay`, and the slots `mu`,
        `nu` (two numbers a parameter) and `rate` (one a leaf); `mean` and `nu_max` where asked for.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, the mask does not fit the
            params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.zeros(2)
        >>> optimizer = jgd.laprop(0.1)
        >>> updates, state = optimizer.update(jnp.array([3.0, -0.002]), optimizer.init(params), params)
        >>> print(updates.round(3))
        [-0.1  0.1]
    """
    return lift_decayed(
        laprop_rule(amsgrad, centered),
        {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps},
        weight_decay,
        mask,
        decay_form,
        name="laprop",
        slot_dtypes={"mu": mu_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )
