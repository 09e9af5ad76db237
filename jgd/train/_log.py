"""What a run writes down: one JSON object a line."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

# What happened to the run itself; going through the same steps again does not write these a second time.
_OF_THE_RUN = frozenset({"resumed", "error", "checkpoint_failed"})


class JsonlLog:
    """A file to which records are appended, each at once readable by others; or nothing, where there is no folder.

    Args:
        folder: Where `history.jsonl` goes; None to write nothing.
        append: Whether to go on with a file that is there. Otherwise it is replaced.
    """

    def __init__(self, folder: str | Path | None, *, append: bool):
        self._file: TextIO | None = None
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._path = Path(folder) / "history.jsonl"
            self._file = self._path.open("a" if append else "w", encoding="utf-8")

    def cut_back(self, step: int, epoch: int, *, events: bool) -> None:
        """Takes out what will be run again: steps from `step` on, epochs from `epoch` on, and a last line cut short.

        Args:
            step: The first step to be run again.
            epoch: The first epoch to be ended again.
            events: Whether events within those steps go as well.
        """
        if self._file is None:
            return
        self._file.close()
        partial = self._path.with_name(f".{self._path.name}.partial")
        with self._path.open(encoding="utf-8", errors="replace") as old, partial.open("w", encoding="utf-8") as new:
            new.writelines(line for line in old if _stays(line, step, epoch, events))
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
    try:
        record = json.loads(line)
    except ValueError:
        return False
    kind = record.get("kind")
    if kind == "epoch":
        return record["epoch"] < epoch
    if kind == "step" or (events and kind not in _OF_THE_RUN):
        return record.get("step", step) < step
    return line.endswith("\n")
