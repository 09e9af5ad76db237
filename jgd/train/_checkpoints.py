"""A folder of checkpoints: when to write one, which to keep, and which to go on from."""

import math
import re
import shutil
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jgd.core import PyTree
from jgd.train._checkpoint_files import CheckpointError, Contents, orbax, read, read_record, write
from jgd.train._leaves import check_fits, host_copy, put_back, table_of

_NAME = re.compile(r"(\d+)-step-(\d+)")


class Restored(NamedTuple):
    """What `Checkpoints.restore` found.

    Attributes:
        state: The state.
        record: What was saved with it: `step`, `metrics`, and what the caller added under `extra`.
        history: The numbers of the run so far.
        path: The folder that it was read from.
    """

    state: Any
    record: dict[str, Any]
    history: dict[str, np.ndarray]
    path: Path


class Checkpoints:
    """A folder of checkpoints, written while training goes on.

    `save` copies the state to the host and returns; a thread writes it to the disk. A checkpoint is a folder
    `<number>-step-<step>` that appears in one piece with a checksum for each file, so a process that is killed leaves
    the checkpoints before it as they were.

    Args:
        folder: Where they go; made if it is not there. One process writes to it at a time.
        every_steps: `fit` saves after each so many steps. None for not by steps.
        every_seconds: `fit` saves at the first step at which the last save is so many seconds ago. None for not by
            time.
        every_epochs: `fit` saves after each so many epochs. None for not by epochs. Whatever these say, `fit` also
            saves where it ends.
        max_to_keep: How many of the newest are kept, at least 1. With 1 there is none to fall back to where the newest
            is damaged. None to keep all.
        best: A name among the metrics of a save (in `fit`: the epoch's summary, with what `eval_fn` returned); the
            checkpoint where it is smallest is kept beside the newest. Put a minus before it where larger is better.

    Raises:
        ValueError: A number that cannot be.
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
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1):
                raise ValueError(f"Checkpoints: {name} must be a whole number of at least 1, or None; got {value!r}.")
        if every_seconds is not None and not every_seconds > 0:
            raise ValueError(f"Checkpoints: every_seconds must be above 0, or None; got {every_seconds!r}.")
        orbax()
        self.folder = Path(folder).absolute()
        self.every_steps, self.every_seconds, self.every_epochs = every_steps, every_seconds, every_epochs
        self.max_to_keep, self.best = max_to_keep, best
        self._thread: threading.Thread | None = None
        self._error: CheckpointError | None = None
        self._damaged: set[Path] = set()
        self._held: int | None = None
        self._last = time.monotonic()

    def paths(self) -> list[Path]:
        """The checkpoints in the folder, the oldest first."""
        found = [
            (int(match[1]), path) for path in self.folder.glob("*-step-*") if (match := _NAME.fullmatch(path.name))
        ]
        return [path for _, path in sorted(found)]

    def best_path(self) -> Path | None:
        """The checkpoint with the best value of `best`; None where none has one."""
        scores = [(score, path) for path in self.paths() if (score := self._score(path)) < math.inf]
        return min(scores, key=lambda pair: pair[0])[1] if scores else None

    def hold(self, step: int) -> None:
        """Keeps the newest checkpoint of this step, whatever `max_to_keep` says, until another step is held."""
        self._held = step

    def held(self, like: PyTree, step: int, metrics: Mapping[str, float]) -> PyTree | None:
        """The state of the newest whole checkpoint of a step that was saved with these numbers, or None."""
        self.wait()
        for path in self._of_step(step)[::-1]:
            try:
                if metrics.items() <= read_record(path)["metrics"].items():
                    return put_back(read(path).arrays, like)
            except CheckpointError:
                self._damaged.add(path)
        return None

    def open(self) -> None:
        """Makes the folder, clears away what a killed process left unfinished, and sees that one can write there.

        Raises:
            CheckpointError: One cannot.
        """
        probe = self.folder / ".probe"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"jgd")
            probe.unlink()
            for pattern in (".*.partial-*", ".*.replaced-*", ".*.removed"):
                for left in self.folder.glob(pattern):
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
        """Copies the state and starts to write it; waits first where the checkpoint before is still being written.

        Args:
            state: The state. It may be donated as soon as this returns.
            step: How many steps it has seen.
            metrics: Numbers to know it by; `best` is one of them.
            extra: Anything that JSON can hold, such as the position in the data.
            history: Arrays by name.

        Raises:
            CheckpointError: The one before could not be written.
            ValueError: `metrics` lacks what `best` names.
        """
        metrics = dict(metrics or {})
        if self.best is not None and metrics and self.best.removeprefix("-") not in metrics:
            name = self.best.removeprefix("-")
            raise ValueError(f"Checkpoints: best={name!r} is not among the metrics: {', '.join(metrics)}.")
        self.wait()
        self._last = time.monotonic()
        record = {"leaves": table_of(state), "step": step, "metrics": metrics, "extra": dict(extra or {})}
        contents = Contents(host_copy(state), record, dict(history or {}))
        existing = self.paths()
        number = int(existing[-1].name.split("-")[0]) + 1 if existing else 0
        target = self.folder / f"{number:06d}-step-{step}"
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
        """Raises, once, what a save met that has ended; does not wait.

        Raises:
            CheckpointError: It could not be written.
        """
        error, self._error = self._error, None
        if error is not None:
            raise error

    def restore(self, like: PyTree, *, best: bool = False) -> Restored | None:
        """Reads the newest checkpoint that is whole; a damaged one is passed over with a warning.

        Args:
            like: A state of the same structure; its values are not used.
            best: Read the best by the metric `best` instead.

        Returns:
            The state and what was saved with it; None where the folder holds no checkpoint.

        Raises:
            ValueError: It does not fit `like`; the message names every leaf that differs.
            CheckpointError: There are checkpoints, and all are damaged.
        """
        self.wait()
        paths = self.paths()[::-1]
        if best:
            found = self.best_path()
            paths = [] if found is None else [found]
        reasons: list[str] = []
        for path in paths:
            try:
                contents = read(path)
            except CheckpointError as error:
                self._damaged.add(path)
                reasons.append(f"{path.name}: {error.reason}")
                continue
            if reasons:
                listed = "; ".join(reasons)
                warnings.warn(
                    f"going on from the checkpoint {path}, as those after it are damaged ({listed}).",
                    RuntimeWarning,
                    stacklevel=2,
                )
            check_fits(path, contents.record["leaves"], like)
            return Restored(put_back(contents.arrays, like), contents.record, contents.history, path)
        if reasons:
            listed = "; ".join(reasons)
            raise CheckpointError(
                f"every checkpoint in {self.folder} is damaged ({listed}). To start anew, move them away or pass"
                " resume=False.",
                self.folder,
                listed,
            )
        return None

    def _write(self, target: Path, contents: Contents) -> None:
        try:
            write(target, contents)
            self._prune()
        except CheckpointError as error:
            self._error = error

    def _prune(self) -> None:
        """Removes what is neither among the newest nor the best, and what is damaged. Never the one just written."""
        paths = self.paths()
        if self.max_to_keep is None:
            return
        whole = [path for path in paths if path not in self._damaged]
        keep = {*whole[-self.max_to_keep :], self.best_path()} | {*self._of_step(self._held)[-1:]}
        for path in paths:
            if path not in keep:
                removed = path.with_name(f".{path.name}.removed")
                try:
                    path.rename(removed)  # gone at once, so that no half of it can be taken for a checkpoint
                    shutil.rmtree(removed, ignore_errors=True)
                except OSError:
                    continue  # it stays; the next save tries again

    def _of_step(self, step: int | None) -> list[Path]:
        return [path for path in self.paths() if path.name.endswith(f"-step-{step}") and path not in self._damaged]

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
