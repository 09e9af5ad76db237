r"""Which examples matter to training: the norms of their gradients and of their errors.

References:
    - Paul, Ganguli and Dziugaite, "Deep Learning on a Data Diet: Finding Important Examples Early in Training",
      https://arxiv.org/abs/2107.07075, 2021.
"""

import jax
import jax.numpy as jnp

from jgd.core import Array, ArrayLike, ArrayTree, LossFn, checked
from jgd.gradients._example_loss import Key
from jgd.gradients._reduce import ChunkSize, reduce_per_example
from jgd.gradients._reductions import Norms


@checked
def grand_scores(
    loss_fn: LossFn,
    params: ArrayTree,
    batch: ArrayTree,
    *,
    models: bool = False,
    chunk_size: ChunkSize = None,
    keep_batch_dim: bool | None = None,
    memory: int | None = None,
    key: Key | None = None,
    ids: ArrayLike | None = None,
) -> Array:
    r"""GraNd: the expected norm of each example's gradient, $\mathbb E \lVert \nabla_w \ell(x_i) \rVert$.

    The expectation is over models trained from several seeds, a few epochs each; the score from one is noisy.

    Args:
        loss_fn: `loss_fn(params, batch[, key]) -> loss`, a scalar, as for `jgd.make_step`; called with one
            example.
        params: Where the gradients are taken.
        batch: A tree of arrays `[B, ...]`, or a `Padded` one.
        models: Whether the leaves of `params` have one more axis in front, `[S, ...]`, of models to average over. They
            are run one after the other.
        chunk_size: How many gradients are held at a time; see `jgd.gradients.reduce_per_example`.
        keep_batch_dim: Whether the loss is given a batch of one, `[1, ...]`, or the example without that axis. By
            default a batch of one, and the example itself where the loss takes no batch of one.
        memory: With `chunk_size="auto"`: the budget in bytes.
        key: A key for losses that take one.
        ids: What is folded into the key for each example.

    Returns:
        `[B]`, float32 or wider; zero in rows of padding.

    Raises:
        TypeError, ValueError: As for `jgd.gradients.reduce_per_example`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import grand_scores
        >>> def loss_fn(w, batch):
        ...     return jnp.mean((w - batch) ** 2)
        >>> print(grand_scores(loss_fn, jnp.array(1.0), jnp.array([1.0, 3.0])))
        [0. 4.]
        >>> print(grand_scores(loss_fn, jnp.array([1.0, 2.0]), jnp.array([1.0, 3.0]), models=True))
        [1. 3.]
    """
    reduce_fn = reduce_per_example(
        loss_fn, Norms(), chunk_size=chunk_size, keep_batch_dim=keep_batch_dim, memory=memory
    )
    if not models:
        return reduce_fn(params, batch, key=key, ids=ids).results
    return jnp.mean(jax.lax.map(lambda model: reduce_fn(model, batch, key=key, ids=ids).results, params), axis=0)


@checked
def el2n_scores(logits: Array, labels: Array) -> Array:
    r"""EL2N: the norm of each example's error vector, $\lVert \operatorname{softmax}(z_i) - y_i \rVert$.

    Args:
        logits: `[B, C]`, or `[S, B, C]` of S models, whose scores are averaged.
        labels: Integers `[B]`, or probabilities `[B, C]`.

    Returns:
        `[B]`, from 0 to the root of 2, float32 or wider.

    Raises:
        ValueError: Shapes that do not fit.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import el2n_scores
        >>> print(el2n_scores(jnp.array([[0.0, 0.0], [0.0, 9.0]]), jnp.array([0, 1])).round(3))
        [0.707 0.   ]
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    if logits.ndim not in (2, 3) or labels.shape not in (logits.shape[-2:-1], logits.shape[-2:]):
        raise ValueError(
            f"el2n_scores: logits have shape {logits.shape} and labels {labels.shape}; expected [B, C] or"
            " [S, B, C], and [B] or [B, C]."
        )
    probabilities = jax.nn.softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), axis=-1)
    targets = jax.nn.one_hot(labels, logits.shape[-1]) if labels.ndim == 1 else labels
    scores = jnp.linalg.norm(probabilities - targets, axis=-1)
    return jnp.mean(scores, axis=0) if logits.ndim == 3 else scores
