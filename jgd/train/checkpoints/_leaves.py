"""The leaves of a state by name: copied to the host, compared with another state, and put back."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import PyTree, check_arrays, path_keys

#: Name to shape and dtype, as JSON holds them.
Table = dict[str, tuple[list[int], str]]


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Leaves by name, in the order of the tree; `params.dense.kernel`, whatever the containers are."""
    named: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        unique = ".".join(map(str, path_keys(path))) or "root"
        while unique in named:  # the keys 1 and "1" of one dict
            unique += "'"
        named[unique] = leaf
    return named


def table_of(tree: PyTree) -> Table:
    """Shape and dtype of every leaf. A typed key's dtype says which generator it belongs to."""
    return {name: (list(np.shape(leaf)), str(_dtype(leaf))) for name, leaf in named_leaves(tree).items()}


def check_leaves(owner: str, argument: str, tree: PyTree) -> None:
    """Refuses anything but a tree of arrays.

    Raises:
        TypeError: A leaf is not an array, or there are no leaves.
    """
    check_arrays(f"{owner}: {argument}", tree)
    if not jax.tree.leaves(tree):
        raise TypeError(f"{owner}: {argument} must be a TrainState or another tree of arrays; got {tree!r}.")


def host_copy(tree: PyTree) -> dict[str, np.ndarray]:
    """Copies of all leaves in the host's memory, which no later step can overwrite; keys as the integers they are.

    Raises:
        ValueError: A leaf is spread over several processes.
    """
    leaves = {name: jax.random.key_data(leaf) if _is_key(leaf) else leaf for name, leaf in named_leaves(tree).items()}
    for name, leaf in leaves.items():
        if isinstance(leaf, jax.Array):
            if not leaf.is_fully_addressable:
                raise ValueError(f"checkpoint: the leaf {name} is spread over several processes; expected one process.")
            leaf.copy_to_host_async()  # all transfers at once
    return {name: _to_host(leaf) for name, leaf in leaves.items()}


def put_back(arrays: dict[str, np.ndarray], like: PyTree) -> PyTree:
    """The tree of `like` with other values, on the devices and with the sharding of its leaves."""
    leaves = [_place(arrays[name], leaf) for name, leaf in named_leaves(like).items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def check_fits(source: Path, saved: Table, like: PyTree, what: str = "the state") -> None:
    """Compares what a checkpoint holds with what a state expects.

    Args:
        source: The checkpoint, for messages.
        saved: What it holds.
        like: What is expected.
        what: What `like` is called in messages.

    Raises:
        ValueError: They differ; the message names every leaf that does.
    """
    expected = table_of(like)
    lines = [f"the checkpoint has a leaf {name} that {what} lacks" for name in saved if name not in expected]
    lines += [f"{what} has a leaf {name} that the checkpoint lacks" for name in expected if name not in saved]
    for name in expected.keys() & saved.keys():
        (saved_shape, saved_dtype), (shape, dtype) = saved[name], expected[name]
        if tuple(saved_shape) != tuple(shape):
            lines.append(f"leaf {name} has shape {tuple(saved_shape)}; {what} expects {tuple(shape)}")
        if saved_dtype != dtype:
            lines.append(f"leaf {name} has dtype {saved_dtype}; {what} expects {dtype}")
    if lines:
        listed = "".join(f"\n  {line}" for line in sorted(lines))
        raise ValueError(f"checkpoint {source} does not fit {what} given:{listed}")


def _dtype(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(_dtype(leaf), jax.dtypes.prng_key)


def _to_host(leaf: Any) -> np.ndarray:
    host = np.asarray(leaf)
    # On a CPU the host's array is the device's own memory, which the next step may reuse.
    on_host = not isinstance(leaf, jax.Array) or all(device.platform == "cpu" for device in leaf.devices())
    return host.copy() if on_host else host


def _place(value: np.ndarray, like: Any) -> Any:
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.array(value), impl=_generator_of(like))
    sharding = getattr(like, "sharding", None)
    # A leaf that was free to move between devices stays free.
    if sharding is None or (isinstance(like, jax.Array) and not like.committed):
        return jnp.array(value)
    return jax.device_put(value, sharding)


def _generator_of(key: Any) -> Any:
    """The generator that a key, or the shape of one, belongs to."""
    generators: list[Any] = []
    jax.eval_shape(lambda traced: generators.append(jax.random.key_impl(traced)), key)
    return generators[0]
