"""A folder of checkpoints: when to write one, which to keep, and which to go on from."""

import math
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jgd.core import PyTree
from jgd.train._counts import check_count
from jgd.train.checkpoints._files import (
    CheckpointError,
    Contents,
    foreign_files,
    is_checkpoint,
    orbax,
    read,
    read_record,
    write,
)
from jgd.train.checkpoints._leaves import check_fits, check_leaves, host_copy, put_back
from jgd.train.checkpoints._paths import as_path
from jgd.train.checkpoints._record import record_of, storable
from jgd.train.checkpoints._search import newest_intact, numbered

# What a killed process leaves: a checkpoint half written, one half deleted.
_LEFT = re.compile(r"\.\d+-step-\d+\.(partial-\w+|replaced-\w+|removed)")


class Restored(NamedTuple):
    """What `Checkpoints.restore` read.

    Attributes:
        state: The state.
        record: What was saved with it: `step`, `metrics`, and what the caller added under `extra`.
        history: The numbers of the run so far.
        path: The folder that it was read from.
    """

    state: PyTree
    record: dict[str, Any]
    history: dict[str, np.ndarray]
    path: Path


class Checkpoints:
    """A folder of checkpoints, written while training goes on.

    `save` copies the state to the host and returns; a thread writes it to the disk. A checkpoint is a folder
    `<number>-step-<step>` that appears in one piece with a checksum for each file, so a process that is killed leaves
    the checkpoints before it as they were.

    Args:
        folder: Where they go, `~` being the home; made if it is not there, with those above it. One process writes to
            it at a time. Nothing is deleted in it but checkpoints of the run itself.
        every_steps: `fit` saves after each so many steps. None: not by steps.
        every_seconds: `fit` saves at the first step at which the last save is so many seconds ago. None: not by
            time.
        every_epochs: `fit` saves after each so many epochs. None: not by epochs. Whatever these say, `fit` also
            saves where it ends.
        max_to_keep: How many of the newest of the run are kept, at least 1. With 1 there is none to fall back to where
            the newest is damaged. None to keep all. The run is what was saved since the start, or since the start of
            the run whose checkpoint was restored; those of an earlier run, and any to which files were added, stay.
        best: A name among the metrics of a save (in `fit`: the epoch's summary, with what `eval_fn` returned); the
            checkpoint where it is smallest is kept beside the newest. Put a minus before it where larger is better.

    Raises:
        TypeError, ValueError: An invalid path, number or name.
        ImportError: orbax is not installed (extra `train`).

    Examples:
        >>> import jax.numpy as jnp, jgd, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> checkpoints = jgd.Checkpoints(folder.name, max_to_keep=2, best="loss")
        >>> state = jgd.TrainState.create(jnp.arange(3.0), jgd.adam(1e-3))
        >>> for step, loss in enumerate([3.0, 1.0, 2.0, 4.0]):
        ...     checkpoints.save(state, step, metrics={"loss": loss})
        >>> checkpoints.wait()
        >>> print([path.name for path in checkpoints.paths()], checkpoints.best_path().name)
        ['000001-step-1', '000002-step-2', '000003-step-3'] 000001-step-1
        >>> print(checkpoints.restore(state).record["step"])
        3
        >>> folder.cleanup()
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        every_steps: int | None = None,
        every_seconds: float | None = None,
        every_epochs: int | None = 1,
        max_to_keep: int | None = 3,
        best: str | None = None,
    ):
        counts = {"every_steps": every_steps, "every_epochs": every_epochs, "max_to_keep": max_to_keep}
        for name, value in counts.items():
            check_count("Checkpoints", name, value, or_none=True)
        is_number = isinstance(every_seconds, int | float | np.number) and not isinstance(every_seconds, bool)
        if every_seconds is not None and not (is_number and every_seconds > 0):
            raise ValueError(f"Checkpoints: every_seconds must be a number above 0, or None; got {every_seconds!r}.")
        if best is not None and not isinstance(best, str):
            raise TypeError(f"Checkpoints: best must be the name of a metric, or None; got a {type(best).__name__}.")
        orbax()
        self.folder = as_path("Checkpoints", "folder", folder)
        self.every_steps, self.every_seconds, self.every_epochs = every_steps, every_seconds, every_epochs
        self.max_to_keep, self.best = max_to_keep, best
        self._thread: threading.Thread | None = None
        self._error: CheckpointError | None = None
        self._damaged: set[Path] = set()
        self._held: int | None = None
        self._first: int | None = None  # the number of the run's first checkpoint, once that is known
        self._last = time.monotonic()

    def paths(self) -> list[Path]:
        """The checkpoints in the folder, the oldest first; those of earlier runs too."""
        return numbered(self.folder)

    def best_path(self) -> Path | None:
        """The run's checkpoint with the best value of `best`; None where none has one.

        Before anything was saved or restored: the best of all in the folder.
        """
        scores = [(score, path) for path in self._of_the_run() if (score := self._score(path)) < math.inf]
        return min(scores, key=lambda pair: pair[0])[1] if scores else None

    def hold(self, step: int) -> None:
        """Keeps the newest checkpoint of this step, whatever `max_to_keep` says, until another step is held."""
        self._held = step

    def held(self, like: PyTree, step: int, metrics: Mapping[str, float]) -> PyTree | None:
        """The state of the newest intact checkpoint of a step that was saved with these numbers, or None."""
        self.wait()
        for path in self._of_step(step)[::-1]:
            try:
                if metrics.items() <= read_record(path)["metrics"].items():
                    return put_back(read(path).arrays, like)
            except CheckpointError:
                self._damaged.add(path)
        return None

    def open(self) -> None:
        """Makes the folder, removes what a killed process left unfinished, and tries to write there.

        Raises:
            CheckpointError: It cannot be written to.
        """
        try:
            if is_checkpoint(self.folder):
                raise FileExistsError(
                    "it is itself a checkpoint, as save_checkpoint writes it; expected a folder for several"
                )
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(prefix=".jgd-", dir=self.folder) as probe:
                probe.write(b"jgd")
            for left in self.folder.iterdir():
                if _LEFT.fullmatch(left.name):
                    shutil.rmtree(left, ignore_errors=True)
        except OSError as error:
            raise CheckpointError(
                f"cannot write checkpoints to {self.folder}: {error}. Nothing was trained yet, and nothing in the"
                " folder was changed.",
                self.folder,
                str(error),
            ) from error
        self._last = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether a save is due after so many steps, by their number or by the time since the last one."""
        by_time = self.every_seconds is not None and time.monotonic() - self._last >= self.every_seconds
        return by_time or (self.every_steps is not None and step % self.every_steps == 0)

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._thread is not None and self._thread.is_alive()

    def save(
        self,
        state: PyTree,
        step: int,
        *,
        metrics: Mapping[str, float] | None = None,
        extra: Mapping[str, Any] | None = None,
        history: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Copies the state and starts to write it; waits first for a checkpoint that is being written.

        Args:
            state: The state. It may be donated as soon as this returns.
            step: How many steps it has seen.
            metrics: Numbers to know it by; `best` is one of them.
            extra: Anything that JSON can hold, such as the position in the data.
            history: Arrays by name.

        Raises:
            CheckpointError: The one before could not be written.
            TypeError, ValueError: `metrics` lacks what `best` names, a leaf of the state is no array, or an argument
                cannot be written.
        """
        check_leaves("Checkpoints.save", "state", state)
        numbers, extra, arrays = storable(step, metrics, extra, history)
        name = (self.best or "").removeprefix("-")
        if name and numbers and name not in numbers:
            raise ValueError(f"Checkpoints: best={name!r} is not among the metrics: {', '.join(numbers)}.")
        self.wait()
        self._last = time.monotonic()
        existing = self.paths()
        number = int(existing[-1].name.split("-")[0]) + 1 if existing else 0
        self._first = number if self._first is None else self._first
        record = record_of(state) | {"first": self._first, "step": int(step), "metrics": numbers, "extra": extra}
        contents = Contents(host_copy(state), record, arrays)
        target = self.folder / f"{number:06d}-step-{int(step)}"
        self._thread = threading.Thread(target=self._write, args=(target, contents), name="jgd checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Waits until what was saved is on the disk.

        Raises:
            CheckpointError: It could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raises the error of a save that has failed, once; does not wait.

        Raises:
            CheckpointError: It could not be written.
        """
        error, self._error = self._error, None
        if error is not None:
            raise error

    def restore(self, like: PyTree, *, best: bool = False) -> Restored | None:
        """Reads the newest intact checkpoint; damaged ones are passed over with a warning.

        Args:
            like: A state of the same structure; its values are not used.
            best: Read the best by the metric `best` instead.

        Returns:
            The state and what was saved with it; None where the folder holds no checkpoint.

        Raises:
            ValueError: It does not fit `like`; the message names every leaf that differs.
            CheckpointError: There are checkpoints, and all are damaged.
        """
        check_leaves("Checkpoints.restore", "like", like)
        if not isinstance(best, bool):
            raise TypeError(f"Checkpoints.restore: best must be True or False; got {best!r}.")
        self.wait()
        paths = self.paths()[::-1]
        if best:
            best_path = self.best_path()
            paths = [] if best_path is None else [best_path]
        if not paths:
            return None
        path, contents, damaged = newest_intact(self.folder, paths)
        self._damaged.update(damaged)
        check_fits(path, contents.record["leaves"], like)
        self._first = contents.record.get("first", 0)
        return Restored(put_back(contents.arrays, like), contents.record, contents.history, path)

    def _write(self, target: Path, contents: Contents) -> None:
        try:
            write(target, contents)
            self._prune()
        except CheckpointError as error:
            self._error = error

    def _prune(self) -> None:
        """Removes the run's checkpoints that are damaged, or neither new nor the best; never the one just written."""
        paths = self._of_the_run()
        if self.max_to_keep is None:
            return
        intact = [path for path in paths if path not in self._damaged]
        keep = {*intact[-self.max_to_keep :], self.best_path()} | {*self._of_step(self._held)[-1:]}
        for path in paths:
            if path not in keep and not foreign_files(path):
                removed = path.with_name(f".{path.name}.removed")
                try:
                    path.rename(removed)  # gone at once, so that no half of it can be taken for a checkpoint
                    shutil.rmtree(removed, ignore_errors=True)
                except OSError:
                    continue  # it stays; the next save tries again

    def _of_step(self, step: int | None) -> list[Path]:
        paths = self._of_the_run()
        return [path for path in paths if path.name.endswith(f"-step-{step}") and path not in self._damaged]

    def _of_the_run(self) -> list[Path]:
        """The checkpoints of the run, the oldest first."""
        return [path for path in self.paths() if int(path.name.split("-")[0]) >= (self._first or 0)]

    def _score(self, path: Path) -> float:
        """The value of `best`, smaller being better; infinity where there is none."""
        if self.best is None or path in self._damaged:
            return math.inf
        try:
            value = read_record(path)["metrics"].get(self.best.removeprefix("-"), math.nan)
        except CheckpointError:
            return math.inf
        score = -value if self.best.startswith("-") else value
        return score if score == score else math.inf  # a NaN is never the best
