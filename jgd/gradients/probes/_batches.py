"""Batches with and without padding, at once and in chunks."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree, compute_dtype
from jgd.gradients._padding import Padded, batch_size, real_rows, split_mask


def real_examples(owner: str, batch: PyTree | Padded) -> tuple[PyTree, Array | None]:
    """A batch whose padding is replaced by a real example, and the mask, or `None` where nothing is padded.

    Raises:
        ValueError, TypeError: The mask does not fit the batch, or the leaves do not agree in B.
    """
    if not isinstance(batch, Padded):
        batch_size(owner, batch)
        return batch, None
    batch, mask = split_mask(owner, batch)
    return real_rows(batch, mask), mask


def masked(per_example: tuple[Array, ...], mask: Array | None) -> tuple[Array, ...]:
    """Numbers of all examples, zero for padding."""
    return per_example if mask is None else tuple(jnp.where(mask, values, 0) for values in per_example)


def in_chunks(
    owner: str,
    chunk_fn: Callable[[PyTree, Array | None], tuple[Any, list[Array]]],
    batch: PyTree,
    mask: Array | None,
    chunk_size: int | None,
    summed: Sequence[Array] = (),
) -> tuple[Any, list[Array]]:
    """Runs `chunk_fn(batch, mask) -> (per example [B], list of sums)` on one chunk of a batch after the other.

    Args:
        owner: For messages.
        chunk_fn: What runs on a chunk.
        batch: Its leaves are `[B, ...]`.
        mask: Which examples are real; `None` says all.
        chunk_size: How many examples make a chunk; `None` runs the whole batch at once.
        summed: Arrays of the shapes and dtypes of the sums, which are added up in float32 or wider.

    Returns:
        What the examples gave, joined, and the sums added up.

    Raises:
        ValueError: `chunk_size` is below 1.
    """
    if chunk_size is None:
        return chunk_fn(batch, mask)
    if chunk_size < 1:
        raise ValueError(f"{owner}: chunk_size={chunk_size}; expected at least 1, or None for the whole batch.")
    size = batch_size(owner, batch)
    count = -(-size // chunk_size)
    places = jnp.arange(count * chunk_size)
    real = (places < size) if mask is None else (places < size) & mask[places % size]
    places, real = (array.reshape(count, chunk_size) for array in (places % size, real))

    def body(sums: Any, chunk: Any) -> tuple[Any, Any]:
        places, real = chunk
        per_example, chunk_sums = chunk_fn(jax.tree.map(lambda leaf: jnp.asarray(leaf)[places], batch), real)
        return [total + part.astype(total.dtype) for total, part in zip(sums, chunk_sums, strict=True)], per_example

    zeros = [jnp.zeros(leaf.shape, compute_dtype(leaf.dtype)) for leaf in summed]
    sums, per_example = jax.lax.scan(body, zeros, (places, real))
    sums = [total.astype(leaf.dtype) for total, leaf in zip(sums, summed, strict=True)]
    return jax.tree.map(lambda leaf: leaf.reshape(-1)[:size], per_example), sums
