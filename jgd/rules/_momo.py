r"""MoMo and MoMo-Adam: momentum with Polyak's step, from averages of losses and gradients.

$$
\begin{aligned}
\bar f_t &= \beta \bar f_{t-1} + (1-\beta) f_t, \qquad m_t = \beta m_{t-1} + (1-\beta)\, g_t, \qquad
\gamma_t = \beta \gamma_{t-1} + (1-\beta) \langle g_t, \theta_{t-1} \rangle \\
\tau_t &= \min\Bigl( \frac{\eta}{c_1},\ \frac{\bigl[ (1+\eta\lambda)(\bar f_t - c_1 f_* - \gamma_t)
          + \langle m_t, \theta_{t-1} \rangle \bigr]_+}{\langle m_t, D_t^{-1} m_t \rangle} \Bigr) \\
\theta_t &= \frac{\theta_{t-1} }{1+\eta\lambda} - \tau_t D_t^{-1} m_t
\end{aligned}
$$

MoMo has $D = 1$, $c_1 = 1$ and averages that start with the first values; MoMo-Adam has
$D_t = \epsilon + \sqrt{\hat v_t}$ and $c_1 = 1-\beta_1^t$. The slots are `exp_avg` ($m$), `exp_avg_sq` ($v$), and for
the tree `barf` ($\bar f$), `gamma` and `lb`, the lower bound $f_*$ in use.

References:
    - Schaipp et al., "MoMo: Momentum models for adaptive learning rates", https://arxiv.org/abs/2305.07583, 2023,
      Algorithms 1 and 3.
"""

from typing import Any

import jax.numpy as jnp

from jgd.core import (
    Array,
    Hyper,
    LayoutLike,
    Optimizer,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    TreeRule,
    abs_sq,
    check_hyperparam,
    debias,
    lift,
    real_zeros,
    zeros,
)
from jgd.rules.parts._slots import zero


def _vdot(xs: list[Array], ys: list[Array]) -> Any:
    return sum(jnp.sum(x * y) for x, y in zip(xs, ys, strict=True))


def momo_rule(adapts: bool, adam: bool, init_bound: Any) -> TreeRule:
    """The rule; `adam` is MoMo-Adam, `adapts` lets the lower bound follow the losses."""

    def update(
        grads: list[Array], slots: Slots, params: list[Array], hyper: Hyper, step: Array
    ) -> tuple[list[Array], Slots]:
        # MoMo's averages start at the first value, MoMo-Adam's at zero, corrected where they are used.
        keep = hyper["b1"] if adam else jnp.where(step == 1, 0, hyper["b1"])
        weight = hyper["1-b1"] if adam else jnp.where(step == 1, 1, hyper["1-b1"])
        correction = debias(hyper["1-b1"], step) if adam else jnp.ones_like(weight)
        new_slots: dict[str, Any] = {"barf": keep * slots["barf"] + weight * hyper["value"]}
        new_slots["gamma"] = keep * slots["gamma"] + weight * _vdot(grads, params)
        mean = new_slots["exp_avg"] = [keep * m + weight * g for m, g in zip(slots["exp_avg"], grads, strict=True)]
        direction = mean
        if adam:
            squares = zip(slots["exp_avg_sq"], grads, strict=True)
            new_slots["exp_avg_sq"] = [hyper["b2"] * v + hyper["1-b2"] * abs_sq(g) for v, g in squares]
            scale = 1 / debias(hyper["1-b2"], step)
            roots = [hyper["eps"] + jnp.sqrt(scale * v) for v in new_slots["exp_avg_sq"]]
            direction = [m / jnp.where(root > 0, root, 1) for m, root in zip(mean, roots, strict=True)]
        norm_sq, inner_product = _vdot(mean, direction), _vdot(mean, params)
        rate, bound = hyper["learning_rate"], slots["lb"] if adapts else hyper["lower_bound"]
        shrink = 1 + rate * hyper["weight_decay"]
        if adapts:
            cap = shrink * (new_slots["barf"] - new_slots["gamma"]) + inner_product
            lower = jnp.maximum(cap / (2 * correction * shrink), hyper["lower_bound"])
            bound = jnp.where(cap < shrink * correction * bound, lower, bound)
        gap = jnp.maximum(shrink * (new_slots["barf"] - correction * bound - new_slots["gamma"]) + inner_product, 0)
        usable = norm_sq > jnp.finfo(jnp.float64).eps
        tau = jnp.minimum(rate / correction, jnp.where(usable, gap / jnp.where(usable, norm_sq, 1), 0))
        if adapts:
            new_bound = (new_slots["barf"] + inner_product - new_slots["gamma"] - tau * norm_sq / 2) / correction
            bound = jnp.maximum(new_bound, hyper["lower_bound"])
        new_slots["lb"] = bound
        decay = rate * hyper["weight_decay"] / shrink
        return [-decay * p - tau * u for p, u in zip(params, direction, strict=True)], new_slots

    slots = {"exp_avg": zeros} | ({"exp_avg_sq": real_zeros} if adam else {})
    scalars = {"barf": zero, "gamma": zero, "lb": lambda params: zero(params) + init_bound}
    return TreeRule(
        update,
        slots=slots,
        scalars=scalars,
        needs_params=True,
        supports_complex=False,
        needs=("value",),
        nonnegative=("exp_avg_sq",) if adam else (),
    )


def momo(
    learning_rate: ScalarOrSchedule = 1.0,
    beta: ScalarOrSchedule = 0.9,
    lower_bound: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    adapt_lower_bound: bool = False,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Momentum with Polyak's step size. `update` must be given the loss: `update(grads, state, params, value=loss)`.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: The largest step size, at least 0.
        beta: Decay rate of the averages, in [0, 1); it stands in the state as `b1`.
        lower_bound: A number that the loss does not fall below.
        weight_decay: The share of each parameter, times the learning rate, that a step takes away; at least 0.
        adapt_lower_bound: Whether the bound follows the losses.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules, with the slot `exp_avg`, one number
        a parameter, and `barf`, `gamma`, `lb` for the tree.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, a leaf is complex, or
            `update` is called without params or `value`.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.momo(), jnp.array([3.0])
        >>> state = optimizer.init(params)
        >>> updates, state = optimizer.update(2 * params, state, params, value=jnp.sum(params**2))
        >>> print(params + updates)  # half of the way to the minimum of a parabola
        [1.5]
    """
    hyperparams = {"learning_rate": learning_rate, "b1": beta, "lower_bound": lower_bound}
    return lift(
        momo_rule(adapt_lower_bound, False, _number("momo", lower_bound)),
        hyperparams | {"weight_decay": weight_decay},
        name="momo",
        state_dtype=state_dtype,
        layout=layout,
    )


def momo_adam(
    learning_rate: ScalarOrSchedule = 1e-2,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    lower_bound: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    adapt_lower_bound: bool = False,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Adam with Polyak's step size. `update` must be given the loss: `update(grads, state, params, value=loss)`.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: The largest step size, at least 0.
        b1: Decay rate of the averages, in [0, 1).
        b2: Decay rate of the second moment, in [0, 1).
        eps: Added to the root of the second moment, at least 0.
        lower_bound: A number that the loss does not fall below.
        weight_decay: The share of each parameter, times the learning rate, that a step takes away; at least 0.
        adapt_lower_bound: Whether the bound follows the losses.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules, with the slots `exp_avg`,
        `exp_avg_sq`, two numbers a parameter, and `barf`, `gamma`, `lb` for the tree.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, a leaf is complex, or
            `update` is called without params or `value`.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.momo_adam(0.1), jnp.array([3.0])
        >>> state = optimizer.init(params)
        >>> updates, state = optimizer.update(2 * params, state, params, value=jnp.sum(params**2))
        >>> print(updates.round(3))
        [-0.1]
    """
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "lower_bound": lower_bound}
    return lift(
        momo_rule(adapt_lower_bound, True, _number("momo_adam", lower_bound)),
        hyperparams | {"weight_decay": weight_decay},
        name="momo_adam",
        state_dtype=state_dtype,
        layout=layout,
    )


def _number(owner: str, lower_bound: Any) -> Any:
    """The first value of the lower bound in use."""
    bound = lower_bound(0) if callable(lower_bound) else lower_bound
    check_hyperparam(owner, "lower_bound", bound)
    return bound
