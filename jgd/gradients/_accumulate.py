"""The gradient of a batch in several micro-batches: the same result, a fraction of the memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree, is_float, path_text, sum_of_squares, tree_where


def accumulate_micro_batches(
    grad_fn: Callable[[PyTree, PyTree, Array], tuple[Array, PyTree, PyTree, PyTree]],
    batch: PyTree,
    model_state: PyTree,
    count: int,
    *,
    part_norms: bool = False,
    weights: Array | None = None,
) -> Any:
    """Means over `count` equal parts of a batch, one part in memory at a time.

    Args:
        grad_fn: `grad_fn(micro_batch, model_state, i) -> (loss, grads, model_state, aux)` for the `i`-th part.
        batch: A tree of arrays `[B, ...]`, where `count` divides `B`.
        model_state: Handed to the first part; each part hands its own to the next.
        count: How many parts.
        part_norms: Whether to return the mean of the parts' squared gradient norms as well, for `noise_scale`. The
            parts' gradients are in memory for their sum, and are read for both at once.
        weights: `[count]`, at least 0, what each part counts for in all means: for a loss that is a mean over what a
            mask lets through, how much that is. A part of weight 0 leaves no trace, even if what it gives is NaN; where
            all weigh 0, they count alike. None where they are alike.

    Returns:
        `(loss, grads, model_state, aux)` as the whole batch would give for a loss that is a mean: loss and gradients
        are averaged in float32 or wider. In `aux`, float scalars are averaged, integer scalars summed, and arrays
        joined along their first axis. With `part_norms` one more: the mean over the parts of their gradients' squared
        norms, in float32 or wider.

    Raises:
        ValueError: `count` does not divide the batch, or leaves of the batch differ in length; `weights` has another
            shape.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import accumulate_micro_batches
        >>> def grad_fn(micro_batch, model_state, i):
        ...     return jnp.mean(micro_batch), jnp.mean(2 * micro_batch), model_state, None
        >>> loss, grads, _, _ = accumulate_micro_batches(grad_fn, jnp.arange(6.0), None, 3)
        >>> print(loss, grads)
        2.5 5.0
    """
    parts = split_batch(batch, count)
    shares = None if weights is None else _shares(weights, count)

    def body(carry: tuple[Any, Any, Any], item: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        loss_sum, grad_sum, old_state = carry
        i, part, share = item
        loss, grads, model_state, aux = grad_fn(part, old_state, i)
        if share is not None:
            model_state = tree_where(share != 0, model_state, old_state)
        square = sum_of_squares(filter(is_float, jax.tree.leaves(grads))) if part_norms else None
        loss, grads = jax.tree.map(lambda x: _weighted(_wide(x), share), (loss, grads))
        return (loss_sum + loss, jax.tree.map(jnp.add, grad_sum, grads), model_state), (aux, square)

    first = jax.tree.map(lambda leaf: leaf[0], parts)
    loss_like, grads_like, _, _ = jax.eval_shape(grad_fn, first, model_state, jnp.zeros((), jnp.int32))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, _wide_dtype(leaf.dtype)), (loss_like, grads_like))
    (loss, grads, model_state), (aux, squares) = jax.lax.scan(
        body, (*zeros, model_state), (jnp.arange(count), parts, shares)
    )
    if shares is None:
        loss, grads = jax.tree.map(lambda total: (total / count).astype(total.dtype), (loss, grads))
    means = loss, grads, model_state, jax.tree.map(lambda rows: _join(rows, shares), aux)
    return (*means, _mean(squares, shares)) if part_norms else means


def split_batch(batch: PyTree, count: int) -> PyTree:
    """`[B, ...] -> [count, B / count, ...]` for every leaf."""
    sizes = {path: jnp.shape(leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(batch)[0]}
    if not sizes:
        raise ValueError(f"accumulate={count}: the batch holds no arrays; expected arrays with a batch axis.")
    first = next(iter(sizes.values()))
    for path, shape in sizes.items():
        where = f"accumulate={count}: the batch leaf at {path_text(path)}"
        if not shape:
            raise ValueError(f"{where} is a scalar; expected an array whose first axis counts examples.")
        if shape[0] != first[0]:
            raise ValueError(f"{where} has {shape[0]} examples; expected {first[0]}, as the first leaf has.")
        if shape[0] % count:
            raise ValueError(f"{where} has {shape[0]} examples; expected a multiple of {count}.")
    return jax.tree.map(lambda leaf: jnp.reshape(leaf, (count, -1, *jnp.shape(leaf)[1:])), batch)


def _wide_dtype(dtype: Any) -> Any:
    return jnp.promote_types(dtype, jnp.float32) if jnp.issubdtype(dtype, jnp.inexact) else dtype


def _wide(x: Array) -> Array:
    return x.astype(_wide_dtype(x.dtype))


def _shares(weights: Array, count: int) -> Array:
    """Weights that add up to one."""
    if jnp.shape(weights) != (count,):
        raise ValueError(
            f"accumulate_micro_batches: weights must have one number for each of {count} parts; got shape"
            f" {jnp.shape(weights)}."
        )
    wide = jnp.asarray(weights, jnp.promote_types(jnp.result_type(weights), jnp.float32))
    total = jnp.sum(wide)
    return jnp.where(total == 0, 1 / count, wide / jnp.where(total == 0, 1, total))


def _weighted(x: Array, share: Array | None) -> Array:
    """`share * x`; 0 for a share of 0, even where `x` is NaN."""
    if share is None or not jnp.issubdtype(x.dtype, jnp.inexact):
        return x
    return jnp.where(share != 0, share.astype(jnp.finfo(x.dtype).dtype) * x, 0)


def _mean(rows: Array, shares: Array | None) -> Array:
    return jnp.mean(rows) if shares is None else jnp.sum(_weighted(rows, shares))


def _join(stacked: Array, shares: Array | None) -> Array:
    if stacked.ndim > 1:
        return stacked.reshape(-1, *stacked.shape[2:])
    if jnp.issubdtype(stacked.dtype, jnp.inexact):
        return _mean(stacked, shares)
    return jnp.sum(stacked, dtype=stacked.dtype)
