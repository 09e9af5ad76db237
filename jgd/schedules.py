"""Schedules: optax's, handed on, and those that it lacks. Each is a function of the number of updates made.

Any hyperparameter takes one: `jgd.adamw(schedule)`, `jgd.sgd(0.1, momentum=schedule)`.

References:
    - Hu et al., "MiniCPM", https://arxiv.org/abs/2404.06395, 2024 (warmup-stable-decay).
    - Haegele et al., "Scaling laws and compute-optimal training beyond fixed training durations",
      https://arxiv.org/abs/2405.18392, 2024 (the 1-sqrt cooldown).
    - Loshchilov and Hutter, "SGDR", https://arxiv.org/abs/1608.03983, 2016 (warm restarts).
    - Vaswani et al., "Attention is all you need", https://arxiv.org/abs/1706.03762, 2017 (inverse square root).
    - Pagliardini et al., https://arxiv.org/abs/2409.03137, 2024 (AdEMAMix).
"""

from collections.abc import Callable
from typing import Any, Literal

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

from jgd.core._from_optax import from_optax as _from_optax

Schedule = Callable[[Any], Any]

_DECAYS: dict[str, Schedule] = {
    "linear": lambda x: 1 - x,
    "1-sqrt": lambda x: 1 - jnp.sqrt(x),
    "cosine": lambda x: 0.5 * (1 + jnp.cos(jnp.pi * x)),
}


def _float(count: Any) -> Any:
    return jnp.asarray(count, jnp.result_type(float))


def _check_steps(name: str, **steps: int) -> None:
    for argument, value in steps.items():
        if value < 0:
            raise ValueError(f"{name}: {argument} must be at least 0; got {value}.")


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
        ValueError: A number of steps is negative, or the shape is not known.

    Examples:
        >>> from jgd.schedules import warmup_stable_decay_schedule
        >>> schedule = warmup_stable_decay_schedule(1.0, 2, 4, 4)
        >>> print([round(float(schedule(t)), 2) for t in range(11)])
        [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.29, 0.13, 0.0]
    """
    _check_steps("warmup_stable_decay_schedule", warmup_steps=warmup_steps, stable_steps=stable_steps)
    _check_steps("warmup_stable_decay_schedule", decay_steps=decay_steps)
    if decay not in _DECAYS:
        raise ValueError(f"warmup_stable_decay_schedule: decay must be one of {', '.join(_DECAYS)}; got {decay!r}.")
    start = warmup_steps + stable_steps

    def schedule(count: Any) -> Any:
        t = _float(count)
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
        ValueError: A number of steps is negative.

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
        A schedule.

    Raises:
        ValueError: `period` or `factor` is below 1.

    Examples:
        >>> from jgd.schedules import cosine_restarts_schedule
        >>> schedule = cosine_restarts_schedule(1.0, 2, factor=2.0)
        >>> print([round(float(schedule(t)), 2) for t in range(7)])
        [1.0, 0.5, 1.0, 0.85, 0.5, 0.15, 1.0]
    """
    if period < 1 or factor < 1:
        raise ValueError(f"cosine_restarts_schedule: period and factor must be at least 1; got {period} and {factor}.")

    def schedule(count: Any) -> Any:
        t = _float(count)
        if factor == 1.0:
            round_ = jnp.floor(t / period)
            start, length = round_ * period, jnp.asarray(period, t.dtype)
        else:
            # The r-th round starts at period (factor**r - 1) / (factor - 1); the guard is for rounding at a start.
            round_ = jnp.floor(jnp.log1p(t * (factor - 1) / period) / jnp.log(factor) + 1e-5)
            start, length = period * (factor**round_ - 1) / (factor - 1), period * factor**round_
        share = jnp.clip((t - start) / length, 0, 1)
        return end_value + (peak_value * shrink**round_ - end_value) * _DECAYS["cosine"](share)

    return schedule


def inverse_sqrt_schedule(peak_value: float, warmup_steps: int) -> Schedule:
    """A linear warm-up, then a fall with the inverse root of the step.

    Args:
        peak_value: The value at the end of the warm-up.
        warmup_steps: Steps of the warm-up, at least 1; they set the time scale of the fall too.

    Returns:
        A schedule.

    Raises:
        ValueError: `warmup_steps` is below 1.

    Examples:
        >>> from jgd.schedules import inverse_sqrt_schedule
        >>> schedule = inverse_sqrt_schedule(1.0, 4)
        >>> print([float(schedule(t)) for t in (0, 2, 4, 16, 64)])
        [0.0, 0.5, 1.0, 0.5, 0.25]
    """
    if warmup_steps < 1:
        raise ValueError(f"inverse_sqrt_schedule: warmup_steps must be at least 1; got {warmup_steps}.")

    def schedule(count: Any) -> Any:
        t = _float(count)
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
        ValueError: `epochs` or `steps_per_epoch` is below 1.

    Examples:
        >>> from jgd.schedules import yolo_schedule
        >>> schedule = yolo_schedule(1.0, 0.0, epochs=4, steps_per_epoch=2, warmup_epochs=1, warmup_start=0.5)
        >>> print([float(schedule(t)) for t in range(8)])
        [0.5, 0.75, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]
    """
    if epochs < 1 or steps_per_epoch < 1:
        raise ValueError(f"yolo_schedule: expected at least one epoch and step; got {epochs} and {steps_per_epoch}.")
    warmup = round(min(warmup_epochs, max(epochs - 1, 0)) * steps_per_epoch)

    def schedule(count: Any) -> Any:
        t = _float(count)
        share = jnp.floor(t / steps_per_epoch) / epochs
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
    return lambda count: alpha * jnp.clip((_float(count) + 1) / warmup_steps, 0, 1)


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

    def half_life(beta: float) -> Any:
        return jnp.log(0.5) / jnp.log(beta + 1e-8) - 1  # the authors' guard against a logarithm of zero

    def schedule(count: Any) -> Any:
        step = _float(count) + 1
        share = step / warmup_steps
        mixed = (1 - share) * half_life(b1) + share * half_life(b3)
        return jnp.where(step < warmup_steps, 0.5 ** (1 / (mixed + 1)), b3)

    return schedule


def __getattr__(name: str) -> Any:
    """What else `optax.schedules` has, such as `inject_hyperparams`."""
    return _from_optax(__name__, name, "optax.schedules")
