"""What a run writes down: one JSON object a line."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np


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
            self._file = (Path(folder) / "history.jsonl").open("a" if append else "w", encoding="utf-8")

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
