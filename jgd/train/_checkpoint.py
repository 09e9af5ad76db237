"""States on disk, by orbax."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jgd.core import PyTree, require
from jgd.train._state import TrainState


def save_checkpoint(path: str | Path, state: TrainState) -> Path:
    """Writes a training state to a folder, which is replaced if it exists.

    Args:
        path: The folder.
        state: The state; hyperparameters and key are part of it.

    Returns:
        The folder's absolute path.

    Raises:
        ImportError: orbax is not installed (extra `train`).
    """
    target = Path(path).absolute()
    with _checkpointer() as checkpointer:
        checkpointer.save(target, _without_keys(state), force=True)
    return target


def restore_checkpoint(path: str | Path, like: TrainState) -> TrainState:
    """Reads a training state from a folder.

    Args:
        path: The folder that `save_checkpoint` wrote.
        like: A state of the same structure, as `TrainState.create` makes it; its values are not used.

    Returns:
        The state that was saved, with the dtypes of `like`.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds a state of another structure or other shapes; the message says which.
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
    plain_like = _without_keys(like)
    with _checkpointer() as checkpointer:
        _check_fits(source, checkpointer.metadata(source), plain_like)
        restored = checkpointer.restore(source, jax.tree.map(_abstract, plain_like))
    key = None if like.key is None else _as_key(restored.key, like.key)
    return restored._replace(key=key)


def _checkpointer() -> Any:
    orbax = require("orbax.checkpoint", "train", "a checkpoint")
    return orbax.StandardCheckpointer()


def _without_keys(state: TrainState) -> TrainState:
    """Typed random keys as the integers that they are."""
    if state.key is None or not _is_typed(state.key):
        return state
    return state._replace(key=jax.random.key_data(state.key))


def _as_key(data: Any, like: Any) -> Any:
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(like)) if _is_typed(like) else data


def _is_typed(key: Any) -> bool:
    return jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def _abstract(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None))


def _check_fits(source: Path, metadata: Any, like: PyTree) -> None:
    """Compares names and shapes before anything is read, so that the message can name the leaf."""
    found_tree = getattr(getattr(metadata, "item_metadata", metadata), "tree", None)
    if found_tree is None:
        return
    found = {_plain_path(path): tuple(leaf.shape) for path, leaf in _leaves(found_tree) if hasattr(leaf, "shape")}
    expected = {_plain_path(path): tuple(leaf.shape) for path, leaf in _leaves(like)}
    for name in sorted(found.keys() ^ expected.keys()):
        where, other = ("the checkpoint", "the state") if name in found else ("the state", "the checkpoint")
        raise ValueError(f"checkpoint {source}: {where} has a leaf {name} that {other} lacks.")
    for name, shape in expected.items():
        if found[name] != shape:
            raise ValueError(f"checkpoint {source}: leaf {name} has shape {found[name]}; the state expects {shape}.")


def _leaves(tree: PyTree) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def _plain_path(path: tuple[Any, ...]) -> str:
    """The same text whether a level is a dict, a list or a NamedTuple: on disk they are all dicts."""
    return ".".join(str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path)
