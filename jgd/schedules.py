"""Schedules: optax's, and those that it lacks. Each is a function of the number of updates made.

Any hyperparameter takes one: `jgd.adamw(schedule)`, `jgd.sgd(0.1, momentum=schedule)`.

References:
    - Hu et al., "MiniCPM", https://arxiv.org/abs/2404.06395, 2024 (warmup-stable-decay).
    - Haegele et al., "Scaling laws and compute-optimal training beyond fixed training durations",
      https://arxiv.org/abs/2405.18392, 2024 (the 1-sqrt cooldown).
    - Loshchilov and Hutter, "SGDR", https://arxiv.org/abs/1608.03983, 2016 (warm restarts).
    - Vaswani et al., "Attention is all you need", https://arxiv.org/abs/1706.03762, 2017 (inverse square root).
    - Pagliardini et al., https://arxiv.org/abs/2409.03137, 2024 (AdEMAMix).
"""

import decimal
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from optax.schedules import constant_schedule as constant_schedule
from optax.schedules import cosine_decay_schedule as cosine_decay_schedule
from optax.schedules import cosine_onecycle_schedule as cosine_onecycle_schedule
from optax.schedules import exponential_decay as exponential_decay
from optax.schedules import join_schedules as join_schedules
from optax.schedules import linear_onecycle_schedule as linear_onecycle_schedule
from optax.schedules import linear_schedule as linear_schedule
from optax.schedules import piecewise_constant_schedule as piecewise_constant_schedule
from optax.schedules import piecewise_interpolate_schedule as piecewise_interpolate_schedule
from optax.schedules import polynomial_schedule as polynomial_schedule
from optax.schedules import sgdr_schedule as sgdr_schedule
from optax.schedules import warmup_constant_schedule as warmup_constant_schedule
from optax.schedules import warmup_cosine_decay_schedule as warmup_cosine_decay_schedule
from optax.schedules import warmup_exponential_decay_schedule as warmup_exponential_decay_schedule

from jgd._restarts import as_float, rounds
from jgd.core import Schedule, check_hyperparam, check_integers, check_kind, check_numbers, checked, first_outside
from jgd.core import from_optax as _from_optax

_DECAYS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "linear": lambda x: 1 - x,
    "1-sqrt": lambda x: 1 - jnp.sqrt(x),
    "cosine": lambda x: 0.5 * (1 + jnp.cos(jnp.pi * x)),
}


@checked
def check_schedule(schedule: Schedule, steps: int, *, name: str = "learning_rate") -> jax.Array:
    """All values of a schedule, checked before a run: in a compiled step nothing can be raised any more.

    An optimizer looks at the first two values when it makes its state, and at each one where `update` is not compiled.

    Args:
        schedule: A function of the number of updates made.
        steps: Updates of the run.
        name: The hyperparameter that the values are for; it says where they may lie.

    Returns:
        The values, shape `[steps]`, a float dtype.

    Raises:
        TypeError, ValueError: A value is no real number, not finite, or outside the range; the first such is named.

    Examples:
        >>> from jgd.schedules import check_schedule
        >>> print(check_schedule(lambda count: 0.5 - 0.25 * count, 3))
        [0.5  0.25 0.  ]
    """
    check_integers("check_schedule", 1, steps=steps)
    check_hyperparam("check_schedule", name, schedule(jnp.zeros((), jnp.int32)), at=0)
    values = jax.jit(
        lambda: jax.lax.map(lambda t: as_float(schedule(t)), jnp.arange(steps), batch_size=min(steps, 1024))
    )()
    first = first_outside(name, values)
    if first is not None:
        check_hyperparam("check_schedule", name, values[first], at=first)
    return values


def warmup_stable_decay_schedule(
    peak_value: float,
    warmup_steps: int,
    stable_steps: int,
    decay_steps: int,
    *,
    init_value: float = 0.0,
    end_value: float = 0.0,
    decay: Literal["linear", "1-sqrt", "cosine"] = "1-sqrt",
) -> Schedule:
    """A linear warm-up, a plateau, and a cooldown at the end.

    Args:
        peak_value: The value on the plateau.
        warmup_steps: Steps of the warm-up.
        stable_steps: Steps of the plateau.
        decay_steps: Steps of the cooldown; the value stays at `end_value` afterwards.
        init_value: The value at the start.
        end_value: The value at the end.
        decay: The shape of the cooldown: with `x` the share of it that is over, `1 - x`, `1 - sqrt(x)`, or half a
            cosine.

    Returns:
        A schedule.

    Raises:
        TypeError, ValueError: A value is not a finite number, a number of steps is not an integer or negative, or the
            shape is not known.

    Examples:
        >>> from jgd.schedules import warmup_stable_decay_schedule
        >>> schedule = warmup_stable_decay_schedule(1.0, 2, 4, 4)
        >>> print([round(float(schedule(t)), 2) for t in range(11)])
        [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.29, 0.13, 0.0]
    """
    name = "warmup_stable_decay_schedule"
    check_integers(name, 0, warmup_steps=warmup_steps, stable_steps=stable_steps, decay_steps=decay_steps)
    check_numbers(name, peak_value=peak_value, init_value=init_value, end_value=end_value)
    if not isinstance(decay, str) or decay not in _DECAYS:
        raise ValueError(f"warmup_stable_decay_schedule: decay must be one of {', '.join(_DECAYS)}; got {decay!r}.")
    start = warmup_steps + stable_steps

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        t = as_float(count)
        warm = init_value + (peak_value - init_value) * jnp.clip(t / max(warmup_steps, 1), 0, 1)
        share = jnp.clip((t - start) / max(decay_steps, 1), 0, 1)
        cool = end_value + (peak_value - end_value) * _DECAYS[decay](share)
        return jnp.where(t < warmup_steps, warm, cool)

    return schedule


def trapezoid_schedule(peak_value: float, warmup_steps: int, stable_steps: int, decay_steps: int) -> Schedule:
    """Up, along, and down to zero, each in a straight line.

    Args:
        peak_value: The value on the plateau.
        warmup_steps: Steps of the way up, from zero.
        stable_steps: Steps of the plateau.
        decay_steps: Steps of the way down, to zero.

    Returns:
        A schedule.

    Raises:
        TypeError, ValueError: The value is not a finite number, or a number of steps is not an integer or negative.

    Examples:
        >>> from jgd.schedules import trapezoid_schedule
        >>> schedule = trapezoid_schedule(1.0, 2, 1, 2)
        >>> print([float(schedule(t)) for t in range(6)])
        [0.0, 0.5, 1.0, 1.0, 0.5, 0.0]
    """
    return warmup_stable_decay_schedule(peak_value, warmup_steps, stable_steps, decay_steps, decay="linear")


def cosine_restarts_schedule(
    peak_value: float, period: int, *, factor: float = 1.0, shrink: float = 1.0, end_value: float = 0.0
) -> Schedule:
    """Half cosines that start anew: after `period` steps, and then after `factor` times as many each time.

    Args:
        peak_value: The value at the first start.
        period: Steps of the first half cosine, at least 1.
        factor: How much longer each is than the one before, at least 1.
        shrink: What the peak is multiplied by at each restart.
        end_value: The value at each end.

    Returns:
        A schedule. It restarts at the first step at or after each start, as computed in decimal from `factor` as it is
        printed, whatever the device's floats. After 16384 restarts the length stays.

    Raises:
        TypeError, ValueError: An argument is not a finite number, `period` not an integer, or one is below 1.

    Examples:
        >>> from jgd.schedules import cosine_restarts_schedule
        >>> schedule = cosine_restarts_schedule(1.0, 2, factor=2.0)
        >>> print([round(float(schedule(t)), 2) for t in range(7)])
        [1.0, 0.5, 1.0, 0.85, 0.5, 0.15, 1.0]
    """
    name = "cosine_restarts_schedule"
    check_integers(name, 1, period=period)
    check_numbers(name, 1, factor=factor)
    check_numbers(name, peak_value=peak_value, shrink=shrink, end_value=end_value)
    find = rounds(period, decimal.Decimal(str(factor)))

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        number, share = find(jnp.asarray(count))
        return end_value + (peak_value * shrink**number - end_value) * _DECAYS["cosine"](jnp.clip(share, 0, 1))

    return schedule


def inverse_sqrt_schedule(peak_value: float, warmup_steps: int) -> Schedule:
    """A linear warm-up, then a fall with the inverse root of the step.

    Args:
        peak_value: The value at the end of the warm-up.
        warmup_steps: Steps of the warm-up, at least 1; they set the time scale of the fall too.

    Returns:
        A schedule.

    Raises:
        TypeError, ValueError: `warmup_steps` is not an integer or below 1, or `peak_value` is not a finite number.

    Examples:
        >>> from jgd.schedules import inverse_sqrt_schedule
        >>> schedule = inverse_sqrt_schedule(1.0, 4)
        >>> print([float(schedule(t)) for t in (0, 2, 4, 16, 64)])
        [0.0, 0.5, 1.0, 0.5, 0.25]
    """
    check_integers("inverse_sqrt_schedule", 1, warmup_steps=warmup_steps)
    check_numbers("inverse_sqrt_schedule", peak_value=peak_value)

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        t = as_float(count)
        return peak_value * jnp.minimum(t / warmup_steps, jnp.sqrt(warmup_steps / jnp.maximum(t, 1)))

    return schedule


def yolo_schedule(
    lr0: float,
    lrf: float = 0.01,
    *,
    epochs: int,
    steps_per_epoch: int,
    warmup_epochs: float = 3.0,
    warmup_start: float = 0.0,
    cosine: bool = False,
) -> Schedule:
    """The learning rate of the YOLO family: constant within an epoch, falling from epoch to epoch, with a warm-up.

    In epoch `e` of `E` it is `lr0 * (max(1 - e / E, 0) * (1 - lrf) + lrf)`, so the last epoch does not quite reach
    `lr0 * lrf`. The warm-up, by the step, runs from `warmup_start` to that value. Give biases a group of their own with
    `warmup_start=0.1`, and momentum `linear_schedule(0.8, 0.937, warmup)`.

    Args:
        lr0: The learning rate at the start.
        lrf: Its last value, relative to the first.
        epochs: Epochs in all, at least 1.
        steps_per_epoch: Updates in one, at least 1.
        warmup_epochs: Epochs of the warm-up, at most all but one.
        warmup_start: Where the warm-up begins.
        cosine: Half a cosine instead of the straight line.

    Returns:
        A schedule.

    Raises:
        TypeError, ValueError: `epochs` or `steps_per_epoch` is not an integer of at least 1, or another not finite.

    Examples:
        >>> from jgd.schedules import yolo_schedule
        >>> schedule = yolo_schedule(1.0, 0.0, epochs=4, steps_per_epoch=2, warmup_epochs=1, warmup_start=0.5)
        >>> print([float(schedule(t)) for t in range(8)])
        [0.5, 0.75, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]
    """
    check_kind("yolo_schedule", "cosine", cosine, bool)
    check_integers("yolo_schedule", 1, epochs=epochs, steps_per_epoch=steps_per_epoch)
    check_numbers("yolo_schedule", lr0=lr0, lrf=lrf, warmup_epochs=warmup_epochs, warmup_start=warmup_start)
    warmup = round(min(warmup_epochs, max(epochs - 1, 0)) * steps_per_epoch)

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        t = as_float(count)
        share = as_float(jnp.asarray(count) // steps_per_epoch) / epochs
        left = _DECAYS["cosine"](jnp.clip(share, 0, 1)) if cosine else jnp.maximum(1 - share, 0)
        value = lr0 * (left * (1 - lrf) + lrf)
        warm = warmup_start + (value - warmup_start) * jnp.clip(t / max(warmup, 1), 0, 1)
        return jnp.where(t < warmup, warm, value)

    return schedule


def ademamix_alpha(alpha: float, warmup_steps: int) -> Schedule:
    """The weight of AdEMAMix's slow average: linear from zero.

    Args:
        alpha: Its value after the warm-up.
        warmup_steps: Steps of the warm-up, at least 1.

    Returns:
        A schedule for `jgd.ademamix(alpha=...)`.

    Examples:
        >>> from jgd.schedules import ademamix_alpha
        >>> print([float(ademamix_alpha(5.0, 4)(t)) for t in (0, 1, 3, 9)])
        [1.25, 2.5, 5.0, 5.0]
    """
    check_integers("ademamix_alpha", 1, warmup_steps=warmup_steps)
    check_numbers("ademamix_alpha", alpha=alpha)
    return lambda count: alpha * jnp.clip((as_float(count) + 1) / warmup_steps, 0, 1)


def ademamix_b3(b1: float, b3: float, warmup_steps: int) -> Schedule:
    """The decay rate of AdEMAMix's slow average: from `b1` to `b3`, its half-life growing linearly.

    Args:
        b1: Where it starts.
        b3: Its value after the warm-up.
        warmup_steps: Steps of the warm-up, at least 1.

    Returns:
        A schedule for `jgd.ademamix(b3=...)`.

    Examples:
        >>> from jgd.schedules import ademamix_b3
        >>> print([round(float(ademamix_b3(0.9, 0.9999, 100)(t)), 4) for t in (0, 49, 99)])
        [0.9909, 0.9998, 0.9999]
    """
    check_integers("ademamix_b3", 1, warmup_steps=warmup_steps)
    check_numbers("ademamix_b3", 0, b1=b1, b3=b3)

    def half_life(beta: float) -> jax.Array:
        return jnp.log(0.5) / jnp.log(beta + 1e-8) - 1  # the authors' guard against a logarithm of zero

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        step = as_float(count) + 1
        share = step / warmup_steps
        mixed = (1 - share) * half_life(b1) + share * half_life(b3)
        return jnp.where(step < warmup_steps, 0.5 ** (1 / (mixed + 1)), b3)

    return schedule


def __getattr__(name: str) -> Any:
    """What else `optax.schedules` has, such as `inject_hyperparams`."""
    return _from_optax(__name__, name, "optax.schedules")
