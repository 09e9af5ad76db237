"""One checkpoint on disk: a folder that is either complete, which its checksums show, or not there.

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
import shutil
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jgd.core import require
from jgd.train.checkpoints._in_place import draft_of, flush, put_in_place

FORMAT = 1
_MANIFEST = "manifest.json"
_PARTS = ("state", "record.json", "history.npz", _MANIFEST)


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


def write(target: Path, contents: Contents, *, overwrite: bool = False) -> None:
    """Writes a checkpoint in one piece: a reader finds all of it or what was there before.

    Args:
        target: Its folder.
        contents: What it holds.
        overwrite: Whether it may take the place of another checkpoint. Otherwise the name must be free, or that of an
            empty folder.

    Raises:
        CheckpointError: It could not be written. What was there before is untouched.
    """
    package = orbax()
    draft: Path | None = None
    try:
        draft = draft_of(target)
        # orbax writes no array without elements; the record has its shape.
        arrays = {name: array for name, array in contents.arrays.items() if array.size}
        # orbax joins its files by a glob that takes brackets in the path for a pattern, and then loses the arrays.
        with package.PyTreeCheckpointer(use_ocdbt=not set("[]*?") & set(str(draft))) as checkpointer:
            checkpointer.save(draft / "state", arrays)
        stored, dtypes = _without_extended_dtypes(contents.history)
        np.savez(draft / "history.npz", allow_pickle=False, **stored)
        record = contents.record | {"format": FORMAT, "history_dtypes": dtypes, "versions": _versions()}
        (draft / "record.json").write_text(json.dumps(record), encoding="utf-8")
        (draft / _MANIFEST).write_text(json.dumps(_manifest(draft), separators=(",", ":")), encoding="utf-8")
        flush(draft / _MANIFEST)
        flush(draft)
        put_in_place(draft, target, check_replaceable if overwrite else None)
    except BaseException as error:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)
        if not isinstance(error, Exception):
            raise
        reason = _reason(error)
        raise CheckpointError(
            f"could not write the checkpoint {target}: {reason}. What was written before is untouched, and so is the"
            " state in memory.",
            target,
            reason,
        ) from error


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is meant to be a checkpoint; it may be damaged."""
    return sum((folder / name).exists() for name in _PARTS) >= 2


def check_replaceable(folder: Path) -> None:
    """Refuses a folder that holds anything but a checkpoint of jgd's, which deleting it would lose.

    Raises:
        FileExistsError: It does; the message says what.
    """
    try:
        files = _files_of(folder)
        record = read_record(folder)
    except CheckpointError as error:
        held = listed(path.name for path in folder.iterdir())
        raise FileExistsError(
            f"the folder {folder} does not hold an intact checkpoint of jgd, and is left as it is: it holds {held}."
        ) from error
    if others := [name for name in _files_in(folder) if name not in files and name != _MANIFEST]:
        raise FileExistsError(
            f"the checkpoint {folder} is left as it is, since it also holds other files: {listed(others)}."
        )
    if "extra" in record:
        raise FileExistsError(
            f"the checkpoint {folder} is left as it is, since a run has written it (jgd.fit or jgd.Checkpoints), which"
            " could not go on from another."
        )


def foreign_files(folder: Path) -> list[str]:
    """Files in a checkpoint's folder that are not the checkpoint's, which may be damaged."""
    return [name for name in _files_in(folder) if name.split("/")[0] not in _PARTS]


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
    for name, (size, expected) in _files_of(source).items():
        path = source / name
        if not path.is_file():
            raise _damaged(source, f"the file {name} is missing")
        if path.stat().st_size != size:
            raise _damaged(source, f"the file {name} has {path.stat().st_size} bytes; {size} were written")
        if _hash(path) != expected:
            raise _damaged(source, f"the file {name} has changed since it was written")


def _files_of(source: Path) -> dict[str, Any]:
    """Size and hash of each file, by name, as the manifest has them."""
    try:
        return dict(json.loads((source / _MANIFEST).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(source, f"its {_MANIFEST} cannot be read ({_reason(error)})") from error


def _files_in(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def listed(names: Iterable[str]) -> str:
    """A few names, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - 5} more" if len(ordered) > 5 else ""
    return ", ".join(ordered[:5]) + more


def _damaged(source: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"the checkpoint {source} is damaged: {reason}.", source, reason)


def _manifest(folder: Path) -> dict[str, Any]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): [path.stat().st_size, _hash(path)] for path in paths}
    for path in paths + [path for path in folder.rglob("*") if path.is_dir()]:
        flush(path)
    return {"files": files}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no message"
    if len(text) > 400:  # the cause is at the end, behind the names of files
        text = f"{text[:100]} ... {text[-250:]}"
    return f"{type(error).__name__}: {text}"


def _versions() -> dict[str, str]:
    names = ("jgd", "jax", "jaxlib", "optax", "numpy", "orbax-checkpoint")
    versions = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions | {"backend": jax.default_backend()}


def _without_extended_dtypes(history: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays as NumPy's files can hold them, bfloat16 and the like as bits; and the names of those dtypes."""
    extended = {name: str(array.dtype) for name, array in history.items() if array.dtype.kind == "V"}
    bits = {name: history[name].view(f"u{history[name].dtype.itemsize}") for name in extended}
    return {**history, **bits}, extended
