"""Wherever a count is asked for, an integer of NumPy will do, and a boolean or a float will not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgd
from jgd.gradients import pad_batch, private_epsilon, probes

X = np.arange(8.0, dtype=np.float32)
OPTIMIZER = jgd.sgd(0.1)


def mean_loss(w, batch):
    return jnp.mean((w - batch) ** 2)


def trained(n, **options):
    step = jgd.make_step(mean_loss, OPTIMIZER, accumulate=options.pop("accumulate", 1))
    state = jgd.TrainState.create(jnp.array(4.0), OPTIMIZER)
    return jgd.fit(state, step, jgd.ArrayLoader(X, 4), progress=False, **({"epochs": 1} | options))[0].params


# By name: what is made of a count of 2.
COUNTS = {
    "fit epochs": lambda n: trained(n, epochs=n),
    "fit fetch_every": lambda n: trained(n, fetch_every=n),
    "fit prefetch": lambda n: trained(n, prefetch=n),
    "fit patience": lambda n: trained(n, patience=n, epochs=3),
    "make_step accumulate": lambda n: trained(n, accumulate=n),
    "ArrayLoader batch_size": lambda n: next(iter(jgd.ArrayLoader(X, n))),
    "ArrayLoader seed": lambda n: next(iter(jgd.ArrayLoader(X, 4, seed=n))),
    "ArrayLoader.order": lambda n: jgd.ArrayLoader(X, 4).order(n),
    "ArrayLoader.indices": lambda n: jgd.ArrayLoader(X, 4).indices(0, n),
    "PoissonLoader max_batch_size": lambda n: len(jgd.PoissonLoader(X[:2], 1, max_batch_size=n)),
    "Rollback every": lambda n: jgd.Rollback(every=n).every,
    "Rollback retries": lambda n: jgd.Rollback(retries=n).retries,
    "Guard max_skips": lambda n: jgd.Guard(max_skips=n).init().settings,
    "LossScale every": lambda n: jgd.LossScale(every=n).init().settings,
    "Spikes window": lambda n: jgd.Spikes(window=n + 2).init().windows,
    "per_example_grads chunk_size": lambda n: jgd.per_example_grads(mean_loss, chunk_size=n)(jnp.array(1.0), X),
    "clipped_grad chunk_size": lambda n: jgd.clipped_grad(mean_loss, 1.0, chunk_size=n)(jnp.array(1.0), X),
    "pad_batch size": lambda n: pad_batch(X[:1], n),
    "private_epsilon steps": lambda n: private_epsilon(0.0, 0.1, n, delta=1e-5),
    "probes.conv strides": lambda n: probes.conv(jnp.ones((1, 4, 4, 1)), jnp.ones((1, 1, 1, 1)), strides=n),
    "probes.conv dilation": lambda n: probes.conv(jnp.ones((1, 4, 4, 1)), jnp.ones((2, 2, 1, 1)), dilation=n),
    "cosine_restarts_schedule period": lambda n: jgd.schedules.cosine_restarts_schedule(1.0, n)(1),
}


@pytest.mark.parametrize("name", COUNTS)
def test_an_integer_of_numpy_counts_as_one_of_python(name):
    ours, numpys = COUNTS[name](2), COUNTS[name](np.int64(2))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(numpys), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [True, np.True_, 2.0, "2"], ids=repr)
def test_what_only_looks_like_a_count_is_refused(name, value):
    with pytest.raises((TypeError, ValueError)):
        COUNTS[name](value)
