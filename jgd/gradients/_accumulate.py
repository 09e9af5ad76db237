"""The gradient of a batch in several micro-batches: the same result, a fraction of the memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree, is_float, path_text, sum_of_squares


def accumulate_micro_batches(
    run: Callable[[PyTree, PyTree, Array], tuple[Array, PyTree, PyTree, PyTree]],
    batch: PyTree,
    model_state: PyTree,
    count: int,
    *,
    part_norms: bool = False,
) -> Any:
    """Means over `count` equal parts of a batch, one part in memory at a time.

    Args:
        run: `run(micro_batch, model_state, i) -> (loss, grads, model_state, aux)` for the `i`-th part.
        batch: A tree of arrays `[B, ...]`, where `count` divides `B`.
        model_state: Handed to the first part; each part hands its own to the next.
        count: How many parts.
        part_norms: Whether to return the mean of the parts' squared gradient norms as well, for `noise_scale`. The
            parts' gradients are in memory for their sum, and are read for both at once.

    Returns:
        `(loss, grads, model_state, aux)` as the whole batch would give for a loss that is a mean: loss and gradients
        are averaged in float32 or wider. In `aux`, float scalars are averaged, integer scalars summed, and arrays
        joined along their first axis. With `part_norms` one more: the mean over the parts of their gradients' squared
        norms, in float32 or wider.

    Raises:
        ValueError: `count` does not divide the batch, or leaves of the batch differ in length.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import accumulate_micro_batches
        >>> def run(micro_batch, model_state, i):
        ...     return jnp.mean(micro_batch), jnp.mean(2 * micro_batch), model_state, None
        >>> loss, grads, _, _ = accumulate_micro_batches(run, jnp.arange(6.0), None, 3)
        >>> print(loss, grads)
        2.5 5.0
    """
    parts = split_batch(batch, count)

    def body(carry: tuple[Any, Any, Any], item: tuple[Any, Any]) -> tuple[Any, Any]:
        loss_sum, grad_sum, model_state = carry
        i, part = item
        loss, grads, model_state, aux = run(part, model_state, i)
        square = sum_of_squares(filter(is_float, jax.tree.leaves(grads))) if part_norms else None
        carry = (loss_sum + _wide(loss), jax.tree.map(lambda a, g: a + _wide(g), grad_sum, grads), model_state)
        return carry, (aux, square)

    first = jax.tree.map(lambda leaf: leaf[0], parts)
    loss_like, grads_like, _, _ = jax.eval_shape(run, first, model_state, jnp.zeros((), jnp.int32))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, _wide_dtype(leaf.dtype)), (loss_like, grads_like))
    (loss, grads, model_state), (aux, squares) = jax.lax.scan(body, (*zeros, model_state), (jnp.arange(count), parts))
    loss, grads = jax.tree.map(lambda total: (total / count).astype(total.dtype), (loss, grads))
    found = loss, grads, model_state, jax.tree.map(_join, aux)
    return (*found, jnp.mean(squares)) if part_norms else found


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


def _join(stacked: Array) -> Array:
    if stacked.ndim > 1:
        return stacked.reshape(-1, *stacked.shape[2:])
    return jnp.mean(stacked) if jnp.issubdtype(stacked.dtype, jnp.inexact) else jnp.sum(stacked, dtype=stacked.dtype)
