"""A check of a user's own loss: do the probed operations give what `vmap(grad)` gives?"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import Array, ArrayTree, PyTree, checked
from jgd.gradients._padding import Padded, batch_size
from jgd.gradients.probes._passes import (
    OPERATIONS,
    LossesFn,
    SplitParams,
    book_kept,
    check_losses,
    evaluate,
    leaf_norms,
    split_params,
    trace_uses,
)

OWNER = "check_per_example"
#: Below this part of the whole gradient's norm a leaf's own is compared less strictly: it may be rounding alone.
SMALL = 1e-2


class PerExampleCheckError(AssertionError):
    """The probed operations give something else than `vmap(grad)`."""


class PerExampleReport(NamedTuple):
    """What agreed, and how well.

    Attributes:
        losses: `[B]`.
        norms: `[B]`: each example's gradient norm.
        errors: For each float leaf, by its path, the largest error of a norm relative to what `vmap(grad)` gives.
    """

    losses: np.ndarray
    norms: np.ndarray
    errors: dict[str, float]


@checked
def check_per_example(
    losses_fn: LossesFn, params: ArrayTree, batch: ArrayTree | Padded, *, rtol: float | None = None
) -> PerExampleReport:
    """Compares norms, sums and clipped gradients with `vmap(grad)`, leaf by leaf.

    The reference holds every example's gradient, and the loss runs a few times, so a small batch is enough: 4 to 16
    examples that differ.

    Args:
        losses_fn: `losses_fn(params, batch, probe) -> losses [B]`; see `probes.norms`.
        params: Any float leaves.
        batch: At least two examples, for their independence to show; may be `Padded`.
        rtol: The largest relative error let through; unless given, about the square root of the dtype's precision,
            1e-3 in float32. A loss that computes in a lower precision than its params have needs a larger one.

    Returns:
        The norms, and how well they agree for each leaf.

    Raises:
        PerExampleCheckError: The loss couples its examples; a leaf is used outside of the operations; a leaf's norm,
            sum or clipped gradient differs. The message names the leaves.
        ValueError: A probed operation is used in a way that it refuses; see `probes.norms`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import probes
        >>> def losses_fn(w, batch, probe):
        ...     return 0.5 * probes.dense(batch, w, probe)[:, 0] ** 2
        >>> report = probes.check_per_example(losses_fn, jnp.array([[2.0]]), jnp.array([[1.0], [3.0]]))
        >>> print(report.norms)
        [ 2. 18.]
    """
    if isinstance(batch, Padded):
        real = np.flatnonzero(np.asarray(batch.mask))
        batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[real], batch.batch)
    split, size = split_params(OWNER, params), batch_size(OWNER, batch)
    rtol = _default_rtol(split) if rtol is None else rtol
    plain = np.asarray(_check_uncoupled(losses_fn, params, batch, size, rtol))
    _, outside = trace_uses(OWNER, losses_fn, split, batch, size)
    if outside:
        raise PerExampleCheckError(
            f"{OWNER}: not covered: {', '.join(outside)}. These leaves get a gradient from outside of {OPERATIONS} with"
            " its probe, which the norms would miss. Use a probed operation for all that is done with them."
        )
    losses, norms, sums = jax.jit(lambda leaves, batch: _probed(losses_fn, split, leaves, batch))(split.leaves, batch)
    if not np.allclose(losses, plain, rtol=rtol, atol=0):
        raise PerExampleCheckError(
            f"{OWNER}: with a probe the losses are {losses}, without {plain}; expected the same."
        )
    expected = jax.jit(lambda leaves, batch: _by_example(losses_fn, split, leaves, batch))(split.leaves, batch)
    errors = _compare_norms(split, np.sqrt(np.stack(norms)), _norms_of(expected), rtol)
    _compare_sums(split, sums, expected, rtol)
    return PerExampleReport(plain, np.sqrt(np.sum(np.stack(norms), axis=0)), errors)


def _default_rtol(split: SplitParams) -> float:
    return 3 * max((float(jnp.finfo(leaf.dtype).eps) for leaf in split.leaves), default=1e-7) ** 0.5


def _check_uncoupled(losses_fn: LossesFn, params: PyTree, batch: PyTree, size: int, rtol: float) -> Array:
    """The losses; every pair of examples is told apart by some bit of their places, and half of them are changed."""
    plain_losses = jax.jit(lambda batch: losses_fn(params, batch, None))
    losses = plain_losses(batch)
    check_losses(OWNER, losses, size)
    scale = np.abs(losses) + np.mean(np.abs(losses))
    places = np.arange(size)
    for bit in range((size - 1).bit_length()):
        for value in (0, 1):
            changed = (places >> bit) % 2 == value
            others = np.where(changed, (places + 1) % size, places)
            again = plain_losses(jax.tree.map(lambda leaf, others=others: jnp.asarray(leaf)[others], batch))
            moved = ~changed & ~(np.abs(again - losses) <= rtol * scale)
            if moved.any():
                raise PerExampleCheckError(
                    f"{OWNER}: the loss of example {int(np.argmax(moved))} changes when other examples do. The loss of"
                    " an example must depend on that example alone: no batch normalization, no mean over the batch, no"
                    " comparison between examples."
                )
    return losses


def _probed(losses_fn: LossesFn, split: SplitParams, leaves: list[Array], batch: PyTree) -> tuple[Any, Any, Any]:
    """Losses, squared norms by leaf, and sums by both ways."""
    tape = evaluate(OWNER, losses_fn, split._replace(leaves=leaves), batch)
    norms = leaf_norms(tape, leaves)
    factors = _factors(sum(norms))
    sums = {
        "the sum of the gradients": tape.pull(jnp.ones_like(factors)),
        "the clipped gradient": tape.pull(factors),
        "the clipped gradient from kept cotangents": book_kept(tape, leaves, factors),
    }
    return tape.losses, norms, sums


def _factors(squared: Any) -> Array:
    """Clipping to the median norm, so that some examples are clipped and some are not."""
    norm = jnp.sqrt(squared)
    return jnp.minimum(1, jnp.median(norm) / jnp.where(norm > 0, norm, 1))


def _by_example(losses_fn: LossesFn, split: SplitParams, leaves: list[Array], batch: PyTree) -> list[Array]:
    def loss_of(leaves: list[Array], example: PyTree) -> Array:
        return losses_fn(split.merge(leaves), jax.tree.map(lambda leaf: leaf[None], example), None)[0]

    return jax.vmap(jax.grad(loss_of), in_axes=(None, 0))(leaves, batch)


def _norms_of(grads: list[Array]) -> np.ndarray:
    return np.stack([np.sqrt(np.sum(np.square(_wide(grad)), axis=tuple(range(1, grad.ndim)))) for grad in grads])


def _wide(array: Any) -> np.ndarray:
    return np.asarray(array).astype(np.float64)


def _compare_norms(split: SplitParams, norms: np.ndarray, expected: np.ndarray, rtol: float) -> dict[str, float]:
    total = np.sqrt(np.sum(np.square(expected), axis=0))
    wrong_leaves, errors = [], {}
    for path, mine, theirs in zip(split.paths, norms, expected, strict=True):
        off = np.abs(mine - theirs)
        errors[path] = float(np.max(off / np.maximum(theirs, SMALL * np.maximum(total, np.finfo(float).tiny))))
        wrong = ~(off <= rtol * (theirs + SMALL * total))
        if wrong.any():
            i = int(np.argmax(wrong))
            wrong_leaves.append(f"{path} (example {i}: {mine[i]:.6g}, expected {theirs[i]:.6g})")
    if wrong_leaves:
        raise PerExampleCheckError(
            f"{OWNER}: wrong gradient norms at {'; '.join(wrong_leaves)}. Is the first axis of every input of these"
            " leaves' probed operations that of the examples, in the order of the batch?"
        )
    return errors


def _compare_sums(split: SplitParams, by_name: dict[str, list[Array]], expected: list[Array], rtol: float) -> None:
    wide = [_wide(grad) for grad in expected]
    norms = np.sum([np.sum(np.square(grad), axis=tuple(range(1, grad.ndim))) for grad in wide], axis=0)
    factors = np.asarray(_factors(jnp.asarray(norms)), np.float64)
    for name, sums in by_name.items():
        weights = np.ones_like(factors) if "sum" in name else factors
        for path, mine, grad in zip(split.paths, sums, wide, strict=True):
            theirs = np.einsum("b,b...->...", weights, grad)
            limit = rtol * np.sum(weights * np.sqrt(norms))  # sums may cancel: compared with what was added up
            if not np.linalg.norm(_wide(mine) - theirs) <= limit:
                raise PerExampleCheckError(f"{OWNER}: {name} is wrong at {path}; its norms are right.")
