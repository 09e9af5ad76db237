"""States on disk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgd

PARAMS = {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3, jnp.bfloat16)}


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
    like = jgd.TrainState.create(jax.tree.map(jnp.zeros_like, PARAMS), optimizer, key=key, model_state=model_state)
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
