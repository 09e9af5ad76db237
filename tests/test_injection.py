"""`optax.inject_hyperparams` around jgd's factories: their numbers come as arrays, the optimizer anew each time."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import RULES
from small_problem import quadratic, small_params
from tiers import over

import jgd

# Arguments that decide what a program or a state looks like: optax must be told that they are no hyperparameters.
FIXED = {
    "sgdp": ("channel_axis",),
    "adamp": ("channel_axis",),
    "adopt": ("clip_value_fn",),
    "apollo": ("rank",),
    "dion": ("rank_multiple_of", "power_iters", "rank_fraction"),
    "shampoo": ("block_size",),
    "soap": ("max_precond_dim",),
    "lbfgs": ("memory_size",),
}
# These decide the state alone: an update reads them off it.
FIXED_AT_INIT = {
    "adafactor": ("min_dim_size_to_factor",),
    "galore": ("rank",),
    "kron": ("min_ndim_triangular", "max_size_triangular"),
}
MEANT = ("sgd", "adam", "adafactor", "muon")


def injected(rule, static_args=()):
    names = list(inspect.signature(rule.factory).parameters)
    return optax.inject_hyperparams(rule.factory, static_args=static_args)(**dict(zip(names, rule.first, strict=False)))


def traced_update(optimizer, rule, state):
    params = grads = small_params()
    extra = rule.extra(quadratic, params, grads)
    update = optax.with_extra_args_support(optimizer).update
    return jax.eval_shape(lambda grads, state, params: update(grads, state, params, **extra), grads, state, params)


@over("rule", RULES, fast=lambda rule: rule.name in MEANT)
def test_every_rule_is_made_anew_at_each_update_under_jit(rule):
    optimizer = injected(rule, FIXED.get(rule.name, ()))
    params, state = small_params(), optimizer.init(small_params())
    updates, after = traced_update(optimizer, rule, state)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)
    assert jax.tree.structure(after) == jax.tree.structure(state)


@over("rule", [rule for rule in RULES if rule.name in FIXED], fast=lambda rule: not rule.dear)
def test_an_argument_that_cannot_be_traced_says_how_optax_is_told(rule):
    name = FIXED[rule.name][0]
    with pytest.raises(TypeError, match=rf"{rule.name}: {name} .*static_args=\('{name}',\)"):
        traced_update(optimizer := injected(rule), rule, optimizer.init(small_params()))


@over("rule", [rule for rule in RULES if rule.name in FIXED_AT_INIT], fast=lambda rule: rule.name == "adafactor")
def test_what_decides_the_state_cannot_be_traced_by_init(rule):
    names = FIXED_AT_INIT[rule.name]
    with pytest.raises(TypeError, match=rf"{rule.name}: {names[0]} .*static_args=\('{names[0]}',\)"):
        jax.eval_shape(injected(rule).init, small_params())
    jax.eval_shape(injected(rule, names).init, small_params())


@pytest.mark.parametrize("jit", [True, False], ids=["jit", "eager"])
def test_a_schedule_takes_effect(jit):
    optimizer = optax.inject_hyperparams(jgd.sgd)(learning_rate=optax.linear_schedule(1.0, 0.0, 4))
    state, found = optimizer.init(jnp.zeros(1)), []
    for _ in range(4):
        updates, state = (jax.jit(optimizer.update) if jit else optimizer.update)(jnp.ones(1), state)
        found.append(float(updates[0]))
    assert found == [-1.0, -0.75, -0.5, -0.25]
    assert float(jgd.get_hyperparams(state)["learning_rate"]) == 0.25


def test_a_number_set_in_the_state_takes_effect_outside_of_jit():
    optimizer = optax.inject_hyperparams(jgd.cautious_decay, static_args="optimizer")(jgd.sgd(0.0), weight_decay=0.5)
    params, state = jnp.ones(1), optimizer.init(jnp.ones(1))
    state.hyperparams["weight_decay"] = jnp.array(0.25)
    updates, _ = optimizer.update(jnp.ones(1), state, params)
    np.testing.assert_array_equal(updates, [0.0])  # the rate is zero, and the decay is times it
    optimizer = optax.inject_hyperparams(jgd.clip)(max_delta=1.0)
    state = optimizer.init(params)
    state.hyperparams["max_delta"] = jnp.array(0.25)
    np.testing.assert_array_equal(optimizer.update(params, state, params)[0], [0.25])


def test_the_state_counts_where_an_array_was_given_and_nobody_injects():
    state = jgd.set_hyperparams(jgd.sgd(jnp.array(1.0)).init(jnp.zeros(1)), learning_rate=0.5)
    updates, _ = jgd.sgd(jnp.array(1.0)).update(jnp.ones(1), state)
    np.testing.assert_array_equal(updates, [-0.5])


def test_steps_of_an_iteration_may_be_traced():
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)}
    for more in ({}, {"preconditioning": "aol"}):
        plain, optimizer = jgd.muon(0.1, **more), optax.inject_hyperparams(jgd.muon)(0.1, **more)
        expected, _ = plain.update(params, plain.init(params), params)
        found, _ = jax.jit(optimizer.update)(params, optimizer.init(params), params)
        np.testing.assert_allclose(found["w"], expected["w"], rtol=1e-4)


def test_a_decay_rate_that_bfloat16_rounds_to_one_is_refused():
    params, optimizer = jnp.ones(2, jnp.bfloat16), optax.inject_hyperparams(jgd.adam)(0.1)
    with pytest.raises(ValueError, match=r"adam: b2 must .*; got 1\.0\. It came in 16 bits.*hyperparam_dtype"):
        optimizer.init(params)
    with pytest.raises(TypeError, match=r"adam: b1 is a traced bfloat16, which may be 1\. It came in 16 bits"):
        jax.eval_shape(optimizer.init, params)
    wide = optax.inject_hyperparams(jgd.adam, hyperparam_dtype=jnp.float32)(0.1)
    updates, _ = jax.jit(wide.update)(params, wide.init(params), params)
    np.testing.assert_allclose(updates.astype(jnp.float32), -0.1, rtol=1e-2)


def test_a_range_that_ends_above_one_holds_one_in_float32():
    jgd.shampoo(0.1, b2=jnp.float32(1.0))
    jgd.kron(0.1, preconditioner_update_probability=jnp.float32(1.0))
