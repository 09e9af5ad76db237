"""One checkpoint on disk: a folder that is either whole, and can prove it, or not there.

It is written beside its place under another name, each file is hashed and flushed to the disk, and a rename puts it
where it belongs. A reader compares the hashes before it believes a byte.

| name | what it holds |
| --- | --- |
| `state/` | the arrays by name, as orbax writes them |
| `record.json` | shapes and dtypes, the position in the run, versions |
| `history.npz` | the numbers of the run so far |
| `manifest.json` | size and SHA-256 of every file above; each of its own bytes matters |
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jgd.core import require

FORMAT = 1
_MANIFEST = "manifest.json"


class CheckpointError(RuntimeError):
    """A checkpoint that could not be written, or that is damaged.

    Attributes:
        path: The checkpoint's folder.
        reason: What is wrong, in a few words.
    """

    def __init__(self, message: str, path: Path, reason: str):
        super().__init__(message)
        self.path, self.reason = path, reason


class Contents(NamedTuple):
    """What a checkpoint holds."""

    arrays: dict[str, np.ndarray]
    record: dict[str, Any]
    history: dict[str, np.ndarray]


def orbax() -> Any:
    """The package that writes the arrays.

    Raises:
        ImportError: It is not installed.
    """
    return require("orbax.checkpoint", "train", "a checkpoint")


def write(target: Path, contents: Contents) -> None:
    """Writes a checkpoint in one piece: a reader finds all of it or what was there before.

    Raises:
        CheckpointError: It could not be written. What was there before is untouched.
    """
    package = orbax()
    partial, replaced = (target.with_name(f".{target.name}.{word}-{os.getpid()}") for word in ("partial", "replaced"))
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        # orbax writes no array without elements; the record has its shape.
        arrays = {name: array for name, array in contents.arrays.items() if array.size}
        with package.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(partial / "state", arrays)
        stored, dtypes = _without_extended_dtypes(contents.history)
        np.savez(partial / "history.npz", allow_pickle=False, **stored)
        record = contents.record | {"format": FORMAT, "history_dtypes": dtypes, "versions": _versions()}
        (partial / "record.json").write_text(json.dumps(record), encoding="utf-8")
        (partial / _MANIFEST).write_text(json.dumps(_manifest(partial), separators=(",", ":")), encoding="utf-8")
        _flush(partial / _MANIFEST)
        _flush(partial)
        if target.exists():
            os.rename(target, replaced)
        os.rename(partial, target)
        _flush(target.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        if replaced.exists() and not target.exists():
            with contextlib.suppress(OSError):
                os.rename(replaced, target)
        reason = _reason(error)
        raise CheckpointError(
            f"could not write the checkpoint {target}: {reason}. What was written before is untouched, and so is the"
            " state in memory.",
            target,
            reason,
        ) from error


def read(source: Path) -> Contents:
    """Reads a checkpoint whose files are all as they were written.

    Raises:
        CheckpointError: They are not.
    """
    package = orbax()
    verify(source)
    record = read_record(source)
    with package.PyTreeCheckpointer() as checkpointer:
        arrays = checkpointer.restore(source / "state") if (source / "state").exists() else {}
    arrays = {name: np.asarray(array) for name, array in (arrays or {}).items()}
    for name, (shape, dtype) in record["leaves"].items():
        if name not in arrays:
            arrays[name] = np.zeros(shape, dtype)
    with np.load(source / "history.npz", allow_pickle=False) as file:
        history = {
            name: file[name].view(np.dtype(record["history_dtypes"].get(name, file[name].dtype))) for name in file
        }
    return Contents(arrays, record, history)


def read_record(source: Path) -> dict[str, Any]:
    """The record alone, which is small.

    Raises:
        CheckpointError: It is missing, damaged or of a later version of jgd.
    """
    try:
        record = json.loads((source / "record.json").read_text(encoding="utf-8"))
        written_as = record["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(source, f"its record.json cannot be read ({_reason(error)})") from error
    if written_as > FORMAT:
        raise _damaged(source, f"it is of format {written_as}, and this version of jgd reads up to {FORMAT}")
    return record


def verify(source: Path) -> None:
    """Compares every file with what the manifest says of it.

    Raises:
        CheckpointError: A file is missing, was cut short or has other bytes.
    """
    try:
        files = json.loads((source / _MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(source, f"its {_MANIFEST} cannot be read ({_reason(error)})") from error
    for name, (size, expected) in files.items():
        path = source / name
        if not path.is_file():
            raise _damaged(source, f"the file {name} is missing")
        if path.stat().st_size != size:
            raise _damaged(source, f"the file {name} has {path.stat().st_size} bytes; {size} were written")
        if _hash(path) != expected:
            raise _damaged(source, f"the file {name} has changed since it was written")


def _damaged(source: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"the checkpoint {source} is damaged: {reason}.", source, reason)


def _manifest(folder: Path) -> dict[str, Any]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): [path.stat().st_size, _hash(path)] for path in paths}
    for path in paths + [path for path in folder.rglob("*") if path.is_dir()]:
        _flush(path)
    return {"files": files}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Waits until a file or folder is on the disk. Windows cannot flush a folder."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no message"
    if len(text) > 400:  # the cause is at the end, behind the names of files
        text = f"{text[:100]} ... {text[-250:]}"
    return f"{type(error).__name__}: {text}"


def _versions() -> dict[str, str]:
    names = ("jgd", "jax", "jaxlib", "optax", "numpy", "orbax-checkpoint")
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found | {"backend": jax.default_backend()}


def _without_extended_dtypes(history: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """NumPy's files hold no bfloat16 and the like: their bits are stored, and their names."""
    extended = {name: str(array.dtype) for name, array in history.items() if array.dtype.kind == "V"}
    bits = {name: history[name].view(f"u{history[name].dtype.itemsize}") for name in extended}
    return {**history, **bits}, extended
