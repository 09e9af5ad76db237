"""One state on disk."""

from pathlib import Path

from jgd.train._checkpoint_files import Contents, orbax, read, write
from jgd.train._leaves import check_fits, host_copy, put_back, table_of
from jgd.train._state import TrainState


def save_checkpoint(path: str | Path, state: TrainState) -> Path:
    """Writes a training state to a folder, which is replaced if it exists.

    The folder is written under another name and renamed when all of it is on the disk, with a checksum for each file.

    Args:
        path: The folder.
        state: The state; hyperparameters and key are part of it.

    Returns:
        The folder's absolute path.

    Raises:
        CheckpointError: It could not be written: a full disk, a folder that may not be written to. What was there
            before is untouched, and so is the state.
        ImportError: orbax is not installed (extra `train`).
    """
    orbax()
    target = Path(path).absolute()
    write(target, Contents(host_copy(state), {"leaves": table_of(state)}, {}))
    return target


def restore_checkpoint(path: str | Path, like: TrainState) -> TrainState:
    """Reads a training state from a folder.

    Args:
        path: The folder that `save_checkpoint` wrote, or one of those that `Checkpoints` keeps.
        like: A state of the same structure, as `TrainState.create` makes it; its values are not used.

    Returns:
        The state that was saved, with the sharding of `like`.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds a state of another structure, other shapes or dtypes; the message names every leaf that
            differs.
        CheckpointError: A file is missing, was cut short or has changed.
        ImportError: orbax is not installed (extra `train`).

    Examples:
        >>> import jax.numpy as jnp, jgd, tempfile
        >>> state = jgd.TrainState.create(jnp.arange(3.0), jgd.adam(1e-3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = jgd.save_checkpoint(folder + "/checkpoint", state)
        ...     restored = jgd.restore_checkpoint(path, like=state)
        >>> print(restored.params)
        [0. 1. 2.]
    """
    source = Path(path).absolute()
    if not source.is_dir():
        raise FileNotFoundError(f"no checkpoint at {source}: expected a folder that save_checkpoint wrote.")
    contents = read(source)
    check_fits(source, contents.record["leaves"], like)
    return put_back(contents.arrays, like)
