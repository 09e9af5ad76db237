"""A factor on the updates that falls when the loss stops falling."""

from typing import Any

import jax.numpy as jnp

from jgd.core import (
    NOT_NEGATIVE,
    UP_TO_ONE,
    Hyperparams,
    Optimizer,
    OptState,
    PyTree,
    Range,
    ScalarOrSchedule,
    begin_update,
    first_state,
    make_optimizer,
    needed_numbers,
    scale_tree,
)


def reduce_on_plateau(
    factor: ScalarOrSchedule = 0.1,
    patience: ScalarOrSchedule = 10,
    rtol: ScalarOrSchedule = 1e-4,
    atol: ScalarOrSchedule = 0.0,
    cooldown: ScalarOrSchedule = 0,
    accumulation_size: ScalarOrSchedule = 1,
    min_scale: ScalarOrSchedule = 0.0,
) -> Optimizer:
    """Multiplies the updates by a scale that is reduced while the loss does not improve.

    `update` must be given the loss: `update(updates, state, params, value=loss)`. A mean is better than the best so far
    if it is below `best - rtol * abs(best) - atol`. optax 0.2.8 leaves the `abs` out, with the same result for values
    above zero; for those below, any value that is nearly the best counts as better there, and nothing is ever reduced.

    Args:
        factor: What the scale is multiplied by, in (0, 1).
        patience: How many means of the loss without improvement it takes.
        rtol: The improvement that counts, relative to the size of the best value, in [0, 1].
        atol: The absolute improvement that counts, at least 0.
        cooldown: How many means are not looked at after a reduction.
        accumulation_size: How many losses make one mean.
        min_scale: The smallest scale.

    Returns:
        A transform whose hyperparameters are the arguments that may be schedules, with the slots `scale`, `best_value`,
        `plateau_count`, `cooldown_count`, `avg_value` and `seen`, numbers for the tree.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, both tolerances are zero, or
            `update` is called without `value`.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.chain(jgd.sgd(1.0), jgd.reduce_on_plateau(0.5, patience=2))
        >>> state = optimizer.init(jnp.zeros(1))
        >>> for loss in (1.0, 1.0, 1.0):
        ...     updates, state = optimizer.update(jnp.ones(1), state, value=loss)
        >>> print(updates)
        [-0.5]
    """
    hyperparams = {"factor": factor, "patience": patience, "rtol": rtol, "atol": atol, "cooldown": cooldown}
    hyperparams |= {"accumulation_size": accumulation_size, "min_scale": min_scale}
    ranges = {"factor": Range(low_allowed=False, high=1.0), "rtol": UP_TO_ONE, "atol": NOT_NEGATIVE}
    numbers = Hyperparams("reduce_on_plateau", hyperparams, ranges=ranges)
    if rtol == 0.0 and atol == 0.0:
        raise ValueError("reduce_on_plateau: at least one of rtol or atol must be positive; got rtol = 0 and atol = 0.")

    def init(params: PyTree) -> OptState:
        del params
        dtype, count = jnp.result_type(float), jnp.zeros((), jnp.int32)
        slots = {"scale": jnp.ones((), dtype), "best_value": jnp.full((), jnp.inf, dtype)}
        slots |= {"avg_value": jnp.zeros((), dtype), "seen": count}
        slots |= {"plateau_count": jnp.zeros_like(count), "cooldown_count": jnp.zeros_like(count)}
        return first_state(numbers, slots)

    def update(updates: PyTree, state: OptState, params: PyTree = None, **extra: Any) -> tuple[PyTree, OptState]:
        del params
        hyper, count = begin_update(numbers, state, OptState)
        old = state.slots
        value = needed_numbers("reduce_on_plateau", ("value",), extra)["value"].astype(old["avg_value"].dtype)
        seen = old["seen"] + 1
        mean = (old["seen"] * old["avg_value"] + value) / seen
        is_due = seen == hyper["accumulation_size"].astype(jnp.int32)
        best = old["best_value"]
        is_better = mean < (1 - hyper["rtol"] * jnp.sign(best)) * best - hyper["atol"]  # less by a share of its size
        plateau_count = jnp.where(is_better, 0, old["plateau_count"] + 1)
        is_cooling = old["cooldown_count"] > 0
        reduces = ~is_cooling & (plateau_count == hyper["patience"].astype(jnp.int32))
        scale = jnp.maximum(old["scale"] * jnp.where(reduces, hyper["factor"], 1), hyper["min_scale"])
        cooldown_count = jnp.where(
            reduces, hyper["cooldown"].astype(jnp.int32), jnp.maximum(old["cooldown_count"] - 1, 0)
        )
        due_slots = {
            "scale": jnp.where(is_cooling, old["scale"], scale),
            "best_value": jnp.where(is_better, mean, old["best_value"]),
            "plateau_count": jnp.where(is_cooling | reduces, 0, plateau_count),
            "cooldown_count": cooldown_count,
            "avg_value": jnp.zeros_like(mean),
            "seen": jnp.zeros_like(seen),
        }
        waiting_slots = {**old, "avg_value": mean, "seen": seen}
        slots = {name: jnp.where(is_due, due_slots[name], waiting_slots[name]).astype(old[name].dtype) for name in old}
        return scale_tree(updates, slots["scale"]), OptState(count, hyper, slots)

    return make_optimizer(init, update, f"jgd.reduce_on_plateau({numbers.text()})")
