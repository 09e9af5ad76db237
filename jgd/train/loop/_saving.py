"""When a run saves, what it does where that fails, and how it goes on from what was saved."""

import contextlib
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jgd.train._state import TrainState
from jgd.train.checkpoints._files import CheckpointError
from jgd.train.checkpoints._folder import Checkpoints, Restored
from jgd.train.data._position import Place
from jgd.train.guards._finite import NonFiniteError, SpikeError
from jgd.train.loop._plateau import Watched
from jgd.train.loop._rollback import RollbackError


class Saver:
    """The checkpoints of a run, or none.

    A checkpoint that cannot be written does not end the run, which would lose what was trained: it is warned of and
    logged, and the next one is tried when it is due.
    """

    def __init__(self, checkpoints: "Checkpoints | str | Path | None"):
        is_folder = isinstance(checkpoints, str | Path)
        self._checkpoints = Checkpoints(checkpoints) if is_folder else checkpoints
        self._saved = Place()  # where the newest checkpoint stands; at the start there is nothing to save
        self._due = False

    @property
    def active(self) -> bool:
        """Whether there are checkpoints."""
        return self._checkpoints is not None

    def start(self, state: TrainState, resume: bool) -> Restored | None:
        """Sees that one can write, and reads the newest checkpoint if one is to go on from it."""
        if self._checkpoints is None:
            return None
        self._checkpoints.open()
        try:
            found = self._checkpoints.restore(state) if resume else None
        except ValueError as error:
            error.add_note(
                "jgd.fit: another model or optimizer starts anew with another checkpoint_dir, or with resume=False."
            )
            raise
        if found is not None:
            if "place" not in found.record["extra"]:
                raise ValueError(
                    f"fit: {found.path} was not saved by fit and says nothing of the position in the data. Restore it"
                    " by Checkpoints.restore and pass the state, with resume=False."
                )
            self._saved = Place(*found.record["extra"]["place"])
        return found

    def is_saved(self, run: Any) -> bool:
        """Whether the newest checkpoint is of where the run stands."""
        return run.place == self._saved

    def others(self) -> int:
        """How many checkpoints there are."""
        return 0 if self._checkpoints is None else len(self._checkpoints.paths())

    def steps_until(self, position: int) -> float:
        """Steps until a save is due by their number."""
        every = None if self._checkpoints is None else self._checkpoints.every_steps
        return math.inf if every is None else every - position % every

    def after_step(self, run: Any) -> None:
        """Saves if it is due; later, where a checkpoint is still being written."""
        if self._checkpoints is None:
            return
        self._due = self._due or self._checkpoints.due(run.position)
        if self._checkpoints.busy:
            return
        self._collect(run)
        if self._due:
            self._save(run, {})

    def after_epoch(self, run: Any, is_best: bool) -> None:
        """Saves if it is due by epochs, or if the state is the best and will be asked for; then it is kept."""
        if self._checkpoints is None:
            return
        if is_best:
            self._checkpoints.hold(run.position)
        every = self._checkpoints.every_epochs
        if is_best or (every is not None and run.place.epoch % every == 0):
            self._save(run, run.summary)

    def recall_best(self, run: Any) -> None:
        """Gives a run that goes on the best state that an earlier process has left."""
        watched = run.plateau.watched
        if self._checkpoints is None or run.best is None or watched.step < 0:
            return
        found = run.state
        if watched.step != run.position:
            found = self._checkpoints.held(run.state, watched.step, {run.plateau.name: run.plateau.best})
        if found is None:
            run.plateau.watched = Watched()
            run.notices.warn(
                f"the best state before this, after step {watched.step}, is not among the checkpoints: restore_best"
                " returns the best from here on."
            )
            return
        self._checkpoints.hold(watched.step)
        run.best.keep(watched.step, found, set())

    def finish(self, run: Any, summary: Mapping[str, float] | None = None) -> None:
        """Saves what is not saved yet, and waits until all is on the disk."""
        if self._checkpoints is None:
            return
        self._collect(run)
        if run.place != self._saved:
            self._save(run, summary or {})
        self._collect(run)

    def rescue(self, run: Any, error: Exception) -> None:
        """After an error: saves what was trained before it, writes a line to the log, and adds a note to the error."""
        kept = "the state from before is in this error's .state"
        if self._checkpoints is not None:
            with contextlib.suppress(CheckpointError):
                self._checkpoints.wait()
        if not isinstance(error, NonFiniteError | SpikeError | RollbackError):
            try:
                run.fetch()
                self.finish(run)
                kept = "what was trained so far is in this error's .state and .history"
                with contextlib.suppress(AttributeError):
                    error.state, error.history = run.state, run.recorder.history("error")  # type: ignore[attr-defined]
            except Exception as second:  # the first error is the one to be seen
                kept = f"what was trained after the last checkpoint could not be saved ({second})"
        if self._checkpoints is not None and (paths := self._checkpoints.paths()):
            kept += f"; the newest checkpoint is {paths[-1]}"
        about = {"epoch": run.epoch, "step": run.position, "error": type(error).__name__, "message": str(error)}
        with contextlib.suppress(OSError):  # where the disk is full
            run.log.write("error", about)
        error.add_note(f"jgd.fit: in epoch {run.epoch}, counted from 0, after {run.position} steps; {kept}.")

    def _save(self, run: Any, summary: Mapping[str, float]) -> None:
        assert self._checkpoints is not None
        run.fetch()  # what is saved has been looked at, and the history goes with it
        self._collect(run)
        self._due = False
        try:
            self._checkpoints.save(
                run.state, run.position, metrics=summary, extra=run.memory(), history=run.recorder.snapshot()
            )
            self._saved = run.place
        except CheckpointError as error:
            self._report(run, error)

    def _collect(self, run: Any) -> None:
        assert self._checkpoints is not None
        try:
            self._checkpoints.wait()
        except CheckpointError as error:
            self._report(run, error)

    def _report(self, run: Any, error: CheckpointError) -> None:
        self._saved = Place(-1)  # so that the end of the run tries once more
        run.log.write("checkpoint_failed", {"epoch": run.epoch, "step": run.position, "message": str(error)})
        warnings.warn(f"fit goes on without a checkpoint: {error}", RuntimeWarning, stacklevel=2)
