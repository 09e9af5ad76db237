"""Paths that users pass."""

import os
import tempfile
from pathlib import Path


def as_path(owner: str, argument: str, value: str | os.PathLike[str]) -> Path:
    """The absolute path of what a user passed; `~` is the home.

    Args:
        owner: The function that was called, for messages.
        argument: The name of its argument.
        value: Text or a `pathlib.Path`, absolute or from the working folder.

    Raises:
        TypeError: It is not a path.
        ValueError: It is empty, or its `~user` has no home.
        FileNotFoundError: It is relative, and the working folder was deleted.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str):
        raise TypeError(f"{owner}: {argument} must be a path, as text or pathlib.Path; got a {type(value).__name__}.")
    if not text or "\0" in text:
        raise ValueError(f"{owner}: {argument}={text!r} is not a path; expected the name of a file or folder.")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{owner}: {argument}={text!r}: that user has no home folder.") from error
    except FileNotFoundError as error:
        raise reworded(error, f"{owner}: {argument}={text!r} is relative, and the working folder is gone") from error


def make_folder(owner: str, argument: str, folder: Path) -> None:
    """Makes a folder and those above it, where they are not there, and tries to write to it.

    Raises:
        OSError: It cannot be made or written to; the message says so in words.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise reworded(error, f"{owner}: {argument}: cannot make the folder {folder}") from error
    try:
        with tempfile.NamedTemporaryFile(prefix=".jgd-", dir=folder) as probe:
            probe.write(b"jgd")
    except OSError as error:
        raise reworded(error, f"{owner}: {argument}: cannot write to the folder {folder}") from error


def reworded(error: OSError, what: str) -> OSError:
    """An error of the same type that says what failed, and why."""
    new = type(error)(f"{what} ({error.strerror or error}).")
    new.errno = error.errno
    return new
