"""Slots as attributes of a state, as code that was written for optax's states reads them."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import RULES

import jgd

PARAMS = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}


def states_of(tree):
    def is_state(node):
        return isinstance(node, jgd.OptState)

    return [node for node in jax.tree.leaves(tree, is_leaf=is_state) if is_state(node)]


def test_each_slot_of_each_rule_is_an_attribute():
    for rule in RULES:
        for state in states_of(jax.eval_shape(rule.make().init, PARAMS)):
            for name, slot in state.slots.items():
                assert getattr(state, name) is slot, (rule.name, name)


@pytest.mark.parametrize(
    ("ours", "theirs", "names"),
    [
        (jgd.adam(0.1), optax.adam(0.1), ("mu", "nu")),
        (jgd.sgd(0.1, momentum=0.9), optax.sgd(0.1, momentum=0.9), ("trace",)),
        (jgd.adabelief(0.1), optax.adabelief(0.1), ("mu", "nu")),
        (jgd.lion(0.1), optax.lion(0.1), ("mu",)),
        (jgd.rmsprop(0.1), optax.rmsprop(0.1), ("nu",)),
    ],
    ids=["adam", "sgd", "adabelief", "lion", "rmsprop"],
)
def test_they_are_what_optax_has_under_the_name(ours, theirs, names):
    _, state = ours.update(PARAMS, ours.init(PARAMS), PARAMS)
    _, expected = theirs.update(PARAMS, theirs.init(PARAMS), PARAMS)
    for name in names:
        found = getattr(state, name)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, getattr(expected[0], name))


def test_the_memory_of_lbfgs_is_read_as_optax_has_it():
    """blackjax's pathfinder does."""
    optimizer = jgd.lbfgs(memory_size=3)
    state = optimizer.init(jnp.ones(4))[0]
    assert state.diff_params_memory.shape == state.diff_updates_memory.shape == (3, 4)
    assert state.weights_memory.shape == (3,)
    assert int(state.count) == 0


def test_another_name_is_an_error_that_lists_those_there_are():
    state = jgd.adam(0.1).init(PARAMS)
    with pytest.raises(
        AttributeError, match=r"no attribute 'trace'; its fields are .*its slots: mu, nu\. Hyperpar.*b1"
    ):
        _ = state.trace
    with pytest.raises(AttributeError, match=r"its slots: none\. Hyperparameters are in state\.hyperparams: learning"):
        _ = jgd.sgd(0.1).init(PARAMS).mu


def test_a_state_is_copied_pickled_and_mapped_as_before():
    state = jgd.adam(0.1).init(PARAMS)
    for made in (copy.copy(state), copy.deepcopy(state), pickle.loads(pickle.dumps(state)), jax.tree.map(abs, state)):
        assert jax.tree.structure(made) == jax.tree.structure(state)
    assert not hasattr(state, "__jax_array__")
    assert not hasattr(state, "eval_params")
    assert optax.tree.get(state, "mu") is state.mu
    treedef = jax.tree.structure(state)
    assert treedef.unflatten([None] * treedef.num_leaves) is not None
