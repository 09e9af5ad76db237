r"""Adan: Nesterov momentum from the differences of gradients.

$$
\begin{aligned}
d_t &= g_t - g_{t-1}, \qquad m_t = \beta_1 m_{t-1} + (1-\beta_1)\, g_t, \qquad
v_t = \beta_2 v_{t-1} + (1-\beta_2)\, d_t \\
n_t &= \beta_3 n_{t-1} + (1-\beta_3)\, \bigl(g_t + w\, d_t\bigr)^2 \\
\theta_t &= \theta_{t-1} - \eta\, \bigl( (\hat m_t + w\, \hat v_t) / (\sqrt{\hat n_t + \epsilon_\text{root}}
            + \epsilon) + \lambda\, \theta_{t-1} \bigr)
\end{aligned}
$$

with the slots `m`, `v`, `n` and the last gradient `g`, and $d_1 = 0$. In optax $w = 1-\beta_2$. The author's code has
$w = \beta_2$, since there the betas weigh what is kept, and applies the decay proximally, dividing by $1 +
\eta\lambda$: `like="author"` is that form.

References:
    - Xie et al., "Adan: Adaptive Nesterov momentum algorithm", https://arxiv.org/abs/2208.06677, 2022, Algorithm 1.
"""

from typing import Literal

import jax.numpy as jnp

from jgd.core import (
    Array,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    abs_sq,
    check_choice,
    debias,
    real_zeros,
    zeros,
)
from jgd.rules.parts._weight_decay import lift_decayed


def adan_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """Adan, on one leaf."""
    del param
    difference = jnp.where(step == 1, 0, grad - slots["g"])
    m = hyper["b1"] * slots["m"] + hyper["1-b1"] * grad
    v = hyper["b2"] * slots["v"] + hyper["1-b2"] * difference
    n = hyper["b3"] * slots["n"] + hyper["1-b3"] * abs_sq(grad + hyper["ahead"] * difference)
    direction = hyper["m_scale"] * m + hyper["v_scale"] * v
    denominator = jnp.sqrt(hyper["n_scale"] * n + hyper["eps_root"]) + hyper["eps"]
    return -direction / denominator, {"m": m, "v": v, "n": n, "g": grad}


def adan_rule(weight: str) -> Rule:
    """The rule, with the differences weighed by the hyperparameter of that name."""

    def prepare(hyper: Hyper, step: Array) -> Hyper:
        rate, ahead = hyper["learning_rate"], hyper[weight]
        return hyper | {
            "ahead": ahead,
            "m_scale": rate / debias(hyper["1-b1"], step),
            "v_scale": rate * ahead / debias(hyper["1-b2"], step),
            "n_scale": 1 / debias(hyper["1-b3"], step),
        }

    slots = {"m": zeros, "v": zeros, "n": real_zeros, "g": zeros}
    return Rule(adan_update, slots=slots, prepare=prepare, nonnegative=("n",))


ADAN, AUTHORS_ADAN = adan_rule("1-b2"), adan_rule("b2")


def adan(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.98,
    b2: ScalarOrSchedule = 0.92,
    b3: ScalarOrSchedule = 0.99,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    like: Literal["optax", "author"] = "optax",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Adan: adaptive Nesterov momentum.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: About the size of a step in each parameter, at least 0.
        b1: Decay rate of the average of gradients, in [0, 1).
        b2: Decay rate of the average of their differences, in [0, 1).
        b3: Decay rate of the second moment, in [0, 1).
        eps: Added to the root of the second moment, at least 0.
        eps_root: Added under the root, at least 0.
        like: Whose form to follow; see the notes above.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules, with the slots `m`, `v`, `n`, `g`,
        four numbers a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, the mask does not fit the
            params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.adan(0.1)
        >>> updates, state = optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)), jnp.zeros(1))
        >>> print(updates.round(3))
        [-0.1]
    """
    check_choice("adan", "like", like, Literal["optax", "author"])
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "b3": b3, "eps": eps, "eps_root": eps_root}
    author = like == "author"
    return lift_decayed(
        AUTHORS_ADAN if author else ADAN,
        hyperparams,
        weight_decay,
        mask,
        "proximal" if author else "scaled",
        name="adan",
        state_dtype=state_dtype,
        layout=layout,
    )
