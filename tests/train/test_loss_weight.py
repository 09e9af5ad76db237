"""Parts of a batch that weigh differently: the result of the whole batch, for losses that say their weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgd
from jgd.gradients import accumulate_micro_batches, pad_batch

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 3)).astype(np.float32)
BATCH = pad_batch({"x": X, "y": X @ np.float32([1, -2, 0.5]) + 1}, 8)  # of four parts the last holds padding alone


def errors(w, batch):
    return (batch["x"] @ w - batch["y"]) ** 2


def mean_over_real(w, batch):
    return jnp.sum(jnp.where(batch.mask, errors(w, batch.batch), 0)) / jnp.sum(batch.mask)  # of padding alone: 0 / 0


def run(loss, batch, steps=3, model_state=None, **options):
    optimizer = jgd.sgd(0.1, momentum=0.9)
    step = jgd.make_step(loss, optimizer, **options)
    state = jgd.TrainState.create(jnp.zeros(3), optimizer, model_state=model_state)
    for _ in range(steps):
        state, metrics = step(state, batch)
    return state, metrics


@pytest.mark.parametrize("parts", [2, 4])
def test_a_mean_over_the_real_examples_gives_what_the_whole_batch_gives(parts):
    whole, expected = run(mean_over_real, BATCH)
    for weight in ("examples", lambda batch: jnp.sum(batch.mask)):
        state, metrics = run(mean_over_real, BATCH, accumulate=parts, loss_weight=weight)
        np.testing.assert_allclose(state.params, whole.params, rtol=1e-5)
        for name in ("loss", "grad_norm"):
            np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5)


def test_a_weight_of_tokens_rather_than_examples():
    tokens = RNG.integers(0, 2, size=(4, 6)).astype(bool)
    batch = {"x": RNG.normal(size=(4, 6)).astype(np.float32), "mask": tokens}

    def loss(w, batch):
        return jnp.sum(jnp.where(batch["mask"], (w[0] - batch["x"]) ** 2, 0)) / jnp.maximum(jnp.sum(batch["mask"]), 1)

    whole, _ = run(loss, batch)
    parts, _ = run(loss, batch, accumulate=4, loss_weight=lambda batch: jnp.sum(batch["mask"]))
    np.testing.assert_allclose(parts.params, whole.params, rtol=1e-5)


def test_a_loss_that_divides_by_the_full_size_says_that_parts_are_alike():
    def loss(w, batch):
        return jnp.mean(jnp.where(batch.mask, errors(w, batch.batch), 0))

    whole, _ = run(loss, BATCH)
    parts, _ = run(loss, BATCH, accumulate=4, loss_weight="parts")
    np.testing.assert_allclose(parts.params, whole.params, rtol=1e-5)


def test_what_parts_report_is_weighted_and_a_part_of_padding_alone_leaves_no_trace():
    def loss(w, seen, batch):
        value = mean_over_real(w, batch)
        return value, (seen + value, {"value": value, "count": jnp.sum(batch.mask), "mask": batch.mask})

    state, metrics = run(loss, BATCH, steps=1, model_state=jnp.zeros(()), accumulate=4, loss_weight="examples")
    each = errors(np.zeros(3), BATCH.batch)
    np.testing.assert_allclose(metrics["aux"]["value"], np.mean(each[:5]), rtol=1e-5)
    assert int(metrics["aux"]["count"]) == 5
    np.testing.assert_array_equal(metrics["aux"]["mask"], BATCH.mask)
    np.testing.assert_allclose(state.model_state, np.mean(each[:2]) + np.mean(each[2:4]) + each[4], rtol=1e-5)
    # The squared norms weigh as the parts do: three parts of 5 / 3 examples on average.
    grads = [
        np.mean((2 * (-BATCH.batch["y"])[:, None] * BATCH.batch["x"])[a:b], 0) for a, b in ((0, 2), (2, 4), (4, 5))
    ]
    expected = sum(n * np.sum(g**2) for n, g in zip((2, 2, 1), grads, strict=True)) / 5
    np.testing.assert_allclose(metrics["micro_grad_norm"] ** 2, expected, rtol=1e-5)


def test_a_batch_of_padding_alone_gives_what_its_loss_gives():
    empty = BATCH._replace(mask=np.zeros(8, bool))

    def loss(w, batch):
        return jnp.sum(jnp.where(batch.mask, errors(w, batch.batch), 0)) / jnp.maximum(jnp.sum(batch.mask), 1)

    state, metrics = run(loss, empty, accumulate=2, loss_weight="examples")
    assert float(metrics["loss"]) == 0.0
    np.testing.assert_array_equal(state.params, np.zeros(3))
    with pytest.raises(jgd.NonFiniteError):
        run(mean_over_real, empty, accumulate=2, loss_weight="examples")


def test_a_real_part_that_is_not_finite_is_not_hidden():
    bad = BATCH._replace(batch=BATCH.batch | {"y": BATCH.batch["y"].at[4].set(jnp.nan)})
    with pytest.raises(jgd.NonFiniteError):
        run(mean_over_real, bad, accumulate=4, loss_weight="examples")


def test_weights_by_hand():
    def part(batch, model_state, i):
        return jnp.mean(batch), jnp.mean(2 * batch), model_state, None

    weights = jnp.array([1, 0, 3])
    loss, grads, _, _ = accumulate_micro_batches(part, jnp.arange(6.0), None, 3, weights=weights)
    np.testing.assert_allclose([loss, grads], [(0.5 + 3 * 4.5) / 4, (1 + 3 * 9) / 4])
    with pytest.raises(ValueError, match=r"weights must have one number for each of 3 parts; got shape \(2,\)"):
        accumulate_micro_batches(part, jnp.arange(6.0), None, 3, weights=weights[:2])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {},
            ValueError,
            r"make_step: accumulate=2 of a Padded batch: .*loss_weight=\"examples\".*loss_weight=\"parts\"",
        ),
        ({"loss_weight": lambda batch: batch.mask}, ValueError, r"loss_weight must return a scalar; got shape \(4,\)"),
        ({"loss_weight": lambda batch: None}, TypeError, r"loss_weight must return a real number; got a NoneType"),
        ({"loss_weight": lambda batch: 1j}, TypeError, r"loss_weight must return a real number; got dtype complex"),
        ({"loss_weight": "mask"}, ValueError, r"loss_weight must be one of 'examples', 'parts' or a function or None"),
        ({"loss_weight": 2.0}, ValueError, r"loss_weight must be one of .*; got 2\.0"),
    ],
)
def test_a_weight_that_cannot_be(options, error, message):
    with pytest.raises(error, match=message):
        run(mean_over_real, BATCH, accumulate=2, **options)


def test_parts_that_are_alike_compile_to_the_program_without_weights():
    def text(**options):
        step = jgd.make_step(lambda w, batch: jnp.mean((w - batch) ** 2), jgd.sgd(0.1), accumulate=2, **options)
        state = jgd.TrainState.create(jnp.zeros(()), jgd.sgd(0.1))
        return jax.jit(step.advance).lower(state, jnp.ones(4), True).as_text()

    assert text() == text(loss_weight="parts")
