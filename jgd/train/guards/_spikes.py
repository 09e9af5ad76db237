r"""Detection of spikes in the loss and the gradient norm, against a window of the values before.

With the center $c$ and the spread $s$ of the window, a value is a spike where

$$ x > c + k \max(s, m |c|) $$

Center and spread are mean and standard deviation, or median and 1.4826 times the median absolute deviation, which
spikes within the window do not move. Values called spikes do not enter the window.

References:
    Groeneveld and others, OLMo, https://arxiv.org/abs/2402.00838, 2024 (its optimizer leaves out steps by a rolling
    mean and standard deviation); Chowdhery and others, PaLM, https://arxiv.org/abs/2204.02311, 2022, section 5.1 (a
    restart from before the spike, without the batches around it).
"""

import dataclasses
import math
from typing import Literal, NamedTuple

import jax.numpy as jnp

from jgd.core import Array, check_fields

OnSpike = Literal["skip", "lower_rate", "rollback"]
Statistic = Literal["mean", "median"]
WATCHED = ("loss", "grad_norm")


class SpikeState(NamedTuple):
    """What spike detection keeps on the device."""

    windows: dict[str, Array]  # float32 [window] each, a circular buffer
    taken: Array  # int32 scalar, values that entered since the windows were last emptied
    in_a_row: Array  # int32 scalar, spikes since the last step that was none
    resting: Array  # int32 scalar, steps for which nothing is called a spike
    spikes: Array  # int32 scalar, spikes so far
    rate_factor: Array  # float32 scalar, what the learning rate was multiplied by so far
    settings: dict[str, Array]


class SpikeDecision(NamedTuple):
    """One step's numbers compared with the window."""

    spiked: dict[str, Array]  # which numbers are above their threshold
    thresholds: dict[str, Array]  # NaN while not armed
    is_spike: Array  # whether any is
    level_shift: Array  # whether there were so many in a row that the level has changed
    rate_multiplier: Array  # what the learning rates are multiplied by
    state: SpikeState


@dataclasses.dataclass(frozen=True)
class Spikes:
    """Detection of spikes in the loss and the gradient norm, a part of `jgd.Guard`.

    It is armed once half a window has been filled. A spike leaves params, optimizer state and model state as they are.
    After `max_in_a_row` spikes in a row the level itself has changed: the window is emptied, and nothing
    is called a spike for `cooldown` steps and until half a window of the new level has been filled.

    Args:
        on_spike: What is done about a spike. `"skip"`: the step is left out. `"lower_rate"`: besides, the learning
            rates in the optimizer's state are multiplied by `factor` (the `learning_rate_scale`, where there is a
            schedule). `"rollback"`: the state stays as it is, and the step asks for `jgd.Rollback`; called directly, it
            raises `SpikeError`.
        threshold: `k` above, how many spreads lie between the center and a spike.
        statistic: `"mean"` or `"median"`.
        window: How many past values it compares with, at least 4.
        watch: Which numbers to watch: `"loss"`, `"grad_norm"`.
        max_in_a_row: After how many spikes in a row the window is emptied, at least 1.
        cooldown: For how many steps nothing is called a spike thereafter, at least 0.
        min_spread: `m` above: the spread is taken as at least this fraction of the center, so that an even loss
            does not make noise a spike.
        factor: For `"lower_rate"`, in (0, 1).
        min_factor: For `"lower_rate"`: all factors together never go below this.

    Raises:
        ValueError: An invalid option, or a number outside its range.

    Examples:
        >>> import jgd
        >>> jgd.Spikes(on_spike="lower_rate", statistic="median").factor
        0.5
    """

    on_spike: OnSpike = "skip"
    threshold: float = 6.0
    statistic: Statistic = "mean"
    window: int = 128
    watch: tuple[str, ...] = WATCHED
    max_in_a_row: int = 8
    cooldown: int = 64
    min_spread: float = 0.01
    factor: float = 0.5
    min_factor: float = 0.01

    def __post_init__(self) -> None:
        if isinstance(self.watch, str | list):
            object.__setattr__(self, "watch", (self.watch,) if isinstance(self.watch, str) else tuple(self.watch))
        check_fields(self)
        if not self.watch or not set(self.watch) <= set(WATCHED):
            raise ValueError(f"Spikes: watch must name some of {', '.join(WATCHED)}; got {self.watch!r}.")
        for name, low in (("window", 4), ("max_in_a_row", 1), ("cooldown", 0)):
            value = getattr(self, name)
            if value < low:
                raise ValueError(f"Spikes: {name} must be a whole number of at least {low}; got {value}.")
        if not (self.threshold > 0 and math.isfinite(self.threshold) and 0 <= self.min_spread < math.inf):
            raise ValueError(
                "Spikes: expected a finite threshold > 0 and min_spread >= 0; got"
                f" threshold={self.threshold}, min_spread={self.min_spread}."
            )
        if not (0 < self.factor < 1 and 0 < self.min_factor <= 1):
            raise ValueError(
                f"Spikes: expected 0 < factor < 1 and 0 < min_factor <= 1; got {self.factor} and {self.min_factor}."
            )

    def settings(self) -> dict[str, Array]:
        """The numbers that a step reads, as arrays."""
        floats = {name: getattr(self, name) for name in ("threshold", "min_spread", "factor", "min_factor")}
        counts = {name: getattr(self, name) for name in ("max_in_a_row", "cooldown")}
        return {name: jnp.array(value, jnp.float32) for name, value in floats.items()} | {
            name: jnp.array(value, jnp.int32) for name, value in counts.items()
        }

    def init(self) -> SpikeState:
        """The state before the first step."""

        def zero() -> Array:
            return jnp.array(0, jnp.int32)

        windows = {name: jnp.zeros(self.window, jnp.float32) for name in self.watch}
        return SpikeState(windows, zero(), zero(), zero(), zero(), jnp.array(1, jnp.float32), self.settings())


def detect_spikes(spikes: Spikes, state: SpikeState, values: dict[str, Array], finite: Array) -> SpikeDecision:
    """Compares one step's numbers with the window. A step that is not finite changes nothing."""
    numbers = state.settings
    held = jnp.minimum(state.taken, spikes.window)
    armed = (state.taken >= spikes.window // 2) & (state.resting == 0)
    of_window = _mean_and_deviation if spikes.statistic == "mean" else _median_and_deviation
    spiked, thresholds = {}, {}
    for name, window in state.windows.items():
        center, spread = of_window(window, held)
        spread = jnp.maximum(spread, numbers["min_spread"] * jnp.abs(center))
        thresholds[name] = jnp.where(armed, center + numbers["threshold"] * spread, jnp.nan)
        spiked[name] = finite & (values[name].astype(jnp.float32) > thresholds[name])
    is_spike = jnp.any(jnp.stack(list(spiked.values())))

    latest = {name: values[name].astype(jnp.float32) for name in state.windows}
    enters = finite & ~is_spike & jnp.all(jnp.isfinite(jnp.stack(list(latest.values()))))
    place = state.taken % spikes.window
    windows = {
        name: window.at[place].set(jnp.where(enters, latest[name], window[place]))
        for name, window in state.windows.items()
    }
    in_a_row = jnp.where(is_spike, state.in_a_row + 1, jnp.where(finite, 0, state.in_a_row))
    level_shift = in_a_row >= numbers["max_in_a_row"]
    resting = jnp.where(finite, jnp.maximum(state.resting - 1, 0), state.resting)
    rate_factor = state.rate_factor
    if spikes.on_spike == "lower_rate":
        lowered = jnp.maximum(rate_factor * numbers["factor"], jnp.minimum(numbers["min_factor"], rate_factor))
        rate_factor = jnp.where(is_spike, lowered, rate_factor)
    new = SpikeState(
        windows,
        # Beyond two windows only the place counts; so the count never overflows.
        jnp.where(level_shift, 0, _wrapped(state.taken + enters, spikes.window)),
        jnp.where(level_shift, 0, in_a_row),
        jnp.where(level_shift, numbers["cooldown"], resting),
        state.spikes + is_spike,
        rate_factor,
        numbers,
    )
    return SpikeDecision(spiked, thresholds, is_spike, level_shift, rate_factor / state.rate_factor, new)


def _wrapped(taken: Array, window: int) -> Array:
    return jnp.where(taken >= 2 * window, taken - window, taken)


def _mean_and_deviation(window: Array, held: Array) -> tuple[Array, Array]:
    real = jnp.arange(window.size) < held
    count = jnp.maximum(held, 1)
    mean = jnp.sum(jnp.where(real, window, 0)) / count
    return mean, jnp.sqrt(jnp.sum(jnp.where(real, jnp.square(window - mean), 0)) / count)


def _median_and_deviation(window: Array, held: Array) -> tuple[Array, Array]:
    def median(values: Array) -> Array:
        ordered = jnp.sort(jnp.where(jnp.arange(window.size) < held, values, jnp.inf))
        count = jnp.maximum(held, 1)
        return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2

    center = median(window)
    return center, 1.4826 * median(jnp.abs(window - center))  # 1.4826: what makes it the deviation of a normal
