"""Which parameters of a leaf share a second moment in Adam-mini."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import PyTree, path_text, tree_from

Shape = tuple[int, ...]


class AdamMiniBlocks(NamedTuple):
    """Blocks along one axis of a leaf.

    Attributes:
        axis: The axis; a block takes in all of the others.
        count: How many blocks of neighbors, such as heads, the axis is cut into; None for one at each index.
    """

    axis: int
    count: int | None = None


Blocks = AdamMiniBlocks | Literal["tensor", "element"]


def views(shape: Shape, blocks: Blocks) -> tuple[Shape, Shape]:
    """A shape for the leaf in which one axis counts its blocks, and the same with all of a block's axes one."""
    if isinstance(blocks, str):
        return shape, shape if blocks == "element" else (1,) * len(shape)
    axis = blocks.axis % len(shape)
    cut = (shape[axis],) if blocks.count is None else (blocks.count, shape[axis] // blocks.count)
    view = (*shape[:axis], *cut, *shape[axis + 1 :])
    return view, tuple(size if i == axis else 1 for i, size in enumerate(view))


def adam_mini_blocks(params: PyTree) -> PyTree:
    """The blocks that the paths and shapes of leaves let one guess, where `jgd.adam_mini` is given none.

    Args:
        params: The params, or gradients in their shape.

    Returns:
        A tree of blocks. Leaves of two axes and more get a block for each index of the last axis, a layer's outputs;
        those with `embed`, `embd` or `wte` in their path for each index of the first, the tokens. Leaves of fewer axes
        are one block (`"tensor"`), those with `bias` in their path have none (`"element"`).

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> jgd.adam_mini_blocks({"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)})
        {'bias': 'element', 'kernel': AdamMiniBlocks(axis=-1, count=None)}
    """

    def guess(path: Any, leaf: Any) -> Blocks:
        name = path_text(path).lower()
        if jnp.ndim(leaf) < 2:
            return "element" if "bias" in name else "tensor"
        return AdamMiniBlocks(0 if any(word in name for word in ("embed", "embd", "wte")) else -1)

    return jax.tree_util.tree_map_with_path(guess, params)


def blocks_of(owner: str, params: PyTree, given: Any) -> list[Blocks]:
    """For each leaf its blocks.

    Args:
        owner: The factory's name, for messages.
        params: The params, or gradients in their shape.
        given: A tree of blocks shaped like the params or a prefix, a function from params to one, or None.

    Raises:
        ValueError: Blocks of an unknown kind, or that do not fit their leaf.
    """
    tree = tree_from(adam_mini_blocks if given is None else given, params)
    try:
        spread = jax.tree.map(
            lambda blocks, subtree: [blocks] * len(jax.tree.leaves(subtree)),
            tree,
            params,
            is_leaf=lambda node: isinstance(node, AdamMiniBlocks),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{owner}: the tree of blocks is no prefix of the params: {error}") from None
    found = jax.tree.leaves(spread, is_leaf=lambda node: isinstance(node, AdamMiniBlocks))
    for (path, leaf), blocks in zip(jax.tree_util.tree_flatten_with_path(params)[0], found, strict=True):
        _check(owner, path_text(path), jnp.shape(leaf), blocks)
    return found


def _check(owner: str, where: str, shape: Shape, blocks: Any) -> None:
    message = f"{owner}: the blocks of the leaf at {where}, of shape {shape}, are {blocks!r};"
    if not isinstance(blocks, AdamMiniBlocks):
        if not isinstance(blocks, str) or blocks not in ("tensor", "element"):
            raise ValueError(f"{message} expected 'tensor', 'element' or AdamMiniBlocks(axis, count).")
        return
    if not -len(shape) <= blocks.axis < len(shape):
        raise ValueError(f"{message} expected an axis that the leaf has.")
    if blocks.count is not None and (blocks.count < 1 or shape[blocks.axis] % blocks.count):
        raise ValueError(f"{message} expected a count that divides {shape[blocks.axis]}, the length of the axis.")
