"""The state of the best epoch, kept in the host's memory."""

import numpy as np

from jgd.train._state import TrainState
from jgd.train.checkpoints._leaves import host_copy, put_back


class BestStates:
    """States by the number of steps that they have seen, on the host: the device holds one state, as without them.

    More than one is kept where a rollback may make an earlier one the best again.
    """

    def __init__(self) -> None:
        self._kept: dict[int, dict[str, np.ndarray]] = {}

    def keep(self, step: int, state: TrainState, needed: set[int]) -> None:
        """Copies a state, and lets go of those that are not needed any more."""
        self._kept = {known: copy for known, copy in self._kept.items() if known in needed}
        self._kept[step] = host_copy(state)

    def get(self, step: int, like: TrainState) -> TrainState | None:
        """The state after so many steps, placed as `like` is; None where it was not kept."""
        copy = self._kept.get(step)
        return None if copy is None else put_back(copy, like)
