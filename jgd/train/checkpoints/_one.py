"""One state on disk."""

import warnings
from pathlib import Path
from typing import Any, overload

from jgd.core import PyTree
from jgd.train._state import TrainState
from jgd.train.checkpoints._files import Contents, check_replaceable, is_checkpoint, listed, orbax, write
from jgd.train.checkpoints._in_place import clear
from jgd.train.checkpoints._leaves import check_fits, check_leaves, host_copy, put_back
from jgd.train.checkpoints._paths import as_path, reworded
from jgd.train.checkpoints._record import record_of
from jgd.train.checkpoints._search import Intact, find, numbered


def save_checkpoint(path: str | Path, state: TrainState, *, overwrite: bool = False) -> Path:
    """Writes a training state to a folder.

    It is written under another name, with a checksum for each file, and takes its place when all of it is on the disk.
    With `overwrite` that is the place of the checkpoint before, which is deleted thereafter: a process that is killed
    at any moment leaves the one or the other. Nothing but a checkpoint of this function's is ever replaced.

    Args:
        path: The folder, `~` being the home; the folders above it are made. It must not be there, or be empty. A
            link is followed. One process writes to it at a time.
        state: The state; hyperparameters and key are part of it.
        overwrite: Whether to replace a checkpoint that is there already.

    Returns:
        The folder's absolute path.

    Raises:
        FileExistsError: There is a checkpoint, and `overwrite` is False; or there is something that is no checkpoint
            of this function's: a file, a folder with other things in it, the checkpoints of a run. It is left alone.
        CheckpointError: It could not be written: a full disk, a folder that may not be written to. What was there
            before is untouched, and so is the state.
        TypeError, ValueError: `path` is not a path, or `state` not a tree of arrays.
        ImportError: orbax is not installed (extra `train`).

    Examples:
        >>> import jax.numpy as jnp, jgd, tempfile
        >>> state = jgd.TrainState.create(jnp.arange(3.0), jgd.adam(1e-3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = jgd.save_checkpoint(folder + "/checkpoint", state)
        ...     path = jgd.save_checkpoint(path, state, overwrite=True)
        >>> print(path.name)
        checkpoint
    """
    place = as_path("save_checkpoint", "path", path)
    if not isinstance(overwrite, bool):
        raise TypeError(f"save_checkpoint: overwrite must be True or False; got {overwrite!r}.")
    check_leaves("save_checkpoint", "state", state)
    orbax()
    try:
        target = place.resolve()
        clear(target)
        _refuse_occupied(target, overwrite)
    except FileExistsError:
        raise
    except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself
        reason = error if isinstance(error, OSError) else OSError(str(error))
        raise reworded(reason, f"save_checkpoint: cannot look at {place}") from error
    write(target, Contents(host_copy(state), record_of(state), {}), overwrite=overwrite)
    return place


def restore_checkpoint(path: str | Path, like: TrainState) -> TrainState:
    """Reads a training state from a folder.

    Args:
        path: The folder that `save_checkpoint` wrote; or that of a run, `fit`'s `checkpoint_dir` or that of
            `Checkpoints`, of which the newest checkpoint is taken, and the one before, with a warning, where that is
            damaged; or one of the checkpoints in it.
        like: A state of the same structure, as `TrainState.create` makes it; its values are not used.

    Returns:
        The state that was saved, with the sharding of `like`.

    Raises:
        FileNotFoundError: There is no such folder, or no checkpoint in it.
        ValueError: It holds a state of another structure, other shapes or dtypes; the message names every leaf that
            differs. For params alone there is `restore_params`.
        CheckpointError: A file is missing, was cut short or has changed.
        TypeError: `path` is not a path, or `like` not a tree of arrays.
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
    check_leaves("restore_checkpoint", "like", like)
    source, contents, _ = _find("restore_checkpoint", path)
    try:
        check_fits(source, contents.record["leaves"], like)
    except ValueError as error:
        if isinstance(like, TrainState):
            error.add_note("For the params alone, whatever the optimizer was: jgd.restore_params(path, params).")
        raise
    return put_back(contents.arrays, like)


@overload
def restore_params(path: str | Path, like: PyTree) -> PyTree: ...
@overload
def restore_params(path: str | Path, like: PyTree, model_state: PyTree) -> tuple[PyTree, PyTree]: ...
def restore_params(path: str | Path, like: PyTree, model_state: PyTree = None) -> Any:
    """Reads only the params of a training state, for inference or to go on with another optimizer.

    Args:
        path: A folder, as for `restore_checkpoint`: of one checkpoint, or of a run, whose newest is taken.
        like: Params of the same structure; their values are not used. Arrays, or shapes and dtypes as
            `jax.eval_shape(init, key)` gives them.
        model_state: What the model itself remembers, such as the averages of batch norm, likewise. None to leave it.

    Returns:
        The params, with the sharding of `like`; `(params, model_state)` where a model state was asked for.

    Raises:
        FileNotFoundError: There is no such folder, or no checkpoint in it.
        ValueError: The params, or the model state, have another structure, other shapes or dtypes; the message names
            every leaf that differs.
        CheckpointError: A file is missing, was cut short or has changed.
        TypeError: `path` is not a path, or `like` not a tree of arrays.
        ImportError: orbax is not installed (extra `train`).

    Warns:
        UserWarning: The optimizer kept other params to evaluate, an average say. They follow from its state:
            `jgd.eval_params(state.opt_state, state.params)` of what `restore_checkpoint` returns.

    Examples:
        >>> import jax.numpy as jnp, jgd, tempfile
        >>> params = {"w": jnp.arange(3.0)}
        >>> state = jgd.TrainState.create(params, jgd.adam(1e-3), key=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = jgd.save_checkpoint(folder + "/checkpoint", state)
        ...     restored = jgd.restore_params(path, params)
        >>> print(restored)
        {'w': Array([0., 1., 2.], dtype=float32)}
    """
    parts = {"params": like} if model_state is None else {"params": like, "model_state": model_state}
    for name, tree in parts.items():
        if isinstance(tree, TrainState):
            raise TypeError(f"restore_params: expected {name}; got a TrainState. Pass its .{name}.")
        check_leaves("restore_params", "like" if name == "params" else name, tree)
    source, contents, _ = _find("restore_params", path)
    if not any(name.split(".")[0] == "params" for name in contents.record["leaves"]):
        raise ValueError(f"restore_params: {source} holds another tree than a TrainState, so it has no params.")
    for name, tree in parts.items():
        saved = {leaf: table for leaf, table in contents.record["leaves"].items() if leaf.split(".")[0] == name}
        check_fits(source, saved, {name: tree}, f"the tree of {name}")
    if contents.record.get("averages"):
        warnings.warn(
            "restore_params: the optimizer of this run keeps other params to evaluate, such as an average, which its"
            " state is needed for: state = jgd.restore_checkpoint(path, like), then"
            " jgd.eval_params(state.opt_state, state.params). These are the params in training.",
            UserWarning,
            stacklevel=2,
        )
    restored = put_back(contents.arrays, parts)
    return restored["params"] if model_state is None else (restored["params"], restored["model_state"])


def _find(owner: str, path: str | Path) -> Intact:
    source = as_path(owner, "path", path)
    orbax()
    try:
        return find(source)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise reworded(error, f"{owner}: cannot read {source}") from error


def _refuse_occupied(target: Path, overwrite: bool) -> None:
    """Refuses a target where something stands that is not to be replaced.

    Raises:
        FileExistsError: It does; the message says what.
    """
    if not target.is_symlink() and not target.exists():
        return
    if not target.is_dir():
        raise FileExistsError(f"save_checkpoint: {target} is a file, and is left as it is; expected a folder.")
    if Path.cwd().is_relative_to(target):
        raise FileExistsError(f"save_checkpoint: {target} is the working folder, or holds it; expected another.")
    inside = [path.name for path in target.iterdir()]
    if not inside:
        return
    if not is_checkpoint(target):
        several = " the checkpoints of a run," if numbered(target) else ""
        raise FileExistsError(
            f"save_checkpoint: the folder {target} is not a checkpoint, and is left as it is, also with overwrite=True:"
            f" it holds{several} {listed(inside)}. Give a name that is free, such as {target / 'checkpoint'}."
        )
    check_replaceable(target)
    if not overwrite:
        raise FileExistsError(
            f"save_checkpoint: there is a checkpoint at {target} already. Pass overwrite=True to replace it, or give"
            " another name."
        )
