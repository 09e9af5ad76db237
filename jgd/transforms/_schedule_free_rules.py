"""Schedule-free SGD and AdamW, and optax's name for the params to evaluate."""

from typing import Any, Literal

import jax.numpy as jnp
import optax

from jgd.core import DTypeLike, Mask, Optimizer, PyTree, ScalarOrSchedule, eval_params, is_traced
from jgd.rules import lift_decayed, rmsprop_rule, sgd
from jgd.transforms._chain import chain
from jgd.transforms._decay import add_decayed_weights
from jgd.transforms._schedule_free import schedule_free

Like = Literal["optax", "author"]


def schedule_free_sgd(
    learning_rate: ScalarOrSchedule = 1.0,
    warmup_steps: int | None = None,
    b1: ScalarOrSchedule = 0.9,
    weight_decay: ScalarOrSchedule | None = None,
    weight_lr_power: ScalarOrSchedule = 2.0,
    state_dtype: DTypeLike | None = None,
    *,
    r: ScalarOrSchedule = 0.0,
    like: Like = "optax",
) -> Optimizer:
    """SGD without a schedule; `jgd.eval_params` gives the params to evaluate.

    Arguments that are not described here are those of `jgd.schedule_free`.

    Args:
        learning_rate: Length of a step per unit of gradient, at least 0; larger than SGD's usual one.
        warmup_steps: Steps of a linear warm-up from zero; None for no warm-up.
        weight_decay: How much of each parameter is added to its gradient, at least 0; None for no decay.
        like: At which step the weights take the learning rate, see `jgd.schedule_free`; the authors' warm-up reaches
            the full rate one step earlier.

    Returns:
        An optimizer whose state is `ScheduleFreeState(own, inner)`.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.schedule_free_sgd(0.5), jnp.array([4.0])
        >>> state = optimizer.init(params)
        >>> for _ in range(100):
        ...     updates, state = optimizer.update(params, state, params)
        ...     params = jgd.apply_updates(params, updates)
        >>> print(bool(jnp.abs(jgd.eval_params(state, params)[0]) < 0.05))
        True
    """
    rate = _warmed_up(learning_rate, warmup_steps, like)
    base = sgd(rate) if weight_decay is None else chain(add_decayed_weights(weight_decay), sgd(rate))
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype, r=r, like=like)


def schedule_free_adamw(
    learning_rate: ScalarOrSchedule = 0.0025,
    warmup_steps: int | None = None,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_lr_power: ScalarOrSchedule = 2.0,
    state_dtype: DTypeLike | None = None,
    *,
    mask: Mask = None,
    r: ScalarOrSchedule = 0.0,
    like: Like = "optax",
) -> Optimizer:
    """AdamW without a schedule; `jgd.eval_params` gives the params to evaluate.

    Arguments that are not described here are those of `jgd.schedule_free_sgd` and `jgd.adamw`.

    Args:
        learning_rate: About the size of a step in each parameter, at least 0.
        b1: How much nearer to the average than to `z` gradients are taken, in (0, 1); it takes the place of Adam's
            momentum.
        b2: Decay rate of the second moment, in [0, 1).
        eps: Added to the root of the second moment, at least 0.
        weight_decay: The share of each parameter, times the learning rate, that a step takes away; at least 0.

    Returns:
        An optimizer whose state is `ScheduleFreeState(own, inner)`.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, or the mask does not fit.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.schedule_free_adamw(0.1), jnp.array([4.0])
        >>> state = optimizer.init(params)
        >>> for _ in range(200):
        ...     updates, state = optimizer.update(params, state, params)
        ...     params = jgd.apply_updates(params, updates)
        >>> print(bool(jnp.abs(jgd.eval_params(state, params)[0]) < 0.5))
        True
    """
    rate = _warmed_up(learning_rate, warmup_steps, like)
    rule = rmsprop_rule(False, False, False, False, True, False, 0.0)
    hyperparams = {"learning_rate": rate, "decay": b2, "eps": eps}
    base = lift_decayed(rule, hyperparams, weight_decay, mask, name="schedule_free_adamw")
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype, r=r, like=like)


def schedule_free_eval_params(state: PyTree, params: PyTree) -> PyTree:
    """Optax's name for `jgd.eval_params`.

    Args:
        state: The state of a schedule-free optimizer, alone or in a chain.
        params: The params in training.

    Returns:
        The params to evaluate.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.ones(2)
        >>> print(jgd.schedule_free_eval_params(jgd.schedule_free_sgd().init(params), params))
        [1. 1.]
    """
    return eval_params(state, params)


def _warmed_up(learning_rate: ScalarOrSchedule, warmup_steps: int | None, like: Like) -> ScalarOrSchedule:
    if warmup_steps is None or (not is_traced(warmup_steps) and warmup_steps == 0):
        return learning_rate
    if like == "optax" and not callable(learning_rate):
        return optax.schedules.warmup_constant_schedule(0, learning_rate, warmup_steps)
    first = 1 if like == "author" else 0

    def schedule(count: Any) -> Any:
        share = jnp.minimum((jnp.asarray(count, jnp.result_type(float)) + first) / warmup_steps, 1)
        return share * (learning_rate(count) if callable(learning_rate) else learning_rate)

    return schedule
