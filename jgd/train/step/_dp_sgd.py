"""A training step whose gradients are private.

References:
    - Abadi et al., "Deep learning with differential privacy", https://arxiv.org/abs/1607.00133, 2016, Algorithm 1.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp

from jgd.core import Array, GradientTransformation, LossFn, PyTree, Scalar, checked, is_traced
from jgd.gradients import ChunkSize, PoissonSample, private_grad
from jgd.train.step._make_step import Step, make_step

Sampling = Literal["poisson", "own"]


@checked
def dp_sgd(
    loss_fn: LossFn,
    optimizer: GradientTransformation,
    *,
    max_norm: Scalar,
    noise_multiplier: Scalar,
    expected_batch_size: float,
    chunk_size: ChunkSize = None,
    with_probes: bool = False,
    random_loss: bool = False,
    sampling: Sampling = "poisson",
    **options: Any,
) -> Step:
    """A step on gradients that are clipped example by example, summed and noised; `jgd.make_step` for private training.

    What it spends is `jgd.gradients.private_epsilon(noise_multiplier, loader.sampling_rate, steps, delta=...)` where
    the batches are Poisson samples, as `jgd.PoissonLoader` draws them.

    Args:
        loss_fn: `loss_fn(params, batch[, key]) -> loss`, as for `jgd.make_step`; called with a batch of one. Or, with
            probes, `losses_fn(params, batch, probe) -> losses [B]`.
        optimizer: Any optimizer of jgd or optax: whatever is made of private gradients is private. Those that evaluate
            the loss themselves (line searches, Polyak's steps) read the data again, and are not.
        max_norm: The norm that each example's gradient is clipped to, above 0.
        noise_multiplier: The deviation of the noise over `max_norm`, at least 0.
        expected_batch_size: How many examples a batch has on average.
        chunk_size: How many per-example gradients are held at a time.
        with_probes: Norms by probed operations, with no per-example gradients; see `jgd.gradients.probes`.
        random_loss: Whether the loss takes a key.
        sampling: `"poisson"`: the batches must be those of a `jgd.PoissonLoader` of this `expected_batch_size`, or
            other `jgd.gradients.PoissonSample`s; for any others what was spent is not what `private_epsilon` says.
            `"own"`: any batches. You then vouch that every example is in each of them with the same probability,
            independently of the others.
        options: As for `jgd.make_step`: `on_nonfinite`, `donate`, `norms`, `guard`.

    Returns:
        A step for a state with a key, `TrainState.create(..., key=...)`, from which the noise is drawn. Its metrics
        have `clipped`, the share of examples clipped, and `examples`, how many there were. Loss, norms and these are
        not private.

    Raises:
        TypeError: A batch is not a Poisson sample.
        ValueError: It has another expected size. As for `jgd.gradients.private_grad` and `jgd.make_step`.

    Examples:
        >>> import jax.numpy as jnp, numpy as np, jgd
        >>> x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
        >>> loader = jgd.PoissonLoader({"x": x, "y": x @ np.array([1, -1], np.float32)}, expected_batch_size=50)
        >>> optimizer = jgd.sgd(0.5)
        >>> step = jgd.dp_sgd(lambda w, batch: jnp.mean((batch["x"] @ w - batch["y"]) ** 2), optimizer,
        ...                   max_norm=1.0, noise_multiplier=0.5, expected_batch_size=50)
        >>> state = jgd.TrainState.create(jnp.zeros(2), optimizer, key=0)
        >>> for _ in range(5):
        ...     for batch in loader:
        ...         state, metrics = step(state, batch)
        >>> print(state.params.round(0))
        [ 1. -1.]
    """
    gradient = private_grad(
        max_norm,
        noise_multiplier,
        expected_batch_size,
        chunk_size=chunk_size,
        with_probes=with_probes,
        random_loss=random_loss,
    )
    of_samples = _on_samples(gradient, expected_batch_size) if sampling == "poisson" else gradient
    if not with_probes:
        return make_step(loss_fn, optimizer, gradient=of_samples, **options)

    def mean_loss(params: PyTree, batch: PyTree, key: Any = None) -> Array:
        del key
        return jnp.mean(loss_fn(params, batch, None))

    # The step's own loss is for optimizers that evaluate it; the gradients come from the losses with their probe.
    return make_step(mean_loss, optimizer, gradient=lambda _: of_samples(loss_fn), **options)


def _on_samples(gradient: Callable[..., Any], expected: float) -> Callable[..., Any]:
    """The gradient, for batches that are Poisson samples, as the accounting supposes."""

    def of_loss(loss_fn: Callable[..., Any]) -> Callable[..., Any]:
        grad_fn = gradient(loss_fn)

        def on_sample(params: PyTree, batch: PyTree, key: Any) -> Any:
            _check_sample(batch, expected)
            return grad_fn(params, batch, key)

        return on_sample

    return of_loss


def _check_sample(batch: PyTree, expected: Any) -> None:
    if not isinstance(batch, PoissonSample):
        raise TypeError(
            f"dp_sgd: the batch is a {type(batch).__name__}, no Poisson sample, and the accounting of private_epsilon"
            " holds for those alone: shuffled batches of one size are less private. Train on a"
            f" jgd.PoissonLoader(arrays, expected_batch_size={expected:g}); or, where you draw Poisson samples"
            ' yourself, say dp_sgd(..., sampling="own").'
        )
    drawn = batch.expected_batch_size
    if drawn is not None and not is_traced(expected) and not math.isclose(drawn, expected, rel_tol=1e-6):
        raise ValueError(
            f"dp_sgd: expected_batch_size={expected:g}, and the batches have {drawn:g} examples on average: the sum of"
            " the gradients would be divided by the wrong number. Give dp_sgd and jgd.PoissonLoader the same."
        )
