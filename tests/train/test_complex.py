"""Complex params: everywhere that jgd differentiates, what it hands on is the direction of steepest ascent.

The right values are those of the same loss of real and imaginary parts, as two real params.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jgd
from jgd import gradients
from jgd.train.step import _objective

TARGET = 1 + 2j
BATCH = np.complex64([1.25 + 2j, 0.75 + 2j, 1 + 1.5j, 1 + 2.5j])  # their mean is the target


def loss_fn(w, batch):
    return jnp.mean(jnp.abs(w - batch) ** 2)


def loss_of_parts(parts, batch):
    return loss_fn(parts[0] + 1j * parts[1], batch)


def run(optimizer, loss, params, steps=20, **options):
    step = jgd.make_step(loss, optimizer, **options)
    state = jgd.TrainState.create(params, optimizer, guard=options.get("guard"))
    for _ in range(steps):
        state, metrics = step(state, BATCH)
    return state.params, metrics


def test_the_report_a_quadratic_of_a_complex_number_goes_to_its_minimum():
    w, metrics = run(jgd.sgd(0.1), lambda w, batch: jnp.abs(w - TARGET) ** 2, jnp.zeros((), jnp.complex64))
    np.testing.assert_allclose(w, TARGET * (1 - 0.8**20), rtol=1e-5)  # 0.988+1.977j
    np.testing.assert_allclose(metrics["grad_norm"], 2 * abs(TARGET) * 0.8**19, rtol=1e-4)


def climb():
    return jgd.chain(jgd.normalize(), jgd.sgd(0.05))


OPTIMIZERS = {
    "momentum": (lambda: jgd.sgd(0.1, momentum=0.5), {}),
    "parts": (lambda: jgd.sgd(0.1, momentum=0.5), {"accumulate": 2}),
    "no_norms": (lambda: jgd.sgd(0.1), {"norms": False}),
    "scaled": (lambda: jgd.sgd(0.1), {"guard": jgd.Guard(loss_scale=jgd.LossScale())}),
    "clipped": (lambda: jgd.sgd(0.1), {"gradient": lambda loss: private(loss)}),
    "sam": (lambda: jgd.sam(jgd.sgd(0.1), climb(), opaque_mode=True), {}),
    "sam_scaled": (
        lambda: jgd.sam(jgd.sgd(0.1), climb(), opaque_mode=True),
        {"guard": jgd.Guard(loss_scale=jgd.LossScale())},
    ),
    "mars": (lambda: jgd.mars(jgd.sgd(0.1), max_norm=None), {}),
    "lbfgs": (jgd.lbfgs, {}),
    "backtracking": (lambda: optax.chain(jgd.sgd(1.0), optax.scale_by_backtracking_linesearch(20)), {}),
    "mechanize": (lambda: jgd.mechanize(jgd.sgd(1.0)), {}),
    "accumulate": (lambda: jgd.accumulate(jgd.sgd(0.1), 2), {}),
}


def private(loss):
    made = gradients.private_grad(0.5, 0.0, expected_batch_size=4)(loss)
    return lambda params, batch, key: made(params, batch, jax.random.key(0))


FAST = ("momentum", "parts", "sam_scaled", "backtracking")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in OPTIMIZERS]
)
def test_complex_params_go_where_their_two_parts_would(name):
    make, options = OPTIMIZERS[name]
    found, _ = run(make(), loss_fn, jnp.complex64(0), 10, **options)
    parts, _ = run(make(), loss_of_parts, (jnp.float32(0), jnp.float32(0)), 10, **options)
    np.testing.assert_allclose(found, parts[0] + 1j * parts[1], rtol=1e-4)
    assert abs(found - TARGET) < abs(TARGET)


GIVES_GRADS = {
    "per_example": lambda loss: lambda w: gradients.per_example_grads(loss)(w, BATCH)[1],
    "clipped": lambda loss: lambda w: jgd.clipped_grad(loss, 1.0, chunk_size=3)(w, BATCH),
    "mean": lambda loss: lambda w: reduced(loss, gradients.Mean())(w),
    "mean_of_chunks": lambda loss: lambda w: reduced(loss, gradients.Mean(), chunk_size=2)(w),
    "sum_of_those_kept": lambda loss: lambda w: reduced(loss, gradients.Sum(), on_nonfinite="drop")(w),
    "private": lambda loss: lambda w: private(loss)(w, BATCH, None)[1],
}


def reduced(loss, reduction, **options):
    run = gradients.reduce_per_example(loss, reduction, **options)
    return lambda w: run(w, BATCH).results


@pytest.mark.parametrize("name", GIVES_GRADS)
def test_gradients_of_examples_point_uphill(name):
    found = GIVES_GRADS[name](loss_fn)(jnp.complex64(0.25 - 1j))
    real, imaginary = GIVES_GRADS[name](loss_of_parts)((jnp.float32(0.25), jnp.float32(-1.0)))
    np.testing.assert_allclose(found, real + 1j * imaginary, rtol=1e-5)


@pytest.mark.parametrize("forward", [True, False])
def test_the_cosine_to_a_mean_of_complex_gradients(forward):
    w = jnp.complex64(0.25 - 1j)
    grads = 2 * (np.complex128(w) - BATCH)
    expected = (grads.conj() * grads.mean()).real / abs(grads) / abs(grads.mean())
    found = reduced(loss_fn, gradients.CosineToMean(forward=forward), chunk_size=2)(w)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("make", ["private_grad", "differentially_private_aggregate"])
def test_noise_on_complex_gradients_hides_either_part(make):
    params = jnp.zeros(20_000, jnp.complex64)
    if make == "private_grad":
        gradient = gradients.private_grad(0.5, 4.0, expected_batch_size=1)(lambda w, batch: jnp.sum(w.real) * 0)
        _, noise, _ = gradient(params, jnp.zeros((1, 1)), jax.random.key(0))
    else:
        aggregate = jgd.differentially_private_aggregate(0.5, 4.0, key=0)
        noise, _ = aggregate.update(jnp.zeros((1, 20_000), jnp.complex64), aggregate.init(params))
    for part in (noise.real, noise.imag):
        assert float(jnp.std(part)) == pytest.approx(0.5 * 4.0, rel=0.03)


def test_a_diagonal_of_curvatures_is_refused_for_complex_params():
    from jgd.rules import hutchinson

    with pytest.raises(TypeError, match=r"hutchinson: the leaf at the root is complex"):
        hutchinson().init(jnp.zeros(2, jnp.complex64))


def test_real_params_compile_to_the_program_without_it(monkeypatch):
    def text():
        optimizer = jgd.sam(jgd.adam(0.1), climb(), opaque_mode=True)
        step = jgd.make_step(lambda w, batch: jnp.mean((w["a"] - batch.real) ** 2), optimizer, accumulate=2)
        params = {"a": jnp.float32(0), "n": jnp.int32(1)}  # an integer leaf goes through SAM's own gradient as well
        state = jgd.TrainState.create(params, optimizer)
        return jax.jit(step.advance).lower(state, BATCH, True).as_text()

    with_it = text()
    monkeypatch.setattr(_objective, "ascent_direction", lambda grads: grads)
    assert text() == with_it
