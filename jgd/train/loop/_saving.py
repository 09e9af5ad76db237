"""When a run is saved, and what happens where that fails."""

import contextlib
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from jgd.train._state import TrainState
from jgd.train.checkpoints._files import CheckpointError
from jgd.train.checkpoints._folder import Checkpoints, Restored
from jgd.train.data._position import Place
from jgd.train.loop._log import JsonlLog


class Snapshot(NamedTuple):
    """What goes into a checkpoint of a run.

    Attributes:
        state: The state.
        memory: What a later process must know beside the state and the history, as JSON holds it.
        history: All numbers so far.
    """

    state: TrainState
    memory: dict[str, Any]
    history: dict[str, np.ndarray]


class Saveable(Protocol):
    """A run, as far as its saver reads it.

    Attributes:
        epoch: The epoch that it is in, counted from 0.
        position: How many steps were made.
        place: Where it stands in the data.
        log: Where a save that fails is written down.
    """

    epoch: int
    position: int
    place: Place
    log: JsonlLog

    def snapshot(self) -> Snapshot:
        """The run as it stands, its numbers fetched."""
        ...


class Saver:
    """The checkpoints of a run, or none.

    A checkpoint that cannot be written does not end the run, which would lose what was trained: it is warned of and
    logged, and the next one is tried when it is due.
    """

    def __init__(self, checkpoints: Checkpoints | str | Path | None):
        is_folder = isinstance(checkpoints, str | Path)
        self._checkpoints = Checkpoints(checkpoints) if is_folder else checkpoints
        self._saved = Place()  # where the newest checkpoint stands; at the start there is nothing to save
        self._due = False

    @property
    def active(self) -> bool:
        """Whether there are checkpoints."""
        return self._checkpoints is not None

    def start(self, state: TrainState, resume: bool) -> Restored | None:
        """Opens the folder, and reads the newest checkpoint if the run is to go on from it."""
        if self._checkpoints is None:
            return None
        self._checkpoints.open()
        try:
            restored = self._checkpoints.restore(state) if resume else None
        except ValueError as error:
            error.add_note(
                "jgd.fit: another model or optimizer starts anew with another checkpoint_dir, or with resume=False."
            )
            raise
        if restored is not None:
            if "place" not in restored.record["extra"]:
                raise ValueError(
                    f"fit: {restored.path} was not saved by fit and says nothing of the position in the data. Restore"
                    " it by Checkpoints.restore and pass the state, with resume=False."
                )
            self._saved = Place(*restored.record["extra"]["place"])
        return restored

    def is_saved(self, place: Place) -> bool:
        """Whether the newest checkpoint stands at a place."""
        return place == self._saved

    def paths(self) -> list[Path]:
        """The checkpoints in the folder, the oldest first."""
        return [] if self._checkpoints is None else self._checkpoints.paths()

    def steps_until(self, position: int) -> float:
        """Steps until a save is due by their number."""
        every = None if self._checkpoints is None else self._checkpoints.every_steps
        return math.inf if every is None else every - position % every

    def after_step(self, run: Saveable) -> None:
        """Saves if it is due; later, where a checkpoint is being written."""
        if self._checkpoints is None:
            return
        self._due = self._due or self._checkpoints.due(run.position)
        if self._checkpoints.busy:
            return
        self._collect(run)
        if self._due:
            self._save(run, {})

    def after_epoch(self, run: Saveable, summary: Mapping[str, float], is_best: bool) -> None:
        """Saves if it is due by epochs, or if the state is the best and will be asked for; then it is kept."""
        if self._checkpoints is None:
            return
        if is_best:
            self._checkpoints.hold(run.position)
        every = self._checkpoints.every_epochs
        if is_best or (every is not None and run.place.epoch % every == 0):
            self._save(run, summary)

    def recall(self, like: TrainState, step: int, metrics: Mapping[str, float]) -> TrainState | None:
        """The state of a step that an earlier process has saved with these numbers, or None; it is kept from here."""
        if self._checkpoints is None:
            return None
        state = like if step == int(like.step) else self._checkpoints.held(like, step, metrics)
        if state is not None:
            self._checkpoints.hold(step)
        return state

    def finish(self, run: Saveable, summary: Mapping[str, float] | None = None) -> None:
        """Saves what is not saved yet, and waits until all is on the disk."""
        if self._checkpoints is None:
            return
        self._collect(run)
        if run.place != self._saved:
            self._save(run, summary or {})
        self._collect(run)

    def wait(self) -> None:
        """Waits until what was saved is on the disk, or has failed."""
        if self._checkpoints is not None:
            with contextlib.suppress(CheckpointError):
                self._checkpoints.wait()

    def _save(self, run: Saveable, summary: Mapping[str, float]) -> None:
        assert self._checkpoints is not None
        state, memory, history = run.snapshot()
        self._collect(run)
        self._due = False
        try:
            self._checkpoints.save(state, run.position, metrics=summary, extra=memory, history=history)
            self._saved = run.place
        except CheckpointError as error:
            self._report(run, error)

    def _collect(self, run: Saveable) -> None:
        """Waits for the checkpoint that is being written, and reports it where it failed."""
        assert self._checkpoints is not None
        try:
            self._checkpoints.wait()
        except CheckpointError as error:
            self._report(run, error)

    def _report(self, run: Saveable, error: CheckpointError) -> None:
        self._saved = Place(-1)  # so that the end of the run tries once more
        run.log.write("checkpoint_failed", {"epoch": run.epoch, "step": run.position, "message": str(error)})
        warnings.warn(f"fit goes on without a checkpoint: {error}", RuntimeWarning, stacklevel=2)
