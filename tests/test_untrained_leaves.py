"""Random keys, integers and flags among the params pass through every rule and wrapper, and change nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import RULES, WRAPPERS
from rows import Wrapper
from tiers import over

import jgd

UNTRAINED = {
    "key": jax.random.key(0),
    "keys": jax.random.split(jax.random.key(1), 2),
    "raw": jax.random.PRNGKey(2),
    "n": jnp.arange(2),
    "flag": jnp.array(True),
}
CLIMB = jgd.chain(jgd.normalize(), jgd.sgd(0.05))
AROUND = [
    *(row for row in WRAPPERS if row.around is not None),
    Wrapper("sam", lambda inner: jgd.sam(inner, CLIMB)),
    Wrapper("sam_opaque", lambda inner: jgd.sam(inner, CLIMB, opaque_mode=True)),
    Wrapper("mechanize", jgd.mechanize),
    Wrapper("MultiSteps", lambda inner: jgd.MultiSteps(inner, 2).gradient_transformation()),
    Wrapper("lookahead_reset", lambda inner: jgd.lookahead(inner, 2, reset_state=True)),
    Wrapper("stochastic_rounding", jgd.stochastic_rounding),
    Wrapper("split_master_weights", jgd.split_master_weights),
    Wrapper("split_real_and_imaginary", jgd.split_real_and_imaginary),
    Wrapper("before", lambda inner: jgd.chain(jgd.clip_by_global_norm(1.0), jgd.normalize(), jgd.sgd(1.0), inner)),
    Wrapper("after", lambda inner: jgd.chain(inner, jgd.add_decayed_weights(0.1), jgd.scale_by_learning_rate(1.0))),
    Wrapper("frozen_group", lambda inner: jgd.groups({"w": inner, "rest": None}, default="rest")),
    Wrapper("partition", lambda inner: jgd.partition({"a": inner, "b": jgd.set_to_zero()}, labels)),
]
MEANT = ("schedule_free", "accumulate", "sam", "sam_opaque", "mechanize", "MultiSteps", "before", "frozen_group")


def labels(params):
    return {name: "a" if name == "w" else "b" for name in params}


def loss(params):
    return jnp.sum((params["w"] - 2.0) ** 2)


def descend(optimizer, params, needs=(), steps=3):
    """Where the params are, and where they are to be evaluated."""
    gradient = jax.grad(loss, allow_int=True)
    full, evaluated = optax.with_extra_args_support(optimizer), "the params themselves"
    state = full.init(params)
    for _ in range(steps):
        grads = gradient(params)
        known = {"value": loss(params), "grad": grads, "value_fn": loss, "obj_fn": loss}
        known["grad_fn"] = lambda params, _: gradient(params)
        updates, state = full.update(grads, state, params, **{name: known[name] for name in needs})
        params = jgd.apply_updates(params, updates)
        evaluated = jgd.eval_params(state, params)
    return params, evaluated


def check_untrained_leaves_pass(optimizer, needs=(), rtol=1e-5):
    w = jnp.asarray(np.cos(np.arange(6.0)).reshape(3, 2), jnp.float32)

    @jax.jit
    def both(w):
        return descend(optimizer, {**UNTRAINED, "w": w}, needs), descend(optimizer, {"w": w}, needs)

    beside, alone = both(w)
    for found, expected in zip(beside, alone, strict=True):
        assert set(found) == {*UNTRAINED, "w"}
        for name, leaf in UNTRAINED.items():
            assert found[name].dtype == leaf.dtype
            assert np.array_equal(*map(jax.random.key_data, (found[name], leaf))) if name[:3] == "key" else True
            assert name[:3] == "key" or np.array_equal(found[name], leaf)
        np.testing.assert_allclose(found["w"], expected["w"], rtol=rtol)
    assert np.any(beside[0]["w"] != w)


@over("wrapper", AROUND, fast=lambda row: row.name in MEANT)
def test_wrappers_let_them_pass(wrapper):
    needs = ("grad_fn",) if wrapper.name == "sam_opaque" else ()
    check_untrained_leaves_pass(wrapper.around(jgd.sgd(0.1)), needs)


@over("rule", RULES, fast=lambda rule: rule.name in ("sgd", "galore", "sophia"))
def test_rules_let_them_pass(rule):
    # A random direction is drawn leaf by leaf, from a key for each.
    rtol = 1e-5 if rule.name not in RANDOM else 1e9
    check_untrained_leaves_pass(rule.make(), rule.needs, rtol)


RANDOM = ("noisy_sgd", "sophia", "kron", "dion", "apollo")


@over("wrapper", AROUND, fast=lambda row: row.name in ("skip_nonfinite", "sam"))
def test_a_key_in_the_state_goes_through_wrappers(wrapper):
    needs = ("grad_fn",) if wrapper.name == "sam_opaque" else ()
    params, _ = jax.jit(lambda w: descend(wrapper.around(jgd.noisy_sgd(0.1)), {"w": w}, needs))(jnp.ones((3, 2)))
    assert np.all(np.isfinite(params["w"]))


def test_schedule_free_evaluates_integers_as_they_are():
    params = {"n": jnp.arange(100), "w": jnp.ones(1)}
    state = jgd.schedule_free_sgd(0.1).init(params)
    np.testing.assert_array_equal(jgd.eval_params(state, params)["n"], np.arange(100))


@pytest.mark.parametrize("update", [None, np.zeros((), jax.dtypes.float0), jnp.zeros((), jnp.int32)])
def test_a_key_stays_whatever_its_update(update):
    key = jax.random.key(0)
    assert jgd.apply_updates({"key": key}, {"key": update})["key"] is key
