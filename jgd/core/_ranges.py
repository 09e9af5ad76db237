"""Where hyperparameters may lie: one source for what factories, schedules and `set_hyperparams` take."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jgd.core._rounding import SIXTEEN_BITS
from jgd.core._types import Array, is_traced

SCALE_SUFFIX = "_scale"


class Range(NamedTuple):
    """Where a hyperparameter may lie: between two bounds, each of which may be allowed or not."""

    low: float = 0.0
    low_allowed: bool = True
    high: float = math.inf
    high_allowed: bool = False

    def text(self) -> str:
        """In words."""
        above = f"at least {self.low:g}" if self.low_allowed else f"above {self.low:g}"
        below = f"at most {self.high:g}" if self.high_allowed else f"below {self.high:g}"
        bounds = [text for text, end in ((above, self.low), (below, self.high)) if math.isfinite(end)]
        return " and ".join(bounds)

    def holds(self, value: np.ndarray) -> bool:
        """Whether all entries lie in it."""
        above = value >= self.low if self.low_allowed else value > self.low
        below = value <= self.high if self.high_allowed else value < self.high
        return bool(np.all(above & below))


NOT_NEGATIVE = Range()
POSITIVE = Range(low_allowed=False)
AT_LEAST_ONE = Range(low=1.0)
DECAY_RATE = Range(high=1.0)
UP_TO_ONE = Range(high=1.0, high_allowed=True)
_RANGES: dict[str, Range] = {
    **dict.fromkeys(("learning_rate", "max_learning_rate", "weight_decay", "eps", "eps_root"), NOT_NEGATIVE),
    **dict.fromkeys(("trust_coefficient", "min_norm", "estim_lr_coef", "delta", "wd_ratio"), NOT_NEGATIVE),
    **dict.fromkeys(("patience", "cooldown", "min_scale"), NOT_NEGATIVE),
    **dict.fromkeys(("consistent_rms", "max_norm", "threshold", "clip_threshold", "max_delta", "clipping"), POSITIVE),
    **dict.fromkeys(
        ("clipping_threshold", "s_init", "estim_lr0", "init_estim_sq_dist", "precond_init_scale"), POSITIVE
    ),
    **dict.fromkeys(("initial_accumulator_value", "initial_scale"), NOT_NEGATIVE),
    **dict.fromkeys(("update_interval", "update_proj_gap", "accumulation_size"), AT_LEAST_ONE),
    **dict.fromkeys(("momentum", "beta", "b1", "b2", "b3", "rho", "decay", "shampoo_beta"), DECAY_RATE),
}
_HINTS = {
    "learning_rate": " To climb instead of descend, negate the loss.",
    "weight_decay": " A positive value shrinks the params.",
}
SHORT = (
    " It came in 16 bits, which round 0.999 to 1. Give it as a float32; to optax.inject_hyperparams, which casts"
    " numbers to the params' dtype, give hyperparam_dtype=jnp.float32."
)


class HyperparamName(str):
    """The name of a hyperparameter, which knows where its value may lie; equal to the same text without that.

    It is the key of the value in the state: what a factory takes and what `set_hyperparams` takes is then decided in
    one place.
    """

    bounds: Range | None = None


def hyperparam_name(name: str, bounds: Range | None) -> HyperparamName:
    """The name with that range; None for any value."""
    key = HyperparamName(name)
    key.bounds = bounds
    return key


def _usual_range(name: str) -> Range | None:
    return _RANGES.get(name, _RANGES.get(name.removeprefix("adam_")))


def range_of(name: str) -> Range | None:
    """The range that a name brings along, or the usual one of that name."""
    return name.bounds if isinstance(name, HyperparamName) else _usual_range(name)


def scale_of(name: str) -> HyperparamName:
    """The name of the factor on the schedule of that name, which must not turn a value that is never negative."""
    bounds = range_of(name)
    return hyperparam_name(name + SCALE_SUFFIX, NOT_NEGATIVE if bounds is not None and bounds.low >= 0 else None)


def is_decay_rate(name: str) -> bool:
    """Whether a hyperparameter of this name is the decay rate of an average, between 0 and 1."""
    return _usual_range(name) is DECAY_RATE


def check_hyperparam(
    owner: str,
    name: str,
    value: Any,
    *,
    shape: tuple[int, ...] = (),
    shown: str | None = None,
    at: Any = None,
    changes: bool = True,
) -> None:
    """Refuses a value that cannot be right; a traced value is checked for its shape and dtype alone.

    The range is that of the name. `shown` is how messages call it, where that is not the name alone; `at` which value
    of a schedule it is. `changes` says whether it is one that may change: a schedule, a number to be set.

    Raises:
        TypeError: It is not a real number.
        ValueError: It has another shape than `shape`, is not finite, or lies outside the range of its name.
    """
    where = f"{owner}: {shown or name}"
    once = "a number or a scalar array, which is read once, when the state is made"
    kinds = "a number, a scalar array or a schedule" if changes else once
    if isinstance(value, str | bytes) or value is None:
        raise TypeError(f"{where} must be {kinds}; got {value!r}.")
    try:
        if isinstance(value, type | dict) or (isinstance(value, int) and abs(value) >= 2**63):
            raise TypeError  # NumPy would take them for a dtype, or for objects
        dtype, actual_shape = jnp.result_type(value), jnp.shape(value)
    except (TypeError, ValueError):
        raise TypeError(f"{where} must be {kinds}; got {value!r} of type {type(value).__name__}.") from None
    if not (jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)):
        raise TypeError(f"{where} must be a real number; got dtype {dtype}.")
    if actual_shape != shape:
        expected = "a scalar" if shape == () else f"an array of shape {shape}"
        raise ValueError(
            f"{where} must be {expected}; got shape {actual_shape}. To sweep several values, vmap over the state."
        )
    if not is_traced(value):
        hint = SHORT if dtype in SIXTEEN_BITS else _HINTS.get(name, "")
        place = "" if at is None else f" at {at}"
        _check_range(where, np.asarray(value).astype(np.float64), range_of(name), place, hint)


def first_outside(name: str, values: Array) -> int | None:
    """The first index of a value that is not finite or outside the range of that name; None where there is none."""
    array, bounds = np.asarray(values).astype(np.float64), range_of(name) or Range(low=-math.inf)
    outside = [i for i, value in enumerate(array) if not (np.isfinite(value) and bounds.holds(value))]
    return outside[0] if outside else None


def _check_range(where: str, value: np.ndarray, bounds: Range | None, place: str, hint: str) -> None:
    shown = value.item() if value.ndim == 0 else value.tolist()
    if not np.all(np.isfinite(value)):
        raise ValueError(f"{where} must be finite; got {shown}{place}.")
    if bounds is None:
        return
    if not bounds.holds(value):
        raise ValueError(f"{where} must be {bounds.text()}; got {shown}{place}.{hint}")
