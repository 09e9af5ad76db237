"""What a step does about NaN, overflow and spikes, decided on the device: skip, scale the loss, stop."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import Array, PyTree, check_fields, in_place_of, path_text
from jgd.train.guards._loss_scale import LossScale, LossScaleState, next_scale, overflowed
from jgd.train.guards._spikes import Spikes, SpikeState, detect_spikes

# What happened in a step, as the bits of `metrics["event"]`.
NONFINITE, OVERFLOW, LOSS_SPIKE, NORM_SPIKE, LEVEL_SHIFT, RATE_LOWERED, LIMIT, STOPPED = (1 << i for i in range(8))

NO_LIMIT = np.iinfo(np.int32).max


class GuardState(NamedTuple):
    """What a guard keeps on the device: plain arrays, its numbers included."""

    skips: Array  # int32 scalar, steps left out since they were not finite; overflows and spikes not included
    consecutive_skips: Array  # int32 scalar, those since the last finite step
    loss_scale: LossScaleState | None
    spikes: SpikeState | None
    settings: dict[str, Array]


class Decision(NamedTuple):
    """What a guard does about one step."""

    moves: Array  # whether params and optimizer state are updated
    running: Array  # whether the run goes on
    rate_multiplier: Array | None  # what the learning rates are multiplied by
    state: GuardState
    metrics: dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Guard:
    """What a step does about NaN, overflow and spikes: an argument of `jgd.make_step` and `jgd.TrainState.create`.

    Its numbers are in the state, so that changing one recompiles nothing: `state = guard.retune(state)` gives a state
    the numbers of another guard of the same parts.

    With a guard the metrics also hold `event` (see `jgd.events_of`), `bad_leaf`, `skips`, `consecutive_skips`, and
    what its parts add: `loss_scale`, `overflows`; `spikes`, `grad_norm`, `loss_threshold`, `grad_norm_threshold`, and
    `rate_factor` where spikes lower the learning rate.

    Args:
        max_consecutive_skips: How many steps in a row `on_nonfinite="skip"` may leave out. The next one raises
            `NonFiniteError`: no bad update is ever made. None for no limit.
        max_skips: The same of the whole run.
        loss_scale: `jgd.LossScale()` for float16. Steps that overflow count for no limit.
        spikes: `jgd.Spikes()`, detection of spikes in the loss and the gradient norm.

    Raises:
        ValueError: A limit below 0.
        TypeError: A part of another type.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> guard, optimizer = jgd.Guard(max_consecutive_skips=2), jgd.sgd(0.1)
        >>> step = jgd.make_step(lambda w, b: jnp.sum(w * b), optimizer, on_nonfinite="skip", guard=guard)
        >>> state = jgd.TrainState.create(jnp.ones(2), optimizer, guard=guard)
        >>> for _ in range(2):
        ...     state, metrics = step(state, jnp.nan)
        >>> print(metrics["consecutive_skips"], state.params)
        2 [1. 1.]
        >>> try:
        ...     step(state, jnp.nan)
        ... except jgd.NonFiniteError as error:
        ...     print(error.step, error.leaf, error.state.params)
        2 the root [1. 1.]
    """

    max_consecutive_skips: int | None = None
    max_skips: int | None = None
    loss_scale: LossScale | None = None
    spikes: Spikes | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("max_consecutive_skips", "max_skips"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"Guard: {name} must be None or a whole number of at least 0; got {value}.")

    @property
    def has_limits(self) -> bool:
        """Whether the number of skipped steps is limited."""
        return self.max_consecutive_skips is not None or self.max_skips is not None

    def settings(self) -> dict[str, Array]:
        """The numbers that a step reads, as arrays."""
        limits = {"max_consecutive_skips": self.max_consecutive_skips, "max_skips": self.max_skips}
        return {name: jnp.array(NO_LIMIT if value is None else value, jnp.int32) for name, value in limits.items()}

    def init(self) -> GuardState:
        """The state before the first step."""
        return GuardState(
            jnp.array(0, jnp.int32),
            jnp.array(0, jnp.int32),
            None if self.loss_scale is None else self.loss_scale.init(),
            None if self.spikes is None else self.spikes.init(),
            self.settings(),
        )

    def retune(self, state: PyTree) -> PyTree:
        """The training state with this guard's numbers. Counters, windows and the present loss scale stay.

        Raises:
            ValueError: The state's guard has other parts.
        """
        check_guard_state(self, state.guard)
        guard = _with_settings(state.guard, self)
        for part in ("loss_scale", "spikes"):
            if getattr(self, part) is not None:
                guard = guard._replace(**{part: _with_settings(getattr(guard, part), getattr(self, part))})
        return state._replace(guard=guard)


def _with_settings(state: Any, part: Any) -> Any:
    """The state with the numbers of a part, placed as the old ones were, so that nothing recompiles."""
    return state._replace(settings=jax.tree.map(in_place_of, state.settings, part.settings()))


def check_guard_state(guard: Guard | None, state: PyTree) -> None:
    """Refuses a state whose guard is not that of the step.

    Raises:
        ValueError: One has a guard and the other has none, or they differ in their parts or windows.
    """
    if (guard is None) != (state is None):
        with_guard, without = ("state", "step") if guard is None else ("step", "state")
        raise ValueError(
            f"the {with_guard} has a guard and the {without} has none. Pass the same jgd.Guard to both:"
            " make_step(..., guard=guard) and TrainState.create(..., guard=guard)."
        )
    if guard is None:
        return
    expected = jax.eval_shape(guard.init)
    if _outline(state) != _outline(expected):
        raise ValueError(
            f"the state's guard is another than the step's, {guard!r}: they differ in parts, watched numbers or"
            f" windows. Found {_outline(state)[1]}; expected {_outline(expected)[1]}."
        )


def _outline(tree: PyTree) -> tuple[Any, Any]:
    named = jax.tree_util.tree_flatten_with_path(tree)[0]
    shapes = {path_text(path): (jnp.shape(leaf), str(jnp.result_type(leaf))) for path, leaf in named}
    return jax.tree.structure(tree), shapes


def decide(
    guard: Guard,
    state: GuardState,
    loss: Array,
    grad_norm: Array,
    bad_leaf: Array,
    finite: Array,
    running: Array,
    raises: bool,
) -> Decision:
    """What a guard does about a step.

    Args:
        guard: The parts.
        state: Their memory.
        loss: Scalar.
        grad_norm: Scalar.
        bad_leaf: The position that `first_bad_leaf` gave.
        finite: Whether loss and gradients are.
        running: Whether no step before this one has stopped the run.
        raises: Whether a step that is not finite ends the run, rather than being left out.
    """
    overflow = jnp.zeros_like(finite)
    if state.loss_scale is not None:
        overflow = overflowed(state.loss_scale, loss, finite)
    nonfinite = ~finite & ~overflow
    consecutive = jnp.where(nonfinite, state.consecutive_skips + 1, jnp.where(finite, 0, state.consecutive_skips))
    skips = state.skips + nonfinite
    over = (consecutive > state.settings["max_consecutive_skips"]) | (skips > state.settings["max_skips"])
    limit = nonfinite & over & (not raises)
    stop = nonfinite if raises else limit
    bits = [(NONFINITE, nonfinite), (OVERFLOW, overflow), (LIMIT, limit)]
    metrics = {"bad_leaf": bad_leaf, "skips": skips, "consecutive_skips": consecutive}
    moves, multiplier = finite, None
    new = state._replace(skips=skips, consecutive_skips=consecutive)

    if state.loss_scale is not None:
        scale = next_scale(state.loss_scale, overflow, finite)
        metrics |= {"loss_scale": scale.scale, "overflows": scale.overflows}
        new = new._replace(loss_scale=scale)
    if guard.spikes is not None:
        spikes = detect_spikes(guard.spikes, state.spikes, {"loss": loss, "grad_norm": grad_norm}, finite)  # type: ignore[arg-type]
        moves = moves & ~spikes.is_spike
        of_number = {"loss": LOSS_SPIKE, "grad_norm": NORM_SPIKE}
        bits += [(of_number[name], spike) for name, spike in spikes.spiked.items()]
        metrics |= {"grad_norm": grad_norm, "spikes": spikes.state.spikes}
        metrics |= {f"{name}_threshold": threshold for name, threshold in spikes.thresholds.items()}
        if guard.spikes.on_spike == "rollback":
            stop = stop | spikes.is_spike
        else:
            bits.append((LEVEL_SHIFT, spikes.level_shift))
        if guard.spikes.on_spike == "lower_rate":
            multiplier = jnp.where(running, spikes.rate_multiplier, 1.0)
            bits.append((RATE_LOWERED, multiplier < 1))
            metrics["rate_factor"] = spikes.state.rate_factor
        new = new._replace(spikes=spikes.state)

    goes_on = running & ~stop
    bits.append((STOPPED, stop))
    event = sum((jnp.where(happened, bit, 0) for bit, happened in bits), jnp.array(0, jnp.int32))
    metrics["event"] = jnp.where(running, event, 0).astype(jnp.int32)
    kept = jax.tree.map(lambda a, b: a if a is b else jnp.where(goes_on, a, b), new, state)
    return Decision(moves & goes_on, goes_on, multiplier, kept, metrics)
