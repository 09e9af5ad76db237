r"""Per-example gradient norms, and weighted sums of the gradients, without the gradients.

A weight that multiplies inputs $x$ has the gradient $x \delta^\top$, where $\delta$ is the cotangent of its outputs.
One backward pass gives the $\delta$ of all examples at once, and with them

$$
\lVert g_i \rVert^2 = \lVert x_i \rVert^2 \lVert \delta_i \rVert^2, \qquad
\sum_i w_i g_i = \sum_i x_i (w_i \delta_i)^\top
$$

for a single position; sums over positions and over several uses of a weight are in `_parts`.

References:
    - Goodfellow, "Efficient per-example gradient computations", https://arxiv.org/abs/1510.01799, 2015.
    - Lee and Kifer, "Scaling up differentially private deep learning with fast per-example gradient clipping",
      https://arxiv.org/abs/2009.03106, 2021: weighted sums by a second backward pass.
    - Li, Tramèr, Liang and Hashimoto, "Large language models can be strong differentially private learners",
      https://arxiv.org/abs/2110.05679, 2022: inner products of positions ("ghost clipping").
    - Bu, Wang, Zha and Karypis, "Differentially private optimization on large model at small cost",
      https://arxiv.org/abs/2210.00038, 2022: the sum from the cotangents at hand ("book-keeping").
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree, Scalar, checked, is_traced
from jgd.gradients._clipping import clip_factors
from jgd.gradients._padding import Padded, batch_size
from jgd.gradients.probes._batches import in_chunks, masked, real_examples
from jgd.gradients.probes._passes import (
    LossesFn,
    as_grads,
    book_kept,
    evaluate,
    split_params,
    sum_leaf_norms,
)

WeightsFn = Callable[[Array, Array], Array]
WeightedFn = Callable[[PyTree, PyTree], tuple[Array, Array, PyTree]]


@checked
def norms(losses_fn: LossesFn, *, chunk_size: int | None = None) -> Callable[[PyTree, PyTree], tuple[Array, Array]]:
    """Each example's loss and squared gradient norm, by one backward pass that forms no gradient.

    Args:
        losses_fn: `losses_fn(params, batch, probe) -> losses [B]`, each example's own loss on the whole batch. All
            that it does with its params it does by `probes.dense`, `conv`, `embed`, `scale`, `bias` or `each`, and
            passes them the probe. It is traced twice.
        chunk_size: How many examples to hold at a time; the whole batch unless given.

    Returns:
        `norms_fn(params, batch) -> (losses [B], squared_norms [B])`, compiled at its first call. Norms are over all
        float leaves together, in float32 or wider. The batch may be `Padded`; padded examples have the loss and the
        norm 0.

    Raises:
        ValueError: When called: a leaf used outside of the operations, an operation inside another transformation,
            losses of another shape than `[B]`.
        TypeError: When called: a complex leaf.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import probes
        >>> def losses_fn(w, batch, probe):
        ...     return 0.5 * probes.dense(batch, w, probe)[:, 0] ** 2
        >>> losses, squared = probes.norms(losses_fn)(jnp.array([[2.0]]), jnp.array([[1.0], [3.0]]))
        >>> print(losses, squared)
        [ 2. 18.] [  4. 324.]
    """
    owner = "probes.norms"

    def norms_fn(params: PyTree, batch: PyTree | Padded) -> tuple[Array, Array]:
        split = split_params(owner, params)

        def part(batch: PyTree, mask: Array | None) -> tuple[tuple[Array, ...], list[Array]]:
            tape = evaluate(owner, losses_fn, split, batch)
            return masked((tape.losses, sum_leaf_norms(tape, split.leaves)), mask), []

        return in_chunks(owner, part, *real_examples(owner, batch), chunk_size)[0]

    return jax.jit(norms_fn)


@checked
def clipped_value_and_grad(
    losses_fn: LossesFn,
    max_norm: Scalar,
    *,
    chunk_size: int | None = None,
    keep_cotangents: bool = True,
    with_norms: bool = False,
) -> Callable[[PyTree, PyTree], tuple[Any, PyTree]]:
    r"""The losses of the examples and the mean of their gradients, each clipped to a norm, without the gradients.

    $$
    \frac{1}{B} \sum_i g_i \min\left(1, \frac{C}{\lVert g_i \rVert}\right)
    $$

    Args:
        losses_fn: See `norms`.
        max_norm: $C$, above 0; a number or a scalar array.
        chunk_size: How many examples to hold at a time; the whole batch unless given. The result is the same.
        keep_cotangents: Form the sum from the cotangents of the first backward pass. `False` runs a second one instead,
            for models where it takes less memory; see `probes.weighted_grad`.
        with_norms: Whether to return the squared norms before clipping, too.

    Returns:
        `value_and_grad_fn(params, batch) -> (losses [B], grads)`, as that of `jgd.gradients.clipped_value_and_grad`, or
        `((losses, squared_norms), grads)` with `with_norms`; compiled at its first call. The batch may be `Padded`;
        padded examples weigh nothing, and the mean is over the real ones.

    Raises:
        ValueError: `max_norm` is not above 0; when called, see `norms`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import probes
        >>> def losses_fn(w, batch, probe):
        ...     return 0.5 * probes.dense(batch, w, probe)[:, 0] ** 2
        >>> value_and_grad_fn = probes.clipped_value_and_grad(losses_fn, 4.0)
        >>> losses, grads = value_and_grad_fn(jnp.array([[2.0]]), jnp.array([[1.0], [3.0]]))  # gradients 2 and 18
        >>> print(grads)
        [[3.]]
    """
    owner = "probes.clipped_value_and_grad"
    if jnp.ndim(max_norm) or (not is_traced(max_norm) and not max_norm > 0):
        raise ValueError(f"{owner}: max_norm={max_norm}; expected one number above 0.")

    def factors(losses: Array, squared_norms: Array) -> Array:
        del losses
        return clip_factors(squared_norms, max_norm)

    weighted = _weighted(owner, losses_fn, factors, chunk_size, keep_cotangents, mean=True)

    def value_and_grad_fn(params: PyTree, batch: PyTree | Padded) -> tuple[Any, PyTree]:
        losses, squared_norms, grads = weighted(params, batch)
        return (losses, squared_norms) if with_norms else losses, grads

    return jax.jit(value_and_grad_fn)


@checked
def clipped_grad(
    losses_fn: LossesFn, max_norm: Scalar, *, chunk_size: int | None = None, keep_cotangents: bool = True
) -> Callable[[PyTree, PyTree], PyTree]:
    """The mean of the examples' gradients, each clipped to a norm: `jgd.clipped_grad` by probed operations.

    Args:
        losses_fn: See `norms`.
        max_norm: The norm, above 0; a number or a scalar array.
        chunk_size: How many examples to hold at a time; the whole batch unless given.
        keep_cotangents: See `clipped_value_and_grad`.

    Returns:
        `grad_fn(params, batch) -> grads`, compiled at its first call.

    Raises:
        ValueError: As for `clipped_value_and_grad`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import probes
        >>> def losses_fn(w, batch, probe):
        ...     return 0.5 * probes.dense(batch, w, probe)[:, 0] ** 2
        >>> print(probes.clipped_grad(losses_fn, 4.0)(jnp.array([[2.0]]), jnp.array([[1.0], [3.0]])))
        [[3.]]
    """
    both = clipped_value_and_grad(losses_fn, max_norm, chunk_size=chunk_size, keep_cotangents=keep_cotangents)
    return lambda params, batch: both(params, batch)[1]


@checked
def weighted_grad(
    losses_fn: LossesFn, weights_fn: WeightsFn, *, chunk_size: int | None = None, keep_cotangents: bool = True
) -> WeightedFn:
    r"""Any weighted sum $\sum_i w_i g_i$ of the examples' gradients, with weights from their losses and norms.

    Two ways lead to it. The sum is linear in the cotangents that the norms were made of, so it can be formed from them
    (`keep_cotangents=True`): the arithmetic of the plain gradient and the norms, in the memory of all cotangents.
    Or the loss vector is pulled back a second time, with the weights.

    Args:
        losses_fn: See `norms`.
        weights_fn: `weights_fn(losses, squared_norms) -> weights`, all `[B]`; with `chunk_size` it sees a chunk.
        chunk_size: How many examples to hold at a time; the whole batch unless given.
        keep_cotangents: The first way, or the second.

    Returns:
        `weighted_fn(params, batch) -> (losses [B], squared_norms [B], grads)`, compiled at its first call. The batch
        may be `Padded`; padded examples have a weight of 0 whatever `weights_fn` says.

    Raises:
        ValueError: When called: weights of another shape; for more see `norms`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import probes
        >>> def losses_fn(w, batch, probe):
        ...     return 0.5 * probes.dense(batch, w, probe)[:, 0] ** 2
        >>> weighted_fn = probes.weighted_grad(losses_fn, lambda losses, squared: 1 / jnp.sqrt(squared))
        >>> print(weighted_fn(jnp.array([[2.0]]), jnp.array([[1.0], [3.0]]))[2])  # gradients 2 and 18
        [[2.]]
    """
    return _weighted("probes.weighted_grad", losses_fn, weights_fn, chunk_size, keep_cotangents, mean=False)


def _weighted(
    owner: str, losses_fn: LossesFn, weights_fn: WeightsFn, chunk_size: int | None, keep_cotangents: bool, mean: bool
) -> WeightedFn:
    def weighted_fn(params: PyTree, batch: PyTree | Padded) -> tuple[Array, Array, PyTree]:
        split = split_params(owner, params)
        batch, mask = real_examples(owner, batch)
        count = batch_size(owner, batch) if mask is None else jnp.maximum(jnp.sum(mask), 1)

        def part(batch: PyTree, mask: Array | None) -> tuple[tuple[Array, ...], list[Array]]:
            tape = evaluate(owner, losses_fn, split, batch)
            per_example = masked((tape.losses, sum_leaf_norms(tape, split.leaves)), mask)
            weights = weights_fn(*per_example)
            if jnp.shape(weights) != tape.losses.shape:
                raise ValueError(f"{owner}: weights_fn returned {jnp.shape(weights)}; expected {tape.losses.shape}.")
            weights = masked((weights / count if mean else weights,), mask)[0]
            return per_example, book_kept(tape, split.leaves, weights) if keep_cotangents else tape.pull(weights)

        (losses, squared), sums = in_chunks(owner, part, batch, mask, chunk_size, split.leaves)
        return losses, squared, as_grads(params, split, sums)

    return jax.jit(weighted_fn)
