"""Small leaves kept in a few vectors from step to step: fewer buffers to hand from one compiled step to the next."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core._arguments import checked
from jgd.core._checks import flatten, path_text
from jgd.core._layouts import LONGEST, SMALL
from jgd.core._types import Array, ArrayTree, PyTree


class PackedError(ValueError):
    """Packed params were given to what looks at whole leaves or at their places in the tree."""


@jax.tree_util.register_pytree_with_keys_class
class Packed:
    """A tree with its small leaves in a few vectors; a pytree itself. Make it with `jgd.pack`.

    Attributes:
        vectors: Small leaves of one dtype end to end, at most 40 to a vector, under names such as `"float32 0"`.
        rest: The other leaves by path, as they were.
        places: Where each leaf of the tree is: `(vector, start, shape)` for one in a vector, a path for another.
        treedef: The structure of the tree.
    """

    def __init__(self, vectors: dict[str, Array], rest: dict[str, Any], places: tuple[Any, ...], treedef: Any):
        self.vectors, self.rest, self.places, self.treedef = vectors, rest, places, treedef

    def __repr__(self) -> str:
        shapes = {name: jnp.shape(vector) for name, vector in self.vectors.items()}
        return f"Packed(vectors={shapes}, rest={list(self.rest)})"

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        """For JAX."""
        keys = jax.tree_util.GetAttrKey("vectors"), jax.tree_util.GetAttrKey("rest")
        return tuple(zip(keys, (self.vectors, self.rest), strict=True)), (self.places, self.treedef)

    @classmethod
    def tree_unflatten(cls, static: Any, children: tuple[Any, ...]) -> "Packed":
        """For JAX."""
        return cls(*children, *static)


@checked
def pack(tree: ArrayTree, like: PyTree = None, *, max_size: int = SMALL) -> PyTree:
    """Puts the small leaves of a tree end to end into vectors.

    A step takes and returns every leaf of its state as a buffer of its own, which costs microseconds each. Packed, a
    thousand leaves are twenty-five. `make_step` unpacks the params inside the loss and nowhere else, so that the update
    of an elementwise rule is one loop over each vector.

    Args:
        tree: Params; or, with `like`, a tree that holds several trees of the structure of `like`, such as a
            `jgd.TrainState`, each of which is packed.
        like: The params; None where `tree` is them.
        max_size: Leaves with at most so many entries are packed.

    Returns:
        The tree with `Packed` in place of the params. Nothing is lost: `jgd.unpack` gives the same arrays back. What is
        not packed is not copied either: once a step has reused the memory of one of both states, the other is gone.

    Raises:
        ValueError: `tree` holds no tree of the structure of `like`, or `max_size` is negative.
        TypeError: A leaf is not an array.

    Optimizers whose rule looks at a whole leaf or at its place in the tree (matrices, norms of leaves, masks, groups)
    refuse packed params, since packing would change what they do.

    Examples:
        >>> import jax, jax.numpy as jnp, jgd
        >>> params = {"bias": jnp.zeros(3), "kernel": jnp.ones((200, 100)), "scale": jnp.ones(2)}
        >>> packed = jgd.pack(params)
        >>> packed
        Packed(vectors={'float32 0': (5,)}, rest=["['kernel']"])
        >>> optimizer = jgd.adamw(1e-3)
        >>> state = jgd.TrainState.create(packed, optimizer)
        >>> step = jgd.make_step(lambda params, batch: jnp.sum(params["bias"] - batch) ** 2, optimizer)
        >>> state, metrics = step(state, jnp.ones(3))
        >>> print(jgd.unpack(state).params["bias"].round(4))
        [0.001 0.001 0.001]
    """
    if max_size < 0:
        raise ValueError(f"pack: max_size must be at least 0; got {max_size}.")
    if like is None:
        return _pack(tree, max_size)
    structure = jax.tree.structure(like)
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(like)]

    def matches(node: Any) -> bool:
        return jax.tree.structure(node) == structure and [jnp.shape(leaf) for leaf in jax.tree.leaves(node)] == shapes

    nodes, treedef = jax.tree.flatten(tree, is_leaf=matches)
    if not any(map(matches, nodes)):
        raise ValueError("pack: the tree holds no tree of the structure and shapes of like.")
    return treedef.unflatten(_pack(node, max_size) if matches(node) else node for node in nodes)


@checked
def unpack(tree: PyTree) -> PyTree:
    """The inverse of `jgd.pack`, for every packed tree that `tree` is or holds.

    Args:
        tree: Any tree: packed params or gradients, a state of an optimizer for packed params, a `jgd.TrainState`.

    Returns:
        The tree as it would be without packing.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> print(jgd.unpack(jgd.pack({"a": jnp.ones(2), "b": jnp.zeros(())})))
        {'a': Array([1., 1.], dtype=float32), 'b': Array(0., dtype=float32)}
    """
    return jax.tree.map(lambda node: _unpack(node) if isinstance(node, Packed) else node, tree, is_leaf=_is_packed)


def holds_packed(tree: PyTree) -> bool:
    """Whether the tree is packed, or a part of it."""
    return any(map(_is_packed, jax.tree.leaves(tree, is_leaf=_is_packed)))


def refuse_packed(owner: str, tree: PyTree, why: str) -> None:
    """Raises PackedError for a packed tree."""
    if holds_packed(tree):
        raise PackedError(f"{owner}: {why}, which packed params hide; expected params that jgd.pack did not pack.")


def _is_packed(node: Any) -> bool:
    return isinstance(node, Packed)


def _pack(tree: PyTree, max_size: int) -> Packed:
    paths, leaves, treedef = flatten(tree)
    vectors: dict[str, list[Array]] = {}
    filled: dict[str, int] = {}
    counts: dict[str, int] = {}
    rest: dict[str, Any] = {}
    places: list[Any] = []
    for path, leaf in zip(paths, leaves, strict=True):
        dtype, shape = jnp.result_type(leaf), jnp.shape(leaf)
        size = math.prod(shape)
        if size > max_size or not jnp.issubdtype(dtype, jnp.inexact):
            rest[path_text(path)] = leaf
            places.append(path_text(path))
            continue
        count = counts.get(dtype.name, 0)
        counts[dtype.name] = count + 1
        name = f"{dtype.name} {count // LONGEST}"
        places.append((name, filled.get(name, 0), shape))
        filled[name] = filled.get(name, 0) + size
        vectors.setdefault(name, []).append(jnp.asarray(leaf).ravel())
    return Packed({name: jnp.concatenate(parts) for name, parts in vectors.items()}, rest, tuple(places), treedef)


def _unpack(packed: Packed) -> PyTree:
    starts: dict[str, list[int]] = {}
    for place in packed.places:
        if not isinstance(place, str):
            starts.setdefault(place[0], []).append(place[1])
    parts = {name: iter(_split(packed.vectors[name], where[1:])) for name, where in starts.items()}
    return packed.treedef.unflatten(
        packed.rest[place] if isinstance(place, str) else _shaped(next(parts[place[0]]), place[2])
        for place in packed.places
    )


def _split(vector: Any, where: list[int]) -> list[Any]:
    # NumPy's arrays stay on the host: a checkpoint may be looked at without a device.
    return (np if isinstance(vector, np.ndarray) else jnp).split(vector, where, axis=-1)


def _shaped(part: Any, shape: tuple[int, ...]) -> Any:
    """With the leaf's own axes, behind those that a `vmap` has put in front."""
    return part.reshape(part.shape[:-1] + shape)
