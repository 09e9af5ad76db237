"""What is new in a state lies where the old lay, so that a compiled step takes it for the same.

An array that was put somewhere (`committed`) is another argument to a compiled program than one that may lie anywhere,
on one device as on several.
"""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jgd


def loss_fn(w, batch):
    return jnp.mean((w - batch) ** 2)


def placed(optimizer, **options):
    return jax.device_put(jgd.TrainState.create(jnp.ones(4), optimizer, **options), jax.devices()[0])


@pytest.mark.parametrize("value", [0.5, np.float64(0.5), jnp.float32(0.5)])
def test_a_value_that_was_set_lies_where_the_old_one_lay(value):
    optimizer = jgd.sgd(0.1)
    for state in (placed(optimizer), jgd.TrainState.create(jnp.ones(4), optimizer)):
        old = state.opt_state.hyperparams["learning_rate"]
        new = jgd.set_hyperparams(state, learning_rate=value).opt_state.hyperparams["learning_rate"]
        assert float(new) == 0.5
        assert (new.sharding, new.committed, jax.typeof(new)) == (old.sharding, old.committed, jax.typeof(old))
    on_device = jgd.set_hyperparams(placed(optimizer), learning_rate=jax.device_put(0.5, jax.devices()[0]))
    loose = jgd.set_hyperparams(state, learning_rate=on_device.opt_state.hyperparams["learning_rate"])
    assert not loose.opt_state.hyperparams["learning_rate"].committed


def test_a_weakly_typed_value_stays_weakly_typed():
    state = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1).init(jnp.ones(4))
    state.hyperparams["learning_rate"] = jnp.asarray(0.1)  # as some of optax's states hold them
    new = jgd.set_hyperparams(state, learning_rate=np.float64(0.5)).hyperparams["learning_rate"]
    assert jax.typeof(new) == jax.typeof(jnp.asarray(0.5))
    assert new.weak_type


def test_a_mapped_state_is_set_as_a_whole_or_for_each():
    state = jax.vmap(lambda w: jgd.TrainState.create(w, jgd.sgd(0.1)))(jnp.ones((3, 4)))
    for value in (0.5, np.float32([0.5, 0.25, 0.5])):
        new = jgd.set_hyperparams(state, learning_rate=value).opt_state.hyperparams["learning_rate"]
        np.testing.assert_array_equal(new, np.broadcast_to(value, 3))


def test_nothing_compiles_twice_for_a_state_that_was_put_somewhere():
    optimizer = jgd.sgd(0.1)
    step, state = jgd.make_step(loss_fn, optimizer), placed(optimizer)
    for rate in (0.1, 0.2, 0.3):
        state, _ = step(jgd.set_hyperparams(state, learning_rate=rate), jnp.zeros(4))
    assert step.compiled._cache_size() == 1
    step = jgd.make_step(loss_fn, optimizer)
    state, _ = jgd.fit(placed(optimizer), step, [jnp.zeros(4)] * 3, epochs=1, progress=False)
    assert step.compiled._cache_size() == 1


def test_another_guards_numbers_compile_nothing():
    optimizer, guard = jgd.sgd(0.1), jgd.Guard(max_skips=1, loss_scale=jgd.LossScale(), spikes=jgd.Spikes())
    step = jgd.make_step(loss_fn, optimizer, on_nonfinite="skip", guard=guard)
    state = placed(optimizer, guard=guard)
    for skips in (2, 3):
        again = jgd.Guard(max_skips=skips, loss_scale=jgd.LossScale(growth=4.0), spikes=jgd.Spikes(threshold=9.0))
        state, _ = step(again.retune(state), jnp.zeros(4))
        assert int(state.guard.settings["max_skips"]) == skips
    assert step.compiled._cache_size() == 1


PROGRAM = textwrap.dedent("""
    import jax, jax.numpy as jnp, numpy as np, jgd
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.devices()), ("data",))
    everywhere, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    optimizer = jgd.adam(0.1)
    step = jgd.make_step(lambda w, batch: jnp.mean((batch @ w) ** 2), optimizer)
    state = jax.device_put(jgd.TrainState.create(jnp.ones(4), optimizer), everywhere)
    batch = jax.device_put(np.ones((8, 4), np.float32), split)
    for rate in (0.1, 0.2, 0.3):
        state, _ = step(jgd.set_hyperparams(state, learning_rate=rate), batch)
    found = state.opt_state.hyperparams["learning_rate"].sharding
    print(len(jax.devices()), step.compiled._cache_size(), found == everywhere)
""")


@pytest.mark.slow
def test_on_four_devices_a_value_that_is_set_compiles_nothing():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=os.environ | flags, capture_output=True, text=True)
    assert done.stdout.split() == ["4", "1", "True"], done.stderr
