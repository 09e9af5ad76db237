"""Which checkpoint a path means."""

import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from jgd.train.checkpoints._files import CheckpointError, Contents, is_checkpoint, listed, read
from jgd.train.checkpoints._in_place import standing_for

#: How `Checkpoints` names the folders of its checkpoints.
NAME = re.compile(r"(\d+)-step-(\d+)")


class Intact(NamedTuple):
    """A checkpoint that can be read, and those that were passed over because they are damaged."""

    path: Path
    contents: Contents
    damaged: list[Path]


def numbered(folder: Path) -> list[Path]:
    """The checkpoints of a run in a folder, the oldest first."""
    matches = [(NAME.fullmatch(path.name), path) for path in folder.glob("*-step-*")]
    return [path for _, path in sorted((int(match[1]), path) for match, path in matches if match)]


def newest_intact(folder: Path, paths: Iterable[Path]) -> Intact:
    """The first intact one of several checkpoints, with a warning about those before it.

    Args:
        folder: Where they are, for messages.
        paths: The newest first.

    Raises:
        CheckpointError: All of them are damaged.
    """
    damaged: list[Path] = []
    reasons: list[str] = []
    for path in paths:
        try:
            contents = read(path)
        except CheckpointError as error:
            damaged.append(path)
            reasons.append(f"{path.name}: {error.reason}")
            continue
        if damaged:
            listed = "; ".join(reasons)
            warnings.warn(
                f"going on from the checkpoint {path}, as those after it are damaged ({listed}).",
                RuntimeWarning,
                stacklevel=3,
            )
        return Intact(path, contents, damaged)
    listed = "; ".join(reasons)
    raise CheckpointError(
        f"every checkpoint in {folder} is damaged ({listed}). To start anew, move them away (or pass"
        " resume=False to jgd.fit).",
        folder,
        listed,
    )


def find(folder: Path) -> Intact:
    """The checkpoint that a folder is, or the newest intact one of the run whose folder it is.

    Raises:
        FileNotFoundError: There is no such folder, or no checkpoint in it.
        CheckpointError: It is damaged, or all of them are.
    """
    folder = standing_for(folder)
    if is_checkpoint(folder):
        return Intact(folder, read(folder), [])
    if not folder.exists():
        raise FileNotFoundError(f"no checkpoint at {folder}: there is no such folder.")
    if not folder.is_dir():
        raise FileNotFoundError(f"no checkpoint at {folder}: it is a file; a checkpoint is a folder.")
    if paths := numbered(folder):
        return newest_intact(folder, paths[::-1])
    inside = [path.name for path in folder.iterdir()]
    within = listed(name for name in inside if is_checkpoint(folder / name) or numbered(folder / name))
    raise FileNotFoundError(
        f"no checkpoint at {folder}: the folder holds {listed(inside) or 'nothing'}, and neither record.json and"
        " manifest.json, as the folder of a checkpoint, nor <number>-step-<step>, as that of a run."
        + (f" Did you mean what is in it: {within}?" if within else "")
    )
