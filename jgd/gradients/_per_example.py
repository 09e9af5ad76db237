"""Per-example gradients: all of them, or the mean of the clipped ones.

References:
    - Abadi et al., "Deep Learning with Differential Privacy", https://arxiv.org/abs/1607.00133, 2016, Algorithm 1.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from jgd.core import ArrayLike, LossFn, PyTree, Scalar, checked
from jgd.gradients._clipping import ClippedMean
from jgd.gradients._example_loss import Key
from jgd.gradients._reduce import ChunkSize, OnNonfinite, reduce_per_example
from jgd.gradients._reductions import Gradients


@checked
def per_example_grads(
    loss_fn: LossFn,
    *,
    chunk_size: ChunkSize = None,
    has_aux: bool = False,
    keep_batch_dim: bool | None = None,
    memory: int | None = None,
) -> Callable[..., tuple[Any, PyTree]]:
    """The gradient of every example of a batch.

    They take B times the memory of the params; `reduce_per_example` gives what one makes of them without.

    Args:
        loss_fn: `loss_fn(params, batch[, key]) -> loss`, a scalar, as for `jgd.make_step`; called with one
            example.
        chunk_size: How many examples are differentiated at a time, which bounds what the computation takes beside the
            result; None for all, `"auto"` for as many as `memory` allows.
        has_aux: Whether `loss_fn` returns `(loss, aux)`.
        keep_batch_dim: Whether the loss is given a batch of one, `[1, ...]`, or the example without that axis. By
            default a batch of one, and the example itself where the loss takes no batch of one.
        memory: With `chunk_size="auto"`: the budget in bytes; see `jgd.gradients.reduce_per_example`.

    Returns:
        `grad_fn(params, batch, *, key=None, ids=None) -> (losses [B], grads)` with gradients `[B, ...]` in the dtypes
        of the params, zero in rows of padding and for integer leaves, for complex ones the conjugate of what `jax.grad`
        returns: as optimizers take them. With `has_aux` `((losses, aux), grads)`, as
        `jax.value_and_grad` has it. `grad_fn` is compiled at its first call; for its arguments see
        `jgd.gradients.reduce_per_example`.

    Raises:
        TypeError, ValueError: As for `jgd.gradients.reduce_per_example`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import per_example_grads
        >>> grad_fn = per_example_grads(lambda w, batch: jnp.mean((w - batch) ** 2))
        >>> losses, grads = grad_fn(jnp.array(1.0), jnp.array([0.0, 1.0, 3.0]))
        >>> print(losses, grads)
        [1. 0. 4.] [ 2.  0. -4.]
    """
    reduce_fn = reduce_per_example(
        loss_fn, Gradients(), chunk_size=chunk_size, has_aux=has_aux, keep_batch_dim=keep_batch_dim, memory=memory
    )

    def grad_fn(
        params: PyTree, batch: PyTree, *, key: Key | None = None, ids: ArrayLike | None = None
    ) -> tuple[Any, PyTree]:
        result = reduce_fn(params, batch, key=key, ids=ids)
        return (result.losses, result.aux) if has_aux else result.losses, result.results

    return grad_fn


@checked
def clipped_grad(
    loss_fn: LossFn,
    max_norm: Scalar | Mapping[str, Scalar],
    *,
    chunk_size: ChunkSize = None,
    has_aux: bool = False,
    keep_batch_dim: bool | None = None,
    per: Literal["all", "leaf"] = "all",
    on_nonfinite: OnNonfinite = "keep",
    memory: int | None = None,
) -> Callable[..., Any]:
    """The mean of per-example gradients, each shortened to at most `max_norm` first: `jax.grad` with a limit.

    Args:
        loss_fn: See `jgd.gradients.clipped_value_and_grad`, as for all arguments.
        max_norm: The largest Euclidean norm let through, above 0, or one for each group of leaves.
        chunk_size: How many gradients are held at a time; None for all, `"auto"` for as many as `memory` allows.
        has_aux: Whether `loss_fn` returns `(loss, aux)`.
        keep_batch_dim: Whether the loss is given a batch of one, or the example without that axis.
        per: `"all"` clips all leaves together, `"leaf"` each leaf on its own.
        on_nonfinite: Whether examples that are not finite are left out, `"drop"`, or make the mean NaN, `"keep"`.
        memory: With `chunk_size="auto"`: the budget in bytes.

    Returns:
        `grad_fn(params, batch, *, key=None, ids=None) -> grads`, or `(grads, aux)` with `has_aux`, where `aux` is
        `[B, ...]`.

    Raises:
        TypeError, ValueError: As for `jgd.gradients.reduce_per_example`; `max_norm` is not above 0.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> grad_fn = jgd.clipped_grad(lambda w, batch: jnp.mean((w - batch) ** 2), 1.0, chunk_size=2)
        >>> print(grad_fn(jnp.array(1.0), jnp.array([0.0, 0.75, 1.25, 3.0])))  # of 2, 0.5, -0.5 and -4
        0.0
    """
    value_and_grad_fn = clipped_value_and_grad(
        loss_fn,
        max_norm,
        chunk_size=chunk_size,
        has_aux=has_aux,
        keep_batch_dim=keep_batch_dim,
        per=per,
        on_nonfinite=on_nonfinite,
        memory=memory,
    )

    def grad_fn(params: PyTree, batch: PyTree, *, key: Key | None = None, ids: ArrayLike | None = None) -> Any:
        values, grads = value_and_grad_fn(params, batch, key=key, ids=ids)
        return (grads, values[1]) if has_aux else grads

    return grad_fn


@checked
def clipped_value_and_grad(
    loss_fn: LossFn,
    max_norm: Scalar | Mapping[str, Scalar],
    *,
    chunk_size: ChunkSize = None,
    has_aux: bool = False,
    keep_batch_dim: bool | None = None,
    per: Literal["all", "leaf"] = "all",
    on_nonfinite: OnNonfinite = "keep",
    memory: int | None = None,
) -> Callable[..., tuple[Any, PyTree]]:
    r"""The loss of every example, and the mean of their gradients, each shortened to at most `max_norm` first.

    $$
    \frac1B \sum_i g_i \cdot \min\left(1, \frac{c}{\lVert g_i \rVert}\right)
    $$

    Args:
        loss_fn: `loss_fn(params, batch[, key]) -> loss`, a scalar, as for `jgd.make_step`; called with one
            example.
        max_norm: The largest Euclidean norm c let through, above 0; or a mapping from patterns of paths, as
            `jgd.groups` has them, to such numbers, for groups of leaves that are clipped on their own.
        chunk_size: How many gradients are held at a time; None for all, `"auto"` for as many as `memory` allows.
        has_aux: Whether `loss_fn` returns `(loss, aux)`.
        keep_batch_dim: Whether the loss is given a batch of one, `[1, ...]`, or the example without that axis. By
            default a batch of one, and the example itself where the loss takes no batch of one.
        per: `"all"` clips all leaves together, `"leaf"` each leaf on its own.
        on_nonfinite: `"drop"` leaves out examples whose loss or squared gradient norm is NaN or infinite; their losses
            stay as they are.
        memory: With `chunk_size="auto"`: the budget in bytes; see `jgd.gradients.reduce_per_example`.

    Returns:
        `value_and_grad_fn(params, batch, *, key=None, ids=None) -> (losses [B], grads)`, or `((losses, aux), grads)`
        with `has_aux`, compiled at its first call; for its arguments see `jgd.gradients.reduce_per_example`. The mean
        is over the examples that count, in float32 or wider. A gradient of zero stays zero. The result can be
        differentiated.

    Raises:
        TypeError, ValueError: As for `jgd.gradients.reduce_per_example`; `max_norm` is not above 0.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import clipped_value_and_grad
        >>> value_and_grad_fn = clipped_value_and_grad(lambda w, batch: jnp.mean((w - batch) ** 2), 1.0, chunk_size=2)
        >>> losses, grad = value_and_grad_fn(jnp.array(1.0), jnp.array([0.0, 1.25, 3.0]))
        >>> print(losses, grad.round(2))
        [1.     0.0625 4.    ] -0.17
    """
    reduce_fn = reduce_per_example(
        loss_fn,
        ClippedMean(max_norm, per),
        chunk_size=chunk_size,
        has_aux=has_aux,
        keep_batch_dim=keep_batch_dim,
        on_nonfinite=on_nonfinite,
        memory=memory,
    )

    def value_and_grad_fn(
        params: PyTree, batch: PyTree, *, key: Key | None = None, ids: ArrayLike | None = None
    ) -> tuple[Any, PyTree]:
        result = reduce_fn(params, batch, key=key, ids=ids)
        return (result.losses, result.aux) if has_aux else result.losses, result.results

    return value_and_grad_fn
