"""MoMo and MoMo-Adam: the factories. The formulas are those of `jgd.rules._momo_rule`."""

from typing import Any

from jgd.core import Optimizer, ScalarOrSchedule, check_hyperparam, lift
from jgd.rules._momo_rule import momo_rule


def momo(
    learning_rate: ScalarOrSchedule = 1.0,
    beta: ScalarOrSchedule = 0.9,
    lower_bound: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    adapt_lower_bound: bool = False,
    *,
    state_dtype: Any = None,
    layout: Any = "auto",
) -> Optimizer:
    """Momentum with Polyak's step size. `update` must be given the loss: `update(grads, state, params, value=loss)`.

    Args:
        learning_rate: The largest step size, at least 0.
        beta: Decay rate of the averages, in [0, 1); it stands in the state as `b1`.
        lower_bound: A number that the loss does not fall below.
        weight_decay: The share of each parameter, times the learning rate, that a step takes away; at least 0.
        adapt_lower_bound: Whether the bound follows the losses.
        state_dtype: The dtype of all slots; None for float32, wider where the param is wider.
        layout: How leaves are laid out while the update runs, see `jgd.core.lift`.

    Returns:
        An optimizer with the hyperparameters above, the slot `exp_avg`, one number a parameter, and `barf`, `gamma`,
        `lb` for the tree.

    Raises:
        TypeError, ValueError: A hyperparameter is no finite number or outside its range, a leaf is complex, or
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
    state_dtype: Any = None,
    layout: Any = "auto",
) -> Optimizer:
    """Adam with Polyak's step size. `update` must be given the loss: `update(grads, state, params, value=loss)`.

    Args:
        learning_rate: The largest step size, at least 0.
        b1: Decay rate of the averages, in [0, 1).
        b2: Decay rate of the second moment, in [0, 1).
        eps: Added to the root of the second moment, at least 0.
        lower_bound: A number that the loss does not fall below.
        weight_decay: The share of each parameter, times the learning rate, that a step takes away; at least 0.
        adapt_lower_bound: Whether the bound follows the losses.
        state_dtype: The dtype of all slots; None for float32, wider where the param is wider.
        layout: How leaves are laid out while the update runs, see `jgd.core.lift`.

    Returns:
        An optimizer with the hyperparameters above, the slots `exp_avg`, `exp_avg_sq`, two numbers a parameter, and
        `barf`, `gamma`, `lb` for the tree.

    Raises:
        TypeError, ValueError: A hyperparameter is no finite number or outside its range, a leaf is complex, or
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
    """What the bound in use starts at."""
    first = lower_bound(0) if callable(lower_bound) else lower_bound
    check_hyperparam(owner, "lower_bound", first)
    return first
