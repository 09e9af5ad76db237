"""What optax's main branch has and its release 0.2.8 has not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jgd

PARAMS = {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "count": jnp.array(3), "bias": jnp.array([0.3, -0.4])}


def prodigy_steps(optimizer):
    params, state, found = PARAMS, optimizer.init(PARAMS), []
    for i in range(4):
        grads = jax.tree.map(lambda p, i=i: jnp.cos(p + i) if p.ndim else jnp.zeros_like(p), params)
        updates, state = optimizer.update(grads, state, params)
        params = jgd.apply_updates(params, updates)
        found.append(params)
    return found, state


def test_prodigy_decays_the_leaves_of_its_mask_alone():
    """Without a mask one decays all; with one, the others move by the same steps without decay."""
    settings = {"estim_lr0": 0.1, "weight_decay": 0.5}
    first = [prodigy_steps(jgd.prodigy(**settings, weight_decay_mask=mask))[0][0] for mask in (None, "matrices")]
    bare = prodigy_steps(jgd.prodigy(estim_lr0=0.1))[0][0]
    np.testing.assert_array_equal(first[1]["kernel"], first[0]["kernel"])
    np.testing.assert_array_equal(first[1]["bias"], bare["bias"])
    assert not np.array_equal(first[0]["bias"], bare["bias"])


@pytest.mark.parametrize("mask", [{"kernel": True, "count": False, "bias": True}, True, lambda params: True])
def test_a_mask_of_all_leaves_is_none(mask):
    expected, state = prodigy_steps(jgd.prodigy(estim_lr0=0.1, weight_decay=0.5))
    found, masked_state = prodigy_steps(jgd.prodigy(estim_lr0=0.1, weight_decay=0.5, weight_decay_mask=mask))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert jax.tree.structure(state) == jax.tree.structure(masked_state)


def test_prodigy_with_a_mask_follows_the_formula_of_optaxs_main():
    """Which is 0.2.8's with decay, plus `weight_decay * dlr * p` where the mask is False."""
    mask = {"kernel": True, "bias": False}
    params = {name: PARAMS[name] for name in mask}
    ours, theirs = (
        jgd.prodigy(0.5, estim_lr0=0.1, weight_decay=0.2, weight_decay_mask=mask),
        optax.contrib.prodigy(0.5, estim_lr0=0.1, weight_decay=0.2),
    )
    state, their_state = ours.init(params), theirs.init(params)
    for i in range(5):
        grads = jax.tree.map(lambda p, i=i: jnp.cos(p + i), params)
        correction = (1 - 0.999 ** (i + 1)) ** 0.5 / (1 - 0.9 ** (i + 1))
        rate = their_state.estim_lr * 0.5 * correction
        updates, state = ours.update(grads, state, params)
        expected, their_state = theirs.update(grads, their_state, params)
        expected = {"kernel": expected["kernel"], "bias": expected["bias"] + 0.2 * rate * params["bias"]}
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6), updates, expected)
        params = jgd.apply_updates(params, updates)


def test_a_mask_of_prodigys_that_does_not_fit():
    with pytest.raises(ValueError, match=r"prodigy: the mask is not a prefix of the params"):
        jgd.prodigy(weight_decay_mask={"other": True}).init(PARAMS)


def test_dpsgd_takes_a_key_by_position_and_either_name():
    grads = {"w": jnp.arange(6.0).reshape(3, 2)}
    params = {"w": jnp.zeros(2)}

    def update(*args, **kwargs):
        optimizer = jgd.dpsgd(0.1, 1.0, 0.5, *args, **kwargs)
        return optimizer.update(grads, optimizer.init(params), params)[0]["w"]

    expected = update(jax.random.key(7))
    for found in (update(7), update(key=7), update(seed=7), update(jax.random.PRNGKey(7))):
        np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(update(8), expected)
    np.testing.assert_array_equal(update(), update(0))


PRIVATE = {
    "dpsgd": lambda **keys: jgd.dpsgd(0.1, 1.0, 0.5, **keys),
    "differentially_private_aggregate": lambda **keys: jgd.differentially_private_aggregate(1.0, 0.5, **keys),
}


@pytest.mark.parametrize("make", PRIVATE.values(), ids=PRIVATE)
def test_a_key_and_a_seed_are_one_too_many(make):
    with pytest.raises(ValueError, match=r"seed is another name of key; give one of them"):
        make(key=1, seed=2)
