r"""Mechanic: a learned scale for the updates of any optimizer.

Betting on the direction that the optimizer has taken since the start, with the sum of its updates
$\Delta_t = (\theta_0 - \theta_{t-1}) / s_{t-1}$ and $h_t = \langle g_t, \Delta_t \rangle$, for each decay $\beta_i = 1
- 10^{-i}$:

$$
\begin{aligned}
m_t &= \max(\beta m_{t-1}, |h_t| + \epsilon), \qquad v_t = \beta^2 v_{t-1} + h_t^2, \qquad
r_t = \beta r_{t-1} + \operatorname{clip}(h_t, \pm m_{t-1})\, s_{t-1} \\
s_t &= \bigl( \tfrac{s_0}{n} m_t + \max(r_t, 0) \bigr) / (\sqrt{v_t} + \epsilon), \qquad
\theta_t = \theta_0 - \bigl(\textstyle\sum_i s_t\bigr)\, (\Delta_t - u_t)
\end{aligned}
$$

References:
    - Cutkosky, Defazio and Mehta, "Mechanic: A learning rate tuner", https://arxiv.org/abs/2306.00144, 2023, Algorithm
      1.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jgd.core import (
    Array,
    GradientTransformation,
    Hyperparams,
    Optimizer,
    OptState,
    PyTree,
    ScalarOrSchedule,
    WrapperState,
    begin_update,
    check_params_given,
    first_state,
    fixed_int,
    global_norm,
    make_optimizer,
    map_floats,
    transform_text,
    wide_copy,
    zero_update,
)


def mechanize(
    base_optimizer: GradientTransformation,
    weight_decay: ScalarOrSchedule = 1e-2,
    eps: ScalarOrSchedule = 1e-8,
    s_init: ScalarOrSchedule = 1e-6,
    num_betas: int = 6,
) -> Optimizer:
    """Finds the scale of an optimizer's updates as it goes.

    Args:
        base_optimizer: Any optimizer with a learning rate of about one, and without weight decay.
        weight_decay: How strongly the params are drawn to zero, at least 0.
        eps: Added to denominators, at least 0.
        s_init: The first scale, above 0 and far too small.
        num_betas: How many decay rates bet side by side, at least 1.

    Returns:
        An optimizer with the hyperparameters `weight_decay`, `eps`, `s_init`, the slot `x0`, one number a parameter,
        and `r`, `m`, `v`, `s`, vectors for the tree, whose state is `WrapperState(own, inner)`.

    Raises:
        TypeError, ValueError: `base_optimizer` is not an optimizer, a hyperparameter is not a finite number in
            its range, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.mechanize(jgd.sgd(1.0)), jnp.array([1.0])
        >>> state = optimizer.init(params)
        >>> for _ in range(200):
        ...     updates, state = optimizer.update(2 * params, state, params)
        ...     params = jgd.apply_updates(params, updates)
        >>> print(bool(jnp.abs(params[0]) < 0.1))
        True
    """
    num_betas = fixed_int("mechanize", "num_betas", num_betas, least=1)
    base = optax.with_extra_args_support(base_optimizer)
    numbers = Hyperparams("mechanize", {"weight_decay": weight_decay, "eps": eps, "s_init": s_init})

    def init(params: PyTree) -> WrapperState:
        first = first_state(numbers, {})
        scale = first.hyperparams["s_init"]
        zeros = {name: jnp.zeros(num_betas, scale.dtype) for name in ("r", "m", "v")}
        start = map_floats(wide_copy, params, others=lambda _: optax.MaskedNode())
        slots = {"x0": start, **zeros, "s": jnp.full(num_betas, scale)}
        return WrapperState(first._replace(slots=slots), base.init(params))

    def update(grads: PyTree, state: WrapperState, params: PyTree = None, **extra: Any) -> tuple[PyTree, WrapperState]:
        hyper, count = begin_update(numbers, state, WrapperState)
        check_params_given("mechanize", params)
        slots = state.own.slots
        base_updates, inner = base.update(grads, state.inner, params, **extra)
        scale, param_norm, eps_ = jnp.sum(slots["s"]), global_norm(params), hyper["eps"]
        decay = hyper["weight_decay"] * scale * global_norm(grads) / (param_norm + eps_)

        def wide(x: Any, like: Array) -> Array:
            return jnp.asarray(x).astype(like.dtype)

        def scaled_sum(p: Any, x0: Array) -> Array:
            return (x0 - wide(p, x0)) / wide(scale + eps_, x0.real)

        delta = map_floats(scaled_sum, params, slots["x0"])

        def inner_product(p: Any, g: Any, d: Array) -> Array:
            decayed = wide(g, d) + wide(decay, d.real) * wide(p, d)
            return jnp.sum((decayed.conj() * d).real)

        inner_products = map_floats(inner_product, params, grads, delta, others=lambda _: None)
        h = sum(x.astype(scale.dtype) for x in jax.tree.leaves(inner_products))
        betas = 1 - 0.1 ** jnp.arange(1, num_betas + 1, dtype=scale.dtype)
        m = jnp.maximum(betas * slots["m"], jnp.abs(h) + eps_)
        v = betas**2 * slots["v"] + h**2
        r = betas * slots["r"] + jnp.clip(h, -slots["m"], slots["m"]) * slots["s"]
        wealth = hyper["s_init"] / num_betas * m + jnp.maximum(r, 0)
        s = wealth / (jnp.sqrt(v) + eps_)

        def update_leaf(p: Any, x0: Array, d: Array, u: Array) -> Array:
            return (x0 - wide(jnp.sum(s), x0.real) * (d - wide(u, d)) - wide(p, x0)).astype(u.dtype)

        updates = map_floats(update_leaf, params, slots["x0"], delta, base_updates, others=zero_update)
        new_slots = {"x0": slots["x0"], "r": r, "m": m, "v": v, "s": s}
        return updates, WrapperState(OptState(count, hyper, new_slots), inner)

    return make_optimizer(init, update, f"jgd.mechanize({transform_text(base_optimizer)}, {numbers.text()})")
