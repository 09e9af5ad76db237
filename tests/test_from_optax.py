"""`import jgd as optax`: every public name of optax is found, and jgd's own goes before."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jgd

MODULES = [name for name in dir(optax) if inspect.ismodule(getattr(optax, name)) and not name.startswith("_")]


def public(module):
    return [name for name in dir(module) if not name.startswith("_")]


def test_every_name_of_optax_is_found():
    missing = [name for name in public(optax) if not hasattr(jgd, name)]
    assert missing == []
    assert len(MODULES) >= 10


@pytest.mark.parametrize("name", MODULES)
def test_every_name_of_its_modules_is_found(name):
    ours, theirs = getattr(jgd, name), getattr(optax, name)
    assert [part for part in public(theirs) if not hasattr(ours, part)] == []


def test_jgds_own_goes_before():
    for name in set(public(optax)) & set(vars(jgd)):
        assert getattr(jgd, name) is vars(jgd)[name], name
    for name in public(optax.contrib):
        if name in vars(jgd):
            assert getattr(jgd.contrib, name) is vars(jgd)[name], name
    assert jgd.multi_transform is jgd.partition
    steps = jgd.MultiSteps(jgd.sgd(0.1), 2)
    assert isinstance(steps.init(jnp.ones(2)), jgd.MultiStepsState)


def test_what_neither_has_is_an_error():
    for module in (jgd, jgd.contrib, jgd.transforms):
        with pytest.raises(AttributeError, match=rf"module '{module.__name__}' has no attribute 'no_such_name'"):
            _ = module.no_such_name
        assert not hasattr(module, "_src")


def test_names_handed_on_are_not_listed():
    """`dir(jgd)` and completion show what is jgd's, and the linesearches, losses and types of optax do not hide it."""
    listed = set(dir(jgd))
    assert "scale_by_adam" not in listed
    assert "l2_loss" not in listed


def test_a_chain_of_optaxs_parts_by_jgds_names():
    def chain(names):
        return names.chain(
            names.clip_by_global_norm(1.0),
            names.scale_by_adam(b1=0.8),
            names.add_decayed_weights(0.1),
            names.trace(0.5),
            names.scale_by_schedule(names.cosine_decay_schedule(1.0, 10)),
            names.scale_by_learning_rate(0.1),
        )

    def run(names):
        optimizer, params = names.apply_if_finite(chain(names), 3), {"w": jnp.arange(3.0)}
        state = optimizer.init(params)
        for _ in range(3):
            grads = jax.grad(lambda p: jnp.sum(names.l2_loss(p["w"], jnp.ones(3))))(params)
            updates, state = optimizer.update(grads, state, params)
            params = names.apply_updates(params, updates)
        average = names.incremental_update(params, {"w": jnp.zeros(3)}, 0.5)
        return names.projections.projection_non_negative(names.tree.scale(2.0, average))["w"]

    np.testing.assert_allclose(run(jgd), run(optax), rtol=1e-5)


def test_a_factory_of_jgds_with_its_numbers_injected():
    optimizer = jgd.inject_hyperparams(jgd.adam)(learning_rate=0.1)
    state = optimizer.init(jnp.ones(2))
    state.hyperparams["learning_rate"] = jnp.asarray(0.5)
    updates, _ = jax.jit(optimizer.update)(jnp.ones(2), state)
    np.testing.assert_allclose(updates, -0.5 * jnp.ones(2), rtol=1e-5)
