"""Batches padded to one shape, and a mask of the real examples."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import Array, ArrayTree, PyTree, checked, path_text


class Padded(NamedTuple):
    """A batch in which not every example is real.

    Attributes:
        batch: A tree of arrays `[B, ...]`.
        mask: bool `[B]`, True where the example is real. What stands in the other rows does not matter.
    """

    batch: PyTree
    mask: Array | np.ndarray


class PoissonSample(Padded):
    """A `Padded` batch that holds every example with the same probability, independently of the others.

    `jgd.PoissonLoader` draws such, and `jgd.dp_sgd` asks for them. It is a pytree of `batch` and `mask`; how it was
    drawn is not part of the arrays.

    Attributes:
        expected_batch_size: How many real examples there are on average; None where it is not known.

    Examples:
        >>> import numpy as np
        >>> from jgd.gradients import PoissonSample
        >>> drawn = np.random.default_rng(0).random(100) < 0.04
        >>> print(PoissonSample.drawn({"x": np.arange(100)}, drawn, 4).expected_batch_size)
        4.0
    """

    expected_batch_size: float | None = None

    @classmethod
    def drawn(cls, batch: PyTree, mask: Array | np.ndarray, expected_batch_size: float | None) -> "PoissonSample":
        """A sample, and how many examples it has on average: the probability times the number of examples."""
        sample = cls(batch, mask)
        sample.expected_batch_size = None if expected_batch_size is None else float(expected_batch_size)
        return sample


def _as_drawn(expected_batch_size: float | None, parts: Any) -> PoissonSample:
    batch, mask = parts
    return PoissonSample.drawn(batch, mask, expected_batch_size)


jax.tree_util.register_pytree_with_keys(
    PoissonSample,
    lambda sample: (
        ((jax.tree_util.GetAttrKey("batch"), sample.batch), (jax.tree_util.GetAttrKey("mask"), sample.mask)),
        sample.expected_batch_size,
    ),
    _as_drawn,
)


@checked
def pad_batch(batch: ArrayTree | Padded, size: int) -> Padded:
    """A batch of `size` examples, of which those that are added do not count.

    Args:
        batch: A tree of arrays `[B, ...]` with B at most `size`, or a `Padded` one, whose mask goes on.
        size: How many examples there are to be.

    Returns:
        `Padded(batch, mask)`. The added rows are copies of the last one, which no loss finds strange; zeros where the
        batch is empty.

    Raises:
        ValueError: There are more examples than `size`; leaves differ in length, or there are none.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import pad_batch
        >>> padded = pad_batch({"x": jnp.array([1.0, 2.0])}, 4)
        >>> print(padded.batch["x"], padded.mask)
        [1. 2. 2. 2.] [ True  True False False]
    """
    batch, mask = split_mask("pad_batch", batch)
    count = mask.shape[0]
    if count > size:
        raise ValueError(f"pad_batch: the batch has {count} examples; expected at most size={size}.")
    return Padded(
        jax.tree.map(lambda leaf: _extended(jnp.asarray(leaf), size), batch),
        jnp.concatenate([mask, jnp.zeros(size - count, bool)]),
    )


def split_mask(owner: str, batch: PyTree | Padded) -> tuple[PyTree, Array]:
    """A batch, and the mask of its real examples, which is full where none was given.

    Raises:
        TypeError: The mask does not hold booleans.
        ValueError: The mask is not `[B]`, or the leaves do not agree in B.
    """
    if not isinstance(batch, Padded):
        return batch, jnp.ones(batch_size(owner, batch), bool)
    size = batch_size(owner, batch.batch)
    shape, dtype = jnp.shape(batch.mask), jnp.result_type(batch.mask)
    if shape != (size,):
        raise ValueError(
            f"{owner}: the mask of the padded batch has shape {shape}; expected ({size},), one an example."
        )
    if dtype != jnp.bool_:
        raise TypeError(f"{owner}: the mask of the padded batch has dtype {dtype}; expected bool, True where real.")
    return batch.batch, jnp.asarray(batch.mask)


def batch_size(owner: str, batch: PyTree) -> int:
    """How many examples a batch holds.

    Raises:
        ValueError: It has no leaves, one of them is a scalar, or they differ in length.
    """
    first: tuple[str, int] | None = None
    for path, leaf in jax.tree_util.tree_flatten_with_path(batch)[0]:
        where, shape = f"{owner}: the batch leaf at {path_text(path)}", jnp.shape(leaf)
        if not shape:
            raise ValueError(f"{where} is a scalar; expected an array whose first axis counts examples.")
        first = first or (path_text(path), shape[0])
        if shape[0] != first[1]:
            raise ValueError(f"{where} has {shape[0]} examples; expected {first[1]}, as the leaf at {first[0]} has.")
    if first is None:
        raise ValueError(f"{owner}: the batch holds no arrays; expected arrays whose first axis counts examples.")
    return first[1]


def real_rows(batch: PyTree, real: Array) -> PyTree:
    """The batch with a copy of its first real example in place of each row that is not: NaN there harms no sum."""
    first = jnp.argmax(real)

    def fill(leaf: Any) -> Any:
        chosen = real.reshape(-1, *[1] * (jnp.ndim(leaf) - 1))
        return jnp.where(chosen, leaf, leaf[first])

    return jax.tree.map(fill, batch)


def _extended(leaf: Array, size: int) -> Array:
    missing = size - leaf.shape[0]
    if not missing:
        return leaf
    if not leaf.shape[0]:
        return jnp.zeros((size, *leaf.shape[1:]), leaf.dtype)
    return jnp.concatenate([leaf, jnp.broadcast_to(leaf[-1:], (missing, *leaf.shape[1:]))])
