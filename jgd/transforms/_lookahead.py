r"""Lookahead: slow weights that follow the fast ones every few steps.

$$
\phi \leftarrow \phi + \alpha\, (\theta - \phi), \qquad \theta \leftarrow \phi \qquad \text{every } k \text{ steps}
$$

with the slow weights $\phi$ in the slot `slow`.

References:
    - Zhang et al., "Lookahead optimizer: k steps forward, 1 step back", https://arxiv.org/abs/1907.08610, 2019,
      Algorithm 1.
"""

from typing import Any

import jax.numpy as jnp
import optax

from jgd.core import (
    AT_LEAST_ONE,
    POSITIVE,
    Array,
    GradientTransformation,
    Hyper,
    Optimizer,
    PyTree,
    ScalarOrSchedule,
    Slots,
    Wrapper,
    WrapperState,
    make_optimizer,
    tree_where,
    wrap,
)


def _follow(delta: Array, grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    del grad
    is_due = jnp.mod(step.astype(hyper["sync_period"].dtype), hyper["sync_period"]) == 0
    slow = slots["slow"] + hyper["slow_step_size"] * (param + delta - slots["slow"])
    return jnp.where(is_due, slow - param, delta), {"slow": jnp.where(is_due, slow, slots["slow"])}


def _same(param: Array) -> Array:
    return param


def lookahead(
    fast_optimizer: GradientTransformation,
    sync_period: ScalarOrSchedule = 6,
    slow_step_size: ScalarOrSchedule = 0.5,
    reset_state: bool = False,
) -> Optimizer:
    """Puts slow weights around any optimizer.

    Plain params are what it is for: the slow weights stand in the state, and the params are the fast ones. Code that
    was written for optax may hand it `optax.LookaheadParams` instead, and gets optax's own `lookahead`.

    Args:
        fast_optimizer: Any optimizer.
        sync_period: How many steps the fast weights run ahead, at least 1.
        slow_step_size: How far the slow weights follow, above 0.
        reset_state: Whether the inner optimizer's state is reset when the fast weights go back to the slow ones.

    Returns:
        An optimizer with the hyperparameters `sync_period`, `slow_step_size` and the slot `slow`, one number a
        parameter, whose state is `WrapperState(own, inner)`.

    Raises:
        TypeError, ValueError: `fast_optimizer` is not an optimizer, a hyperparameter is not a finite number above 0, or
            `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.lookahead(jgd.sgd(1.0), sync_period=2), jnp.array(0.0)
        >>> state = optimizer.init(params)
        >>> for _ in range(2):
        ...     updates, state = optimizer.update(jnp.array(-1.0), state, params)
        ...     params = jgd.apply_updates(params, updates)
        >>> print(params)
        1.0
    """
    hyperparams = {"sync_period": sync_period, "slow_step_size": slow_step_size}
    wrapper = Wrapper(after=_follow, slots={"slow": _same}, needs_params=True, elementwise=True)
    ranges = {"sync_period": AT_LEAST_ONE, "slow_step_size": POSITIVE}
    plain = wrap(fast_optimizer, wrapper, hyperparams, name="lookahead", ranges=ranges)

    def optax_lookahead() -> Any:  # which takes no schedules
        return optax.lookahead(fast_optimizer, sync_period, slow_step_size, reset_state)  # pyright: ignore[reportArgumentType]

    def init(params: PyTree) -> PyTree:
        return optax_lookahead().init(params) if isinstance(params, optax.LookaheadParams) else plain.init(params)

    def update(grads: PyTree, state: PyTree, params: PyTree = None, **extra: Any) -> tuple[PyTree, PyTree]:
        if isinstance(params, optax.LookaheadParams):
            return optax_lookahead().update(grads, state, params)
        new_state: Any
        updates, new_state = plain.update(grads, state, params, **extra)
        if not reset_state:
            return updates, new_state
        own = new_state.own
        is_due = jnp.mod(own.count.astype(jnp.float32), own.hyperparams["sync_period"].astype(jnp.float32)) == 0
        inner = tree_where(is_due, fast_optimizer.init(params), new_state.inner)
        return updates, WrapperState(own, inner)

    return make_optimizer(init, update, repr(plain))
