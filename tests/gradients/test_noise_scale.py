"""The noise scale and the scores, on gradients whose mean and covariance are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgd.gradients._accumulate import accumulate_micro_batches
from jgd.gradients._noise_scale import critical_batch_size, gradient_snr, noise_scale, per_example_noise_scale
from jgd.gradients._reduce import reduce_per_example
from jgd.gradients._reductions import Mean, Norms, Variance
from jgd.gradients._scores import el2n_scores, grand_scores

STEPS, BIG, SMALL, WIDTH = 4000, 16, 4, 5
MEAN = np.full(WIDTH, 0.3)
SPREAD = 1.5
TRACE, SQUARED_NORM = WIDTH * SPREAD**2, WIDTH * 0.3**2


def history(rng, steps=STEPS):
    """Squared norms of the parts' gradients, averaged, and of the whole batches'."""
    grads = MEAN + SPREAD * rng.normal(size=(steps, BIG // SMALL, SMALL, WIDTH))
    parts = grads.mean(2)
    return (parts**2).sum(-1).mean(1), (parts.mean(1) ** 2).sum(-1), grads.reshape(steps, BIG, WIDTH)


def estimated(small, big, decay):
    run = jax.jit(partial(noise_scale, small_batch=SMALL, big_batch=BIG, decay=decay))
    return jax.tree.map(np.asarray, run(small, big))


def test_both_numbers_are_unbiased(rng):
    small, big, _ = history(rng)
    each = estimated(small, big, decay=0)
    for found, expected in ((each.trace, TRACE), (each.squared_norm, SQUARED_NORM)):
        error = np.std(found) / np.sqrt(STEPS)
        assert abs(np.mean(found) - expected) < 4 * error < 0.2 * expected


def test_the_scale_is_a_ratio_of_averages(rng):
    small, big, _ = history(rng)
    smooth = estimated(small, big, decay=0.999)
    assert abs(smooth.scale[-1] / (TRACE / SQUARED_NORM) - 1) < 0.2
    np.testing.assert_allclose(smooth.scale[-1], smooth.trace[-1] / smooth.squared_norm[-1], rtol=1e-6)
    raw = estimated(small, big, decay=0)
    weights = 0.9 ** np.arange(10)[::-1]
    short = estimated(small[:10], big[:10], decay=0.9)
    np.testing.assert_allclose(short.trace[-1], np.average(raw.trace[:10], weights=weights), rtol=1e-5)
    assert np.isnan(raw.scale).any()  # |G|^2 below zero in single steps is no scale


def test_a_step_that_was_not_finite_is_passed_over(rng):
    small, big, _ = history(rng, 6)
    broken = estimated(np.insert(small, 3, np.nan), np.insert(big, 3, np.inf), decay=0.9)
    np.testing.assert_allclose(broken.trace[-1], estimated(small, big, decay=0.9).trace[-1], rtol=1e-6)


def test_norms_of_examples_give_the_sample_covariance(rng):
    grads = history(rng, 1)[2][0].astype(np.float32)
    run = reduce_per_example(lambda w, x: jnp.mean(x @ w), {"mean": Mean(), "norms": Norms(), "var": Variance()})
    found = jax.tree.map(np.asarray, run(np.zeros(WIDTH, np.float32), grads).results)
    norms, used = np.append(found["norms"], np.float32([9, 9])), np.arange(BIG + 2) < BIG
    estimate = jax.jit(per_example_noise_scale)(norms, np.linalg.norm(found["mean"]), used)
    np.testing.assert_allclose(estimate.trace, np.var(grads, axis=0, ddof=1).sum(), rtol=1e-5)
    same = noise_scale(np.mean(found["norms"] ** 2), np.sum(found["mean"] ** 2), 1, BIG)
    np.testing.assert_allclose(estimate.squared_norm, same.squared_norm, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        gradient_snr(found["mean"], found["var"]), found["mean"] ** 2 / np.var(grads, 0, ddof=1), rtol=1e-5
    )


def test_accumulation_reports_the_squared_norms_of_its_parts(rng):
    batch = rng.normal(size=(12, WIDTH)).astype(np.float32)

    @jax.jit
    def run(part, model_state, i):
        loss, grads = jax.value_and_grad(lambda w: jnp.mean(jnp.tanh(part @ w)))(jnp.ones(WIDTH))
        return loss, {"w": grads, "n": jnp.array(7)}, model_state, None

    *_, squares = jax.jit(lambda batch: accumulate_micro_batches(run, batch, None, 3, part_norms=True))(batch)
    parts = [np.asarray(run(batch[i : i + 4], None, 0)[1]["w"]) for i in (0, 4, 8)]
    np.testing.assert_allclose(squares, np.mean([(part**2).sum() for part in parts]), rtol=1e-6)
    with jax.disable_jit():  # two programs need not round alike
        *found, _ = accumulate_micro_batches(run, batch, None, 3, part_norms=True)
        jax.tree.map(np.testing.assert_array_equal, tuple(found), accumulate_micro_batches(run, batch, None, 3))


def test_the_critical_batch_size_of_runs_on_the_curve():
    sizes = np.array([8, 64, 512, 4096])
    found = critical_batch_size(sizes, 300 * (1 + 200 / sizes))
    np.testing.assert_allclose((found.size, found.min_steps, found.min_examples), (200, 300, 60000), rtol=1e-4)


def test_grand_is_the_norm_averaged_over_models(rng):
    models = rng.normal(size=(3, WIDTH)).astype(np.float32)
    batch = rng.normal(size=(6, WIDTH)).astype(np.float32)

    def loss(w, x):
        return jnp.mean(jnp.tanh(x @ w))

    found = grand_scores(loss, models, batch, models=True, chunk_size=4)
    slopes = 1 - np.tanh(batch @ models.T) ** 2
    np.testing.assert_allclose(found, slopes.mean(1) * np.linalg.norm(batch, axis=1), rtol=1e-5)
    np.testing.assert_allclose(
        grand_scores(loss, models[1], batch), slopes[:, 1] * np.linalg.norm(batch, axis=1), rtol=1e-5
    )


def test_el2n_is_the_gradient_norm_at_the_logits(rng):
    logits, labels = rng.normal(size=(2, 6, 4)).astype(np.float32), rng.integers(0, 4, 6)

    def loss(z, label):
        return jax.nn.logsumexp(z) - z[label]

    grad = jax.jit(jax.grad(loss))
    norms = [[np.linalg.norm(grad(z, y)) for z, y in zip(zs, labels)] for zs in logits]
    np.testing.assert_allclose(el2n_scores(logits, labels), np.mean(norms, axis=0), rtol=1e-5)
    np.testing.assert_allclose(el2n_scores(logits[0], np.eye(4, dtype=np.float32)[labels]), norms[0], rtol=1e-5)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="big_batch must be above small_batch"):
        noise_scale(1.0, 1.0, 4, 4)
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\)"):
        noise_scale(1.0, 1.0, 1, 4, decay=1.0)
    with pytest.raises(ValueError, match="at least 2 runs"):
        critical_batch_size([1], [1])
    with pytest.raises(ValueError, match=r"labels \(3,\); expected"):
        el2n_scores(jnp.ones((2, 4)), jnp.ones(3, int))
