"""The log of a run: one JSON object a line."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from jgd.train.checkpoints._paths import as_path, make_folder, reworded

# What happened to the run itself; going through the same steps again does not write these a second time.
_OF_THE_RUN = frozenset({"resumed", "error", "checkpoint_failed", "notice"})
_TAIL = 1 << 20  # bytes; the last step of a log stands within so many of its end


class JsonlLog:
    """A file to which records are appended, each at once readable by others; or nothing, where there is no folder.

    A log that is there is never shortened by another run. Its run goes on with it: one that was resumed, and whose
    last step is in the log, or one whose first step follows upon the log's last. Any other run sets it aside, as
    `history-1.jsonl` and so on, the oldest being the first, and begins a new `history.jsonl`.

    Args:
        folder: Where `history.jsonl` goes; None to write nothing.
        resumed: The history of the run so far, as the checkpoint has it that the run was resumed from; or None.
        step: The first step of a run that was not resumed.

    Attributes:
        set_aside: The new name of an earlier run's log; None where there was none.

    Raises:
        TypeError, ValueError: `folder` is no path.
        OSError: The folder cannot be made or written to.
    """

    def __init__(self, folder: str | Path | None, *, resumed: Mapping[str, np.ndarray] | None, step: int):
        self._file: TextIO | None = None
        self.set_aside: Path | None = None
        if folder is None:
            return
        place = as_path("fit", "log_dir", folder)
        make_folder("fit", "log_dir", place)
        self._path = place / "history.jsonl"
        try:
            used = self._path.exists() and self._path.stat().st_size
            if used and not (_ends_before(self._path, step) if resumed is None else _holds(self._path, resumed)):
                self.set_aside = _set_aside(self._path)
            self._file = self._path.open("a", encoding="utf-8")
            self._start = 0 if resumed is not None else self._path.stat().st_size  # where the run's own lines begin
        except OSError as error:
            raise reworded(error, f"fit: log_dir: cannot write {self._path}") from error

    def cut_back(self, step: int, epoch: int, *, events: bool) -> None:
        """Removes what will be run again: steps from `step` on, epochs from `epoch` on, and an incomplete last line.

        Args:
            step: The first step to be run again.
            epoch: The first epoch to be ended again.
            events: Whether events within those steps go as well.
        """
        if self._file is None or not _is_open_at(self._file, self._path):
            return
        partial = self._path.with_name(f".{self._path.name}.partial")
        with self._path.open("rb") as old, partial.open("wb") as new:
            new.write(old.read(self._start))
            new.writelines(line for line in old if _stays(line.decode("utf-8", "replace"), step, epoch, events))
        self._file.close()
        os.replace(partial, self._path)
        self._file = self._path.open("a", encoding="utf-8")

    def write(self, kind: str, record: Mapping[str, Any]) -> None:
        """One line: `{"kind": kind, ...record}`. NaN and infinity, which JSON lacks, become null."""
        if self._file is not None:
            plain = {"kind": kind} | {name: to_plain(value) for name, value in record.items()}
            self._file.write(json.dumps(plain, allow_nan=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()


def to_plain(value: Any) -> Any:
    """A number, boolean, string or list that JSON can hold."""
    if isinstance(value, str | bool | int) or value is None:
        return value
    array = np.asarray(value)
    if array.ndim:
        return [to_plain(item) for item in array.tolist()]
    item = array.item()
    return None if isinstance(item, float) and not math.isfinite(item) else item


def _stays(line: str, step: int, epoch: int, events: bool) -> bool:
    record = _parsed(line)
    kind = record.get("kind")
    if kind == "epoch":
        return record["epoch"] < epoch
    if kind == "step" or (events and kind not in _OF_THE_RUN):
        return record.get("step", step) < step
    return bool(record) and line.endswith("\n")


def _parsed(line: str) -> dict[str, Any]:
    """The record of a line; empty where it is not one."""
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _ends_before(path: Path, step: int) -> bool:
    """Whether the last step in a log is the one before `step`."""
    with path.open("rb") as file:
        file.seek(-min(_TAIL, path.stat().st_size), os.SEEK_END)
        tail = file.read().decode("utf-8", errors="replace")
    if not tail.endswith("\n"):  # cut short by a kill
        return False
    for line in reversed(tail.splitlines()):
        record = _parsed(line)
        if record.get("kind") == "step":
            return record.get("step") == step - 1
    return False


def _holds(path: Path, history: Mapping[str, np.ndarray]) -> bool:
    """Whether a log is that of a run: it has the last step of its history, with the same loss."""
    steps, losses = history.get("metric:step", np.empty(0)), history.get("metric:loss", np.empty(0))
    if not len(steps):
        return False
    last, loss = int(steps[-1]), to_plain(losses[-1])
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if f'"step": {last}' in line and line.endswith("\n"):
                record = _parsed(line)
                if record.get("kind") == "step" and record.get("step") == last:
                    return record.get("loss") == loss
    return False


def _set_aside(path: Path) -> Path:
    """Gives a log the next name that is free."""
    number = 1
    while True:
        aside = path.with_name(f"{path.stem}-{number}{path.suffix}")
        try:
            aside.open("x").close()  # two runs that start at once do not take the same name
        except FileExistsError:
            number += 1
            continue
        os.replace(path, aside)
        return aside


def _is_open_at(file: TextIO, path: Path) -> bool:
    """Whether a path still is that of an open file: another run may have set it aside."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False
