r"""Private gradients: clipped example by example, summed, noised.

$$
\tilde g = \frac1B \Bigl( \sum_i g_i \min\bigl(1, \tfrac{C}{\lVert g_i \rVert}\bigr)
    + \mathcal N\bigl(0, \sigma^2 C^2\bigr) \Bigr)
$$

where the examples of a step are a Poisson sample, each drawn with probability $B / N$ independently of the others,
and $B$ is how many that are on average: dividing by the number drawn would give it away.

References:
    - Abadi et al., "Deep learning with differential privacy", https://arxiv.org/abs/1607.00133, 2016, Algorithm 1.
    - Ponomareva et al., "How to DP-fy ML", https://arxiv.org/abs/2303.00654, 2023: what to divide by, what to report.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jgd.core import (
    Array,
    ArrayLike,
    LossFn,
    PyTree,
    Scalar,
    checked,
    compute_dtype,
    gaussian_noise,
    is_float,
    is_traced,
    real_dtype,
)
from jgd.gradients import probes
from jgd.gradients._clipping import ClippedSum, clip_factors
from jgd.gradients._padding import split_mask
from jgd.gradients._reduce import ChunkSize, reduce_per_example
from jgd.gradients._reductions import Norms

#: `(loss, grads, metrics)`.
PrivateGrad = tuple[Array, PyTree, dict[str, Array]]

#: `clipped_sum(params, batch, key) -> (losses, norms, which examples count, sum of gradients)`.
ClippedSumFn = Callable[[PyTree, PyTree, Array], tuple[Array, Array, Array, PyTree]]


@checked
def private_grad(
    max_norm: Scalar,
    noise_multiplier: Scalar,
    expected_batch_size: float,
    *,
    chunk_size: ChunkSize = None,
    keep_batch_dim: bool | None = None,
    with_probes: bool = False,
    random_loss: bool = False,
) -> Callable[[LossFn], Callable[[PyTree, PyTree, Array | None], PrivateGrad]]:
    """Clipped, summed and noised gradients, as `gradient=` of `jgd.make_step`; see `jgd.dp_sgd`.

    Args:
        max_norm: The norm $C$ that each example's gradient is clipped to, above 0.
        noise_multiplier: The deviation of the noise over `max_norm`, at least 0.
        expected_batch_size: $B$: the sampling probability times the number of examples, above 0.
        chunk_size: How many per-example gradients are held at a time; see `jgd.gradients.reduce_per_example`.
        keep_batch_dim: See `jgd.gradients.reduce_per_example`.
        with_probes: The loss is a `losses_fn(params, batch, probe)` of probed operations, whose norms need no
            per-example gradients; see `jgd.gradients.probes`.
        random_loss: Whether the loss takes a key, beside that of the noise. Example `i` of the batch gets
            `fold_in(key, i)`.

    Returns:
        `gradient(loss_fn)`, which returns `grad_fn(params, batch, key) -> (loss, grads, metrics)`. The batch may be
        `Padded`, the key is needed for the noise. `loss` is the mean over the examples there are, and the metrics are
        `clipped`, the share of examples that were clipped, and `examples`, how many there were. These three are not
        private: they are for your eyes, not for publication.

    Raises:
        TypeError: An argument is not a number.
        ValueError: A number is outside its range; probes together with a key for the loss; `grad_fn` called without
            a key.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from jgd.gradients import private_grad
        >>> gradient = private_grad(1.0, 0.0, expected_batch_size=2)
        >>> grad_fn = gradient(lambda w, batch: jnp.mean(0.5 * (w - batch) ** 2))
        >>> loss, grad, metrics = grad_fn(jnp.array(0.0), jnp.array([-0.5, 3.0]), jax.random.key(0))
        >>> print(grad, metrics["clipped"])  # 0.5 and -3, which becomes -1
        -0.25 0.5
    """
    owner = "private_grad"
    for name, value, least in (
        ("max_norm", max_norm, "above 0"),
        ("noise_multiplier", noise_multiplier, "at least 0"),
        ("expected_batch_size", expected_batch_size, "above 0"),
    ):
        if is_traced(value):
            continue
        if not (value >= 0 if least == "at least 0" else value > 0) or not value < float("inf"):
            raise ValueError(f"{owner}: {name} must be a finite number {least}; got {value!r}.")
    if with_probes and (random_loss or keep_batch_dim is not None):
        raise ValueError(f"{owner}: with_probes=True goes with neither random_loss nor keep_batch_dim.")

    def gradient(loss_fn: LossFn) -> Callable[[PyTree, PyTree, Array | None], PrivateGrad]:
        clipped_sum = (
            _by_probes(loss_fn, max_norm, chunk_size)
            if with_probes
            else _by_reduction(loss_fn, max_norm, chunk_size, keep_batch_dim, random_loss)
        )

        def grad_fn(params: PyTree, batch: PyTree, key: Array | None) -> PrivateGrad:
            if key is None:
                raise ValueError(
                    f"{owner}: the noise needs a random key; make the state with TrainState.create(..., key=...), a key"
                    " that nobody else knows."
                )
            loss_key, noise_key = jax.random.split(key)
            losses, norms, used, sums = clipped_sum(params, batch, loss_key)
            count = jnp.sum(used)
            share = jnp.sum(used & (norms > max_norm)) / jnp.maximum(count, 1)
            loss = jnp.sum(losses) / jnp.maximum(count, 1).astype(losses.dtype)
            noised = _noised(sums, noise_key, max_norm * noise_multiplier, expected_batch_size, params)
            return loss, noised, {"clipped": share, "examples": count}

        return grad_fn

    return gradient


def _by_reduction(
    loss_fn: LossFn, max_norm: Scalar, chunk_size: ChunkSize, keep_batch_dim: bool | None, random_loss: bool
) -> ClippedSumFn:
    reductions = {"sum": ClippedSum(max_norm), "norms": Norms()}
    reduce_fn = reduce_per_example(loss_fn, reductions, chunk_size=chunk_size, keep_batch_dim=keep_batch_dim)

    def clipped_sum(params: PyTree, batch: PyTree, key: Array) -> tuple[Array, Array, Array, PyTree]:
        result = reduce_fn(params, batch, key=key if random_loss else None)
        return result.losses, result.results["norms"], result.used, result.results["sum"]

    return clipped_sum


def _by_probes(losses_fn: LossFn, max_norm: Scalar, chunk_size: ChunkSize) -> ClippedSumFn:
    if chunk_size == "auto":
        raise ValueError("private_grad: with_probes=True takes a whole number or None as chunk_size; got 'auto'.")

    def factors(losses: Array, squared: Array) -> Array:
        del losses
        return clip_factors(squared, max_norm)

    weighted_fn = probes.weighted_grad(losses_fn, factors, chunk_size=chunk_size)

    def clipped_sum(params: PyTree, batch: PyTree, key: Array) -> tuple[Array, Array, Array, PyTree]:
        del key
        losses, squared, sums = weighted_fn(params, batch)
        return losses, jnp.sqrt(squared), split_mask("private_grad", batch)[1], sums

    return clipped_sum


def _noised(sums: PyTree, key: Array, deviation: Scalar, count: Scalar, params: PyTree) -> PyTree:
    """Sums with noise, divided, in the dtypes of the params; every leaf from a key of its own."""
    leaves, treedef = jax.tree.flatten(sums)
    likes = jax.tree.leaves(params)
    keys = jax.random.split(key, max(len(leaves), 1))

    def noised(total: Array, key: Array, like: ArrayLike) -> Array:
        if not is_float(total):
            return total
        dtype = compute_dtype(total.dtype)
        noise = gaussian_noise(key, jnp.asarray(deviation, real_dtype(dtype)), total.shape, dtype)
        return ((total.astype(dtype) + noise) / count).astype(jnp.result_type(like))

    return treedef.unflatten(map(noised, leaves, keys, likes))
