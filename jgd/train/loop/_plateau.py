"""Which epoch is the best, and whether a number has stopped getting better."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from jgd.train._state import TrainState
from jgd.train.checkpoints._leaves import host_copy, put_back
from jgd.train.loop._history import StopReason


class Watched(NamedTuple):
    """What is remembered of the number that is monitored.

    Attributes:
        best: Its best value, with the sign by which smaller is better.
        step: How many steps had been made then; -1 before there is a best.
        epoch: The epoch, counted from 0; -1 before.
        waited: Epochs since then.
        is_nan: Whether the last value was not finite.
    """

    best: float = math.inf
    step: int = -1
    epoch: int = -1
    waited: int = 0
    is_nan: bool = False


class Plateau:
    """The best of a number, and whether it has stopped getting better.

    Args:
        patience: After how many epochs without an improvement; None for never.
        min_delta: An improvement is better than the best by more than this.
        monitor: The number's name, with a minus before it where larger is better.
        watches: Whether the best is asked for where there is no patience.
    """

    def __init__(self, patience: int | None, min_delta: float, monitor: str, watches: bool = False):
        self.patience, self.min_delta, self.monitor = patience, min_delta, monitor
        self.active = watches or patience is not None
        self.name = monitor.removeprefix("-")
        self.watched = Watched()

    @property
    def best(self) -> float:
        """The best value, with its own sign."""
        return self._signed(self.watched.best)

    @property
    def reason(self) -> StopReason | None:
        """What the run stops for once patience is at its end; None before.

        A number that is NaN or infinite is never an improvement; where patience ends with one, that is the reason.
        """
        if self.patience is None or self.watched.waited < self.patience:
            return None
        return "nan_metric" if self.watched.is_nan else "early_stopping"

    def take(self, summary: Mapping[str, float], step: int, epoch: int) -> bool:
        """Adds an epoch's numbers. Returns whether they are the best so far.

        Raises:
            ValueError: The number is not among them.
        """
        if not self.active:
            return False
        self.check(summary)
        value = self._signed(summary[self.name])
        is_finite = math.isfinite(value)
        if is_finite and value + self.min_delta < self.watched.best:
            self.watched = Watched(value, step, epoch)
            return True
        self.watched = self.watched._replace(waited=self.watched.waited + 1, is_nan=not is_finite)
        return False

    def check(self, names: Iterable[str]) -> None:
        """Refuses a name that is not among those of the epoch's numbers.

        Raises:
            ValueError: It is not.
        """
        if self.name not in names:
            raise ValueError(
                f"fit: monitor={self.name!r} is not among the epoch's numbers: {', '.join(names)}. These are the means"
                " of the loss and of scalars in aux, and what eval_fn returns."
            )

    def _signed(self, value: float) -> float:
        return -value if self.monitor.startswith("-") else value


class BestStates:
    """Copies of states on the host, by the number of steps: the device holds no further state.

    More than one is kept where a rollback may make an earlier one the best again.
    """

    def __init__(self) -> None:
        self._copies: dict[int, dict[str, np.ndarray]] = {}

    def keep(self, step: int, state: TrainState, needed: set[int]) -> None:
        """Copies a state, and drops those of steps that are not needed any more."""
        self._copies = {kept: copy for kept, copy in self._copies.items() if kept in needed}
        self._copies[step] = host_copy(state)

    def get(self, step: int, like: TrainState) -> TrainState | None:
        """The state after so many steps, placed as `like` is; None where it was not kept."""
        copy = self._copies.get(step)
        return None if copy is None else put_back(copy, like)
