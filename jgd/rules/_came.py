r"""CAME: Adafactor's memory, with momentum that is trusted where it agrees with the gradients.

$$
\begin{aligned}
u_t &= g_t / \sqrt{V_t}, \qquad V_t = F\bigl(g_t^2 + \epsilon_1;\, \beta_2\bigr), \qquad
u_t \leftarrow u_t / \max(1,\, \operatorname{rms}(u_t) / d) \\
m_t &= \beta_1 m_{t-1} + (1-\beta_1)\, u_t \\
\theta_t &= \theta_{t-1} - \eta\, \bigl(m_t / \sqrt{S_t} + \lambda\, \theta_{t-1}\bigr), \qquad
S_t = F\bigl((u_t - m_t)^2 + \epsilon_2;\, \beta_3\bigr)
\end{aligned}
$$

where $F(x; \beta)$ keeps the averages $r$ and $c$ of the means of $x$ over the last axis and over the one before, and
gives $r c^\top / \operatorname{mean}(r)$. The slots are $m$ (`mu`), $r$ and $c$ of the squares (`nu_row`, `nu_col`) and
of the instability (`res_row`, `res_col`). No average is corrected for its start at zero.

As in the authors' code, leaves of fewer than two axes keep all of $v$ (`nu`) and step along $m_t$ itself.

References:
    - Luo et al., "CAME: Confidence-guided adaptive memory efficient optimization", https://arxiv.org/abs/2307.02047,
      2023, Algorithm 2.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jgd.core import (
    POSITIVE,
    Array,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    PyTree,
    Rule,
    ScalarOrSchedule,
    SlotDtype,
    Slots,
    StateDtype,
    broadcast_mask,
    lift,
    root,
)
from jgd.rules.parts._weight_decay import DecayForm, decayed


def factored_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """CAME on a leaf of two axes and more."""
    del param, step
    nu_row, nu_col = _averages(grad**2 + hyper["eps1"], slots["nu_row"], slots["nu_col"], hyper["b2"], hyper["1-b2"])
    update = _clipped(grad * _inverse_root(nu_row, nu_col), hyper)
    mu = hyper["b1"] * slots["mu"] + hyper["1-b1"] * update
    instability = (update - mu) ** 2 + hyper["eps2"]
    res_row, res_col = _averages(instability, slots["res_row"], slots["res_col"], hyper["b3"], hyper["1-b3"])
    delta = -hyper["learning_rate"] * mu * _inverse_root(res_row, res_col)
    return delta, {"mu": mu, "nu_row": nu_row, "nu_col": nu_col, "res_row": res_row, "res_col": res_col}


def full_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """CAME on a leaf of fewer axes."""
    del param, step
    nu = hyper["b2"] * slots["nu"] + hyper["1-b2"] * (grad**2 + hyper["eps1"])
    mu = hyper["b1"] * slots["mu"] + hyper["1-b1"] * _clipped(grad / jnp.sqrt(nu), hyper)
    return -hyper["learning_rate"] * mu, {"mu": mu, "nu": nu}


def _averages(x: Array, row: Array, col: Array, decay: Array, weight: Array) -> tuple[Array, Array]:
    return decay * row + weight * jnp.mean(x, axis=-1), decay * col + weight * jnp.mean(x, axis=-2)


def _inverse_root(row: Array, col: Array) -> Array:
    row = row / jnp.mean(row, axis=-1, keepdims=True)
    return jax.lax.rsqrt(row)[..., None] * jax.lax.rsqrt(col)[..., None, :]


def _clipped(update: Array, hyper: Hyper) -> Array:
    rms = root(jnp.sum(update**2) / max(update.size, 1))
    return update / jnp.maximum(rms / hyper["clip_threshold"], 1)


def _without(axis: int) -> Callable[[Array], Array]:
    return lambda param: jnp.zeros_like(jnp.sum(param, axis))


FACTORS = {"nu_row": _without(-1), "nu_col": _without(-2), "res_row": _without(-1), "res_col": _without(-2)}
FACTORED_SLOTS = {"mu": jnp.zeros_like} | FACTORS
FACTORED = Rule(factored_update, FACTORED_SLOTS, "leaf", supports_complex=False, nonnegative=tuple(FACTORS))
FULL_SLOTS = {"mu": jnp.zeros_like, "nu": jnp.zeros_like}
FULL = Rule(full_update, FULL_SLOTS, "leaf", supports_complex=False, nonnegative=("nu",))


def came(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    eps1: ScalarOrSchedule = 1e-30,
    eps2: ScalarOrSchedule = 1e-16,
    clip_threshold: ScalarOrSchedule = 1.0,
    mu_dtype: SlotDtype | None = "auto",
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    decay_form: DecayForm = "scaled",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """CAME: confidence-guided adaptive memory-efficient optimization.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: The size of a step, about, at least 0; half of AdamW's, the authors' is 2e-4.
        b1: Decay rate of the momentum, in [0, 1).
        b2: Decay rate of the squares, in [0, 1).
        b3: Decay rate of the instability, in [0, 1).
        eps1: Added to the squares, above 0.
        eps2: Added to the instability, above 0.
        clip_threshold: The largest root mean square of what enters the momentum, above 0.
        state_dtype: As for `jgd.adam`, but float16 cannot hold `eps1`.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules, with the slots `mu`, one number a
        parameter, `nu_row`, `nu_col`, `res_row` and `res_col`; other leaves have `mu` and `nu`.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, a leaf is complex, the mask
            does not fit the params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.zeros((2, 2))
        >>> optimizer = jgd.came(0.1)
        >>> state = optimizer.init(params)
        >>> updates, state = optimizer.update(jnp.array([[3.0, -3.0], [0.1, -0.1]]), state, params)
        >>> print(updates.round(1), state.slots["nu_row"].shape)
        [[-1.1  1.1]
         [-1.1  1.1]] (2,)
    """
    pairs = {True: (decayed(FULL, decay_form), FULL), False: (decayed(FACTORED, decay_form), FACTORED)}

    def choose(params: PyTree) -> PyTree:
        def rule(leaf: Any, decays: bool) -> Rule:
            shape = jnp.shape(leaf)
            return pairs[len(shape) < 2 or 0 in shape][0 if decays else 1]

        return jax.tree.map(rule, params, broadcast_mask("came", mask, params))

    return lift(
        (pairs[False][0], pairs[True][0]),
        {"learning_rate": learning_rate, "b1": b1, "b2": b2, "b3": b3, "weight_decay": weight_decay}
        | {"eps1": eps1, "eps2": eps2, "clip_threshold": clip_threshold},
        name="came",
        choose=choose,
        ranges={"eps1": POSITIVE, "eps2": POSITIVE},
        slot_dtypes={"mu": mu_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )
