"""Rollback to the last good state: for spikes and divergence that skipping one step does not cure."""

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import check_choice
from jgd.train._counts import check_count
from jgd.train._state import TrainState
from jgd.train.guards._events import Event
from jgd.train.guards._rates import lower_rates

Keep = Literal["host", "device"]


class RollbackError(RuntimeError):
    """The run was rolled back as often as allowed, and failed again.

    Attributes:
        events: What ended the run.
        state: The last good state, as it was when it was kept. Its learning rate is that of the last attempt.
    """

    def __init__(self, retries: int, events: list[Event], state: TrainState):
        what = ", ".join(f"{event['kind']} at step {event['step']}" for event in events)
        super().__init__(
            f"the run was rolled back {retries} times, as often as Rollback(retries={retries}) allows, and met trouble"
            f" again: {what}. The last good state is in this error's .state. Look at the batches, lower the learning"
            " rate, or clip."
        )
        self.events, self.state = events, state


class Recovery(NamedTuple):
    """Where a run goes on after a rollback."""

    state: TrainState  # the last good state, its learning rate lowered; it may be donated
    position: Any  # what was noted beside it, such as the data's position
    event: Event  # for the log; event["skip"] names the steps whose batches are to be left out


class _Snapshot(NamedTuple):
    step: int
    state: TrainState
    position: Any


@dataclasses.dataclass(frozen=True)
class Rollback:
    """Keeps the last good state of a run and goes back to it: an argument of `jgd.fit`.

    It answers to steps that end a run: a loss or gradient that is not finite with `on_nonfinite="raise"`, a limit of
    `jgd.Guard`, and a spike with `Spikes(on_spike="rollback")`. The state goes back to the last good one, its learning
    rates are multiplied by `factor`, and the batch that gave trouble is left out.

    Args:
        every: How many steps lie between two states that are kept, at least 1.
        retries: How often a run may go back in all, at least 1. After that it raises `RollbackError`.
        factor: What the learning rates are multiplied by each time, in (0, 1]. With 1 any optimizer will do; otherwise
            it must have a learning rate in its state.
        keep: Where the states are kept: `"host"`, which waits for the device each time, or `"device"`, which
            takes the memory of up to two more states.

    Raises:
        ValueError: A number is outside its range.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.sgd(0.1)
        >>> step = jgd.make_step(lambda w, batch: jnp.mean((w - batch) ** 2), optimizer)
        >>> state = jgd.TrainState.create(jnp.array(4.0), optimizer)
        >>> keeper = jgd.Rollback(every=1, factor=0.5).start(state, position=0)
        >>> try:
        ...     step(state, jnp.array([jnp.inf]))
        ... except jgd.NonFiniteError as error:
        ...     state, position, event = keeper.recover([{"kind": "nonfinite", "step": error.step}])
        >>> print(state.params, position, event["kind"], event["skip"], jgd.get_hyperparams(state)["learning_rate"])
        4.0 0 rollback [0] 0.05
    """

    every: int = 100
    retries: int = 3
    factor: float = 0.5
    keep: Keep = "host"

    def __post_init__(self) -> None:
        for name in ("every", "retries"):
            check_count("Rollback", name, getattr(self, name))
        is_number = isinstance(self.factor, int | float | np.floating) and not isinstance(self.factor, bool)
        if not is_number or not 0 < self.factor <= 1:
            raise ValueError(f"Rollback: factor must lie in (0, 1]; got {self.factor!r}.")
        check_choice("Rollback", "keep", self.keep, Keep)

    def start(self, state: TrainState, position: Any = None) -> "StateKeeper":
        """A keeper for one run, which holds its first state.

        Args:
            state: The first state; it is copied.
            position: Anything, such as the data's position; it comes back with the state.

        Raises:
            ValueError: `factor` is below 1 and the optimizer has no learning rate that can be lowered.
        """
        if self.factor != 1:
            jax.eval_shape(lambda opt_state: lower_rates(opt_state, self.factor), state.opt_state)
        return StateKeeper(self, state, position)


class StateKeeper:
    """The last good state of one run.

    The loop calls `note` after steps, `confirm` once it has seen the numbers of steps, and `recover` where one of
    them has ended the run. It need not know that a step was good when it notes it: from the step that ended the run on
    the state has stayed as it was.
    """

    def __init__(self, settings: Rollback, state: TrainState, position: Any):
        self.settings, self.attempts = settings, 0
        self._places = jax.tree.map(lambda leaf: leaf.sharding, state)
        self._good = _Snapshot(int(state.step), self._copy(state), position)
        self._waiting: _Snapshot | None = None
        self._noted = self._good.step

    def note(self, state: TrainState, step: int, position: Any = None) -> None:
        """Keeps a copy of the state, if one is due.

        Args:
            state: The state after a step, before it is given to another.
            step: How many steps the loop has made, by its own count: it need not fetch `state.step`.
            position: Anything, such as the data's position; it comes back with the state.
        """
        if step - self._noted >= self.settings.every and self._waiting is None:
            self._waiting, self._noted = _Snapshot(step, self._copy(state), position), step

    def confirm(self, step: int) -> None:
        """Says that the first `step` steps, by the loop's count, did not end the run."""
        if self._waiting is not None and self._waiting.step <= step:
            self._good, self._waiting = self._waiting, None

    def positions(self) -> list[Any]:
        """The positions that came with the states held."""
        return [held.position for held in (self._good, self._waiting) if held is not None]

    def recover(self, events: Iterable[Event]) -> Recovery | None:
        """Where to go on, if one of the events has ended the run; None where none has.

        Args:
            events: Records as `events_of` makes them. Those whose `action` is not `"stop"` are passed over.

        Raises:
            RollbackError: There was one rollback too many.
        """
        trouble = [event for event in events if event.get("action", "stop") == "stop"]
        if not trouble:
            return None
        first = min(int(event["step"]) for event in trouble)
        self.confirm(first)
        self._waiting = None
        if self.attempts == self.settings.retries:
            raise RollbackError(self.attempts, trouble, self._restored())
        self.attempts += 1
        factor = self.settings.factor
        if factor != 1:  # also in what is kept: the next attempt from here lowers it once more
            lowered = lower_rates(self._good.state.opt_state, factor)
            self._good = self._good._replace(state=self._copy(self._good.state._replace(opt_state=lowered)))
        self._noted = self._good.step
        skip = sorted({int(event["step"]) for event in trouble})
        event: Event = {"kind": "rollback", "step": first, "to_step": self._good.step, "skip": skip}
        event |= {"attempt": self.attempts, "retries": self.settings.retries, "factor": factor}
        event |= {"reasons": sorted({str(cause["kind"]) for cause in trouble})}
        ids = [name for cause in trouble for name in cause.get("ids", [])]
        event |= {"ids": list(dict.fromkeys(ids))} if ids else {}
        return Recovery(self._restored(), self._good.position, event)

    def _copy(self, state: TrainState) -> TrainState:
        return jax.tree.map(_to_host if self.settings.keep == "host" else jnp.copy, state)

    def _restored(self) -> TrainState:
        """A copy that may be donated, placed as the first state was."""
        return jax.tree.map(_to_device, self._good.state, self._places)


def at_step(state: TrainState, step: int) -> TrainState:
    """The state with another step number: for data that cannot go back, so that the run goes on where the data is."""
    return state._replace(step=jnp.full_like(state.step, step))


def _to_host(leaf: Any) -> Any:
    # Random keys stay where they are: NumPy has no dtype for them, and they are small.
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jnp.copy(leaf) if is_key else np.array(leaf, copy=True)


def _to_device(leaf: Any, place: Any) -> jax.Array:
    fresh = jnp.copy(leaf) if isinstance(leaf, jax.Array) else jnp.array(leaf, copy=True)
    return fresh if fresh.sharding.device_set == place.device_set else jax.device_put(fresh, place)
