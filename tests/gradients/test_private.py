"""Private gradients, Poisson samples, and what they are accounted for."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgd
from jgd.gradients import Padded, PoissonSample, private_epsilon, private_grad, private_noise, probes

X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
W = np.float32([[0.5], [-1.0], [2.0]])


def loss_fn(params, batch):
    return jnp.mean(0.5 * (batch @ params["w"]) ** 2)


def losses_fn(params, batch, probe):
    return 0.5 * probes.dense(batch, params["w"], probe)[:, 0] ** 2


def clipped_one_by_one(rows, limit):
    total = np.zeros(3)
    for row in rows.astype(np.float64):
        grad = row * (row @ W[:, 0])
        total += grad * min(1, limit / np.linalg.norm(grad))
    return total[:, None]


@pytest.mark.parametrize("with_probes", [False, True])
@pytest.mark.parametrize("chunk_size", [None, 4])
def test_without_noise_the_clipped_sum_over_the_expected_size(with_probes, chunk_size):
    mask = np.array([True, True, False, True, True, False])
    gradient = private_grad(1.5, 0.0, 10, with_probes=with_probes, chunk_size=chunk_size)
    run = jax.jit(gradient(losses_fn if with_probes else loss_fn))
    loss, grads, metrics = run({"w": W}, Padded(X, mask), jax.random.key(0))
    np.testing.assert_allclose(grads["w"], clipped_one_by_one(X[mask], 1.5) / 10, rtol=2e-5)
    losses = 0.5 * (X @ W)[:, 0] ** 2
    np.testing.assert_allclose(loss, losses[mask].mean(), rtol=1e-5)
    norms = np.linalg.norm(X * (X @ W), axis=1)[mask]
    assert int(metrics["examples"]) == 4
    np.testing.assert_allclose(metrics["clipped"], np.mean(norms > 1.5))


def test_an_empty_sample_is_noise_alone():
    run = jax.jit(private_grad(2.0, 0.0, 4)(loss_fn))
    loss, grads, metrics = run({"w": W}, Padded(X, np.zeros(6, bool)), jax.random.key(0))
    assert float(loss) == 0
    assert int(metrics["examples"]) == 0
    np.testing.assert_array_equal(grads["w"], 0)


def test_noise_has_the_deviation_that_it_is_accounted_for():
    params = {"a": np.zeros((40, 50), np.float32), "b": np.zeros(2000, jnp.bfloat16)}
    run = jax.jit(private_grad(0.5, 3.0, 8)(lambda p, batch: jnp.sum(p["a"]) * 0 + jnp.mean(batch) * 0))
    _, first, _ = run(params, np.ones((2, 1), np.float32), jax.random.key(1))
    _, again, _ = run(params, np.ones((2, 1), np.float32), jax.random.key(1))
    _, other, _ = run(params, np.ones((2, 1), np.float32), jax.random.key(2))
    for name in params:
        noise = np.asarray(first[name], np.float64)
        assert first[name].dtype == params[name].dtype
        assert abs(noise.std() / (0.5 * 3.0 / 8) - 1) < 0.06
        assert abs(noise.mean()) < 4 * noise.std() / math.sqrt(noise.size)
        np.testing.assert_array_equal(first[name], again[name])
        assert not np.array_equal(first[name], other[name])
    assert abs(np.corrcoef(np.asarray(first["a"]).ravel(), np.asarray(first["b"], np.float32))[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_norm": 0.0}, "max_norm must be a finite number above 0; got 0.0"),
        ({"max_norm": math.inf}, "max_norm must be a finite"),
        ({"noise_multiplier": -1.0}, "noise_multiplier must be a finite number at least 0; got -1.0"),
        ({"expected_batch_size": 0}, "expected_batch_size must be"),
        ({"expected_batch_size": [4]}, r"expected_batch_size must be a number; got \[4\]"),
        ({"noise_multiplier": "much"}, "noise_multiplier must be a number; got 'much'"),
        ({"max_norm": np.ones(2)}, r"max_norm must be a number; got an array of shape \(2,\)"),
        ({"with_probes": True, "random_loss": True}, "goes with neither"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        private_grad(**({"max_norm": 1.0, "noise_multiplier": 1.0, "expected_batch_size": 4} | arguments))


def test_a_state_without_a_key_has_no_noise_to_give():
    optimizer = jgd.sgd(0.1)
    step = jgd.dp_sgd(loss_fn, optimizer, max_norm=1.0, noise_multiplier=1.0, expected_batch_size=4, sampling="own")
    with pytest.raises(ValueError, match="needs a random key"):
        step(jgd.TrainState.create({"w": W}, optimizer), jnp.asarray(X))


def test_batches_that_are_no_poisson_samples_of_that_size_are_refused():
    optimizer, arrays = jgd.sgd(0.1), {"i": np.arange(40)}
    settings = {"max_norm": 0.5, "noise_multiplier": 1.0}

    def loss(w, batch):
        return jnp.mean((w - batch["i"] / 40) ** 2)

    def run(loader, loop, **more):
        step = jgd.dp_sgd(loss, optimizer, **settings, **more)
        state = jgd.TrainState.create(jnp.array(3.0), optimizer, key=0)
        if loop == "fit":
            return jgd.fit(state, step, loader, epochs=1, progress=False)
        return jgd.scan_steps(step)(state, jax.tree.map(lambda *rows: np.stack(rows), *loader))

    for loop in ("fit", "scan"):
        for remainder in ("drop", "pad"):
            loader = jgd.ArrayLoader(arrays, 8, remainder=remainder)
            with pytest.raises(
                TypeError, match=r"no Poisson sample, .*jgd\.PoissonLoader\(arrays, expected_batch_size=8"
            ):
                run(loader, loop, expected_batch_size=8)
        with pytest.raises(ValueError, match=r"expected_batch_size=16, and the batches have 8 examples on average"):
            run(jgd.PoissonLoader(arrays, 8), loop, expected_batch_size=16)
        run(jgd.PoissonLoader(arrays, 8), loop, expected_batch_size=8)
    run(jgd.ArrayLoader(arrays, 8), "fit", expected_batch_size=8, sampling="own")
    with pytest.raises(ValueError, match=r"dp_sgd: sampling must be one of 'poisson', 'own'; got 'shuffled'"):
        run(None, "fit", expected_batch_size=8, sampling="shuffled")


@pytest.mark.parametrize("with_probes", [False, True])
def test_a_step_goes_along_the_private_gradient(with_probes):
    optimizer = jgd.sgd(0.1)
    settings = {"max_norm": 1.0, "noise_multiplier": 0.7, "expected_batch_size": 4, "with_probes": with_probes}
    fn = losses_fn if with_probes else loss_fn
    step = jgd.dp_sgd(fn, optimizer, **settings, donate=False)
    state = jgd.TrainState.create({"w": W}, optimizer, key=3)
    batch = PoissonSample.drawn(X, np.ones(6, bool), 4)
    new, metrics = step(state, batch)
    _, grads, _ = private_grad(**settings)(fn)({"w": W}, batch, jax.random.fold_in(jax.random.key(3), 0))
    after = np.asarray(new.params["w"])
    np.testing.assert_allclose(after, W - np.float32(0.1) * np.asarray(grads["w"]), rtol=1e-6)
    assert {"clipped", "examples", "loss", "grad_norm"} <= metrics.keys()
    newer, _ = step(new, batch)
    assert not np.allclose(np.asarray(newer.params["w"]) - after, after - W, atol=1e-3)  # fresh noise


# Poisson samples


def loader_of(size=300, mean=30, **options):
    return jgd.PoissonLoader({"i": np.arange(size)}, mean, **options)


def test_every_example_is_drawn_by_itself():
    loader = loader_of()
    rows = [batch.batch["i"][batch.mask] for epoch in range(60) for batch in (loader.seek(epoch), *loader)[1:]]
    drawn = np.zeros((len(rows), 300), bool)
    for i, row in enumerate(rows):
        assert len(set(row.tolist())) == len(row)
        drawn[i, row] = True
    assert len(rows) == 600
    assert abs(drawn.mean() - 0.1) < 0.004
    assert abs(drawn.sum(1).var() / (300 * 0.1 * 0.9) - 1) < 0.25  # binomial
    shares = drawn.mean(0)
    assert abs(shares.std() / math.sqrt(0.1 * 0.9 / 600) - 1) < 0.2  # no example is drawn more often than others
    together = np.corrcoef(drawn[:, :40].T)[np.triu_indices(40, 1)]
    assert abs(together.mean()) < 0.01


def test_no_sample_is_another_one_moved():
    loader = loader_of(4096, 2048, seed=3)
    signs = np.full((8, 4096), -1.0)
    for i, row in enumerate(signs):
        row[loader.indices(i // 4, i % 4)] = 1
    spectra = np.fft.fft(signs)
    for i in range(8):
        agreement = np.fft.ifft(spectra[:i] * spectra[i].conj()).real  # for each way to move, all entries taken
        assert np.all(np.abs(agreement) < 6 * math.sqrt(4096))  # six deviations of fair coins


def test_any_position_is_found_again():
    loader, other = loader_of(seed=4), loader_of(seed=4)
    batches = list(loader)
    assert len(batches) == len(loader) == 10
    assert {batch.mask.shape for batch in batches} == {(loader.batch_size,)}
    other.restore({**other.state(), "epoch": 0, "batch": 7})
    np.testing.assert_array_equal(next(iter(other)).batch["i"], batches[7].batch["i"])
    with pytest.raises(ValueError, match=r"sampling_rate is 0\.1 and was 0\.2"):
        loader.restore(loader_of(mean=60, seed=4).state())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": 0}, "expected_batch_size must be above 0"),
        ({"mean": 301}, "at most the 300 examples; got 301"),
        ({"max_batch_size": 40}, "expected at least"),
    ],
)
def test_a_loader_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        loader_of(**options)


def test_training_on_samples_resumes(tmp_path):
    optimizer = jgd.sgd(0.1, momentum=0.9)
    step = jgd.dp_sgd(
        lambda w, batch: jnp.mean((w - batch["i"] / 300) ** 2),
        optimizer,
        max_norm=0.5,
        noise_multiplier=1.0,
        expected_batch_size=30,
    )

    def fresh():
        return jgd.TrainState.create(jnp.array(3.0), optimizer, key=0)

    whole, _ = jgd.fit(fresh(), step, loader_of(), epochs=2, progress=False)
    jgd.fit(fresh(), step, loader_of(), epochs=1, progress=False, checkpoint_dir=tmp_path)
    resumed, _ = jgd.fit(fresh(), step, loader_of(), epochs=2, progress=False, checkpoint_dir=tmp_path)
    np.testing.assert_array_equal(whole.params, resumed.params)


# Accounting


@pytest.fixture(scope="module")
def accounting():
    return pytest.importorskip("dp_accounting")


def test_epsilon(accounting):
    tight = private_epsilon(1.0, 0.01, 1000, delta=1e-5)
    loose = private_epsilon(1.0, 0.01, 1000, delta=1e-5, accountant="rdp")
    assert round(tight, 2) == 1.83
    assert round(loose, 2) == 2.10  # Abadi's setting; the moments accountant's bound
    # Four Gaussian mechanisms without sampling are one of half the deviation: Balle and Wang's exact curve.
    phi = lambda z: 0.5 * math.erfc(-z / math.sqrt(2))  # noqa: E731
    epsilon = private_epsilon(4.0, 1.0, 4, delta=1e-3)
    exact = phi(0.25 - epsilon * 2) - math.exp(epsilon) * phi(-0.25 - epsilon * 2)
    assert abs(exact / 1e-3 - 1) < 0.01
    assert private_epsilon(0.0, 0.1, 5, delta=1e-5) == math.inf
    assert private_epsilon(1.0, 0.1, 0, delta=1e-5) == 0


@pytest.mark.parametrize("accountant", [pytest.param("pld", marks=pytest.mark.slow), "rdp"])
def test_noise_for_an_epsilon(accounting, accountant):
    noise = private_noise(1.0, 0.05, 50, delta=1e-5, accountant=accountant)
    spent = private_epsilon(noise, 0.05, 50, delta=1e-5, accountant=accountant)
    assert 0.98 < spent <= 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: private_epsilon(1.0, 0.0, 1, delta=1e-5), r"sampling_rate must be in \(0, 1\]; got 0.0"),
        (lambda: private_epsilon(-1.0, 0.1, 1, delta=1e-5), "noise_multiplier must be finite and at least 0"),
        (lambda: private_epsilon(1.0, 0.1, -1, delta=1e-5), "steps must be"),
        (lambda: private_epsilon(1.0, 0.1, 1, delta=1.0), "delta must be"),
        (lambda: private_noise(0.0, 0.1, 1, delta=1e-5), "epsilon must be"),
    ],
)
def test_accounting_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
