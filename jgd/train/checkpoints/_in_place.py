"""Atomic replacement of a folder: its name never stands for half of one.

Where the system swaps two names (Linux and macOS, on most file systems), a process that is killed at any moment leaves
the old folder or the new one under the name. Elsewhere there is a moment between two renames at which the name is
free; the old folder then stands beside it, where `standing_for` finds it.
"""

import contextlib
import ctypes
import glob
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

_SECONDS = 3600  # what nobody has written to for so long was left by a process that was killed


def draft_of(target: Path) -> Path:
    """A new folder beside a target, to write into before it takes the target's place."""
    draft = target.with_name(f".{target.name}.partial-{uuid.uuid4().hex[:12]}")
    draft.mkdir(parents=True)
    return draft


def put_in_place(draft: Path, target: Path, check_removable: Callable[[Path], None] | None = None) -> None:
    """Gives a finished draft the name of its target; what stood there is deleted after that, not before.

    Args:
        draft: What `draft_of` made.
        target: Where it goes.
        check_removable: Raises where the folder that it is given must not be deleted. None where the target must be
            free, or an empty folder.

    Raises:
        OSError: It failed; the target is as it was.
    """
    if check_removable is None or not target.exists():
        os.rename(draft, target)  # fails where something has appeared there in the meantime
        flush(target.parent)
        return
    check_removable(target)
    swapped = swap(draft, target)
    old = draft if swapped else target.with_name(draft.name.replace(".partial-", ".replaced-"))
    try:
        if not swapped:
            os.rename(target, old)
            os.rename(draft, target)
        flush(target.parent)
    except BaseException:  # Ctrl-C too: the name goes back to the old one
        if swapped:
            swap(draft, target)
        elif old.exists():
            if target.exists():
                os.rename(target, draft)
            os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def standing_for(target: Path) -> Path:
    """The folder that stands for a name: the one under it, or the old one, where a kill fell between two renames."""
    replaced = [] if os.path.lexists(target) else sorted(_beside(target, "replaced"), key=os.path.getmtime)
    return replaced[-1] if replaced else target


def clear(target: Path) -> None:
    """Removes what a process that was killed has left beside a target."""
    folder = standing_for(target)
    if folder != target:
        os.rename(folder, target)
    for left in [*_beside(target, "partial"), *_beside(target, "replaced")]:
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def swap(one: Path, other: Path) -> bool:
    """Swaps the names of two folders in one step. Returns whether the system can."""
    here, exchange = {"linux": (-100, 2), "darwin": (-2, 2)}.get(sys.platform, (0, 0))  # AT_FDCWD, RENAME_EXCHANGE
    name = {"linux": "renameat2", "darwin": "renameatx_np"}.get(sys.platform)
    function = getattr(ctypes.CDLL(None), name, None) if name else None
    return function is not None and function(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def flush(path: Path) -> None:
    """Waits until a file or folder is on the disk. Windows cannot flush a folder."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(target: Path, kind: str) -> list[Path]:
    return [path for path in target.parent.glob(f".{glob.escape(target.name)}.{kind}-*") if path.is_dir()]
