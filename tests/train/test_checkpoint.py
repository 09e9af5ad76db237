"""One state on disk."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgd

PARAMS = {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(3, jnp.bfloat16)}


@pytest.mark.parametrize(
    "optimizer",
    [jgd.adamw(0.1), jgd.chain(jgd.clip_by_global_norm(1.0), jgd.muon(0.1)), jgd.gradient_descent(0.1)],
    ids=["adamw", "chain_with_muon", "gradient_descent"],
)
@pytest.mark.parametrize("key", [None, 3])
def test_what_was_saved_comes_back(tmp_path, optimizer, key):
    model_state = {"mean": jnp.arange(2.0)}
    state = jgd.TrainState.create(PARAMS, optimizer, key=key, model_state=model_state)
    state = jgd.set_hyperparams(state, learning_rate=0.25)._replace(step=jnp.int32(7))
    path = jgd.save_checkpoint(tmp_path / "checkpoint", state)
    like = jgd.TrainState.create(jax.tree.map(np.zeros_like, PARAMS), optimizer, key=key, model_state=model_state)
    restored = jgd.restore_checkpoint(path, like)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    if key is not None:
        assert restored.key.dtype == state.key.dtype
        restored, state = (each._replace(key=jax.random.key_data(each.key)) for each in (restored, state))
    for found, expected in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_a_checkpoint_of_other_shapes_or_leaves_is_refused_by_name(tmp_path):
    path = jgd.save_checkpoint(tmp_path / "checkpoint", jgd.TrainState.create(PARAMS, jgd.adam(0.1)))
    wider = jgd.TrainState.create(PARAMS | {"kernel": jnp.ones((2, 4))}, jgd.adam(0.1))
    with pytest.raises(ValueError, match=r"leaf \S*kernel has shape \(2, 3\); the state expects \(2, 4\)"):
        jgd.restore_checkpoint(path, wider)
    fewer = jgd.TrainState.create({"kernel": PARAMS["kernel"]}, jgd.adam(0.1))
    with pytest.raises(ValueError, match=r"the checkpoint has a leaf \S*bias that the state lacks"):
        jgd.restore_checkpoint(path, fewer)


def test_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*nothing"):
        jgd.restore_checkpoint(tmp_path / "nothing", jgd.TrainState.create(PARAMS, jgd.adam(0.1)))


def test_every_leaf_that_differs_is_named(tmp_path):
    path = jgd.save_checkpoint(tmp_path / "checkpoint", jgd.TrainState.create(PARAMS, jgd.adam(0.1), key=0))
    other = {"kernel": jnp.ones((2, 4)), "bias": jnp.ones(3), "scale": jnp.ones(1)}
    with pytest.raises(ValueError, match="does not fit") as caught:
        jgd.restore_checkpoint(path, jgd.TrainState.create(other, jgd.sgd(0.1)))
    message = str(caught.value)
    for part in (
        "leaf params.kernel has shape (2, 3); the state expects (2, 4)",
        "leaf params.bias has dtype bfloat16; the state expects float32",
        "the state has a leaf params.scale that the checkpoint lacks",
        "the checkpoint has a leaf opt_state.slots.mu.kernel that the state lacks",
        "the checkpoint has a leaf key that the state lacks",
    ):
        assert part in message, message


def test_unusual_leaves_come_back(tmp_path):
    params = {"a/b": jnp.zeros((0, 3)), "half": jnp.float16(2), "c": jnp.array(1 + 2j), "none": None}
    params["inner"] = {1: [jnp.arange(3), {}]}
    state = jgd.TrainState.create(params, jgd.gradient_descent(0.1), key=jax.random.key(1, impl="rbg"))
    restored = jgd.restore_checkpoint(jgd.save_checkpoint(tmp_path / "checkpoint", state), like=state)
    assert restored.key.dtype == state.key.dtype
    np.testing.assert_array_equal(*(jax.random.key_data(each.key) for each in (restored, state)))
    restored, state = (each._replace(key=None) for each in (restored, state))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert [leaf.dtype for leaf in jax.tree.leaves(restored)] == [leaf.dtype for leaf in jax.tree.leaves(state)]


def test_a_state_comes_back_in_its_sharding(tmp_path):
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spread, copied = (jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes)) for axes in (("d",), ()))
    state = jgd.TrainState.create(np.arange(16, dtype=np.float32), jgd.adam(0.1))
    state = jax.tree.map(lambda x: jax.device_put(x, spread if x.ndim else copied), state)
    back = jgd.restore_checkpoint(jgd.save_checkpoint(tmp_path / "checkpoint", state), like=state)
    for found, expected in zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True):
        assert found.sharding == expected.sharding
        np.testing.assert_array_equal(found, expected)


@pytest.mark.slow  # a process with eight devices
def test_a_state_that_is_spread_over_devices_comes_back_spread(tmp_path):
    code = f"""
import jax, jax.numpy as jnp, numpy as np, jgd
from jax.sharding import NamedSharding, PartitionSpec as P
mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
w = jax.device_put(jnp.arange(16.0), NamedSharding(mesh, P("d")))
state = jgd.TrainState.create(w, jgd.adam(0.1))
state = jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, P("d") if x.ndim else P())), state)
path = jgd.save_checkpoint({str(tmp_path / "c")!r}, state)
back = jgd.restore_checkpoint(path, like=state)
for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(state)):
    assert a.sharding == b.sharding, (a.sharding, b.sharding)
    np.testing.assert_array_equal(a, b)
print(len(back.params.sharding.device_set))
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **flags}, capture_output=True, text=True)
    assert done.stdout.strip() == "8", done.stderr
