"""Optax's states as jgd's, and back."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from optax_runs import first_params, largest_difference, run

import jgd
from jgd.compat.optax import from_optax_state, lift, to_optax_state


class Layer(NamedTuple):
    w: jax.Array
    b: jax.Array


# optax's factory and its arguments beside the learning rate; jgd's has the same name.
METHODS = {
    "adam": {},
    "nadam": {},
    "adamw": {"weight_decay": 0.1},
    "nadamw": {"weight_decay": 0.1},
    "amsgrad": {},
    "lion": {},
    "sgd": {"momentum": 0.9, "nesterov": True},
    "rmsprop": {},
    "rmsprop_momentum": {"momentum": 0.9},
    "rmsprop_full": {"momentum": 0.9, "centered": True, "nesterov": True, "bias_correction": True},
    "adagrad": {},
    "adadelta": {},
    "adamax": {},
    "adamaxw": {},
    "adabelief": {},
    "yogi": {},
    "radam": {},
    "adan": {},
    "lamb": {},
    "lars": {},
    "novograd": {},
    "signum": {},
    "sm3": {},
    "rprop": {},
    "ademamix": {},
    "adopt": {},
    "prodigy": {},
    "dog": {},
    "muon": {},
    "optimistic_gradient_descent": {},
}


# Where optax's state is like no other's: its names, counts, signs, masks and parts. The rest are states like these.
IN_THE_FAST_TIER = (
    "adamw", "sgd", "rmsprop_momentum", "rmsprop_full", "adadelta", "adan", "lars", "signum", "ademamix", "prodigy",
    "dog", "muon", "optimistic_gradient_descent",
)  # fmt: skip


def both(method, rate=0.02):
    name = method.split("_momentum")[0].split("_full")[0]
    theirs = getattr(optax, name, None) or getattr(optax.contrib, name)
    return theirs(rate, **METHODS[method]), getattr(jgd, name)(rate, **METHODS[method])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=() if name in IN_THE_FAST_TIER else pytest.mark.slow) for name in METHODS]
)
def test_a_run_changes_from_optax_to_jgd_and_back_without_a_mark(method):
    theirs, ours = both(method)
    start = first_params(jnp.float64)
    expected, _ = run(theirs, start, theirs.init(start), 9)

    params, their_state = run(theirs, start, theirs.init(start), 3)
    state = from_optax_state(their_state, ours.init(start))
    back = to_optax_state(state, theirs.init(start))
    assert jax.tree.structure(back) == jax.tree.structure(their_state)
    jax.tree.map(np.testing.assert_array_equal, back, their_state)

    params, state = run(ours, params, state, 3)
    again, _ = run(theirs, params, to_optax_state(state, theirs.init(start)), 3)
    assert largest_difference(again, expected) < 1e-11


def test_hyperparameters_stay_those_of_jgd():
    params = first_params()
    state = from_optax_state(optax.adam(0.1).init(params), jgd.adam(0.5, b1=0.7).init(params))
    assert float(state.hyperparams["b1"]) == pytest.approx(0.7)


def test_low_precision_comes_back_as_it_was():
    params = first_params(jnp.bfloat16)
    theirs = optax.adam(0.1)
    _, their_state = run(theirs, params, theirs.init(params), 2)
    state = from_optax_state(their_state, jgd.adam(0.1).init(params))
    assert state.slots["nu"]["w"].dtype == jnp.float32
    back = to_optax_state(state, theirs.init(params))
    assert back[0].nu["w"].dtype == jnp.bfloat16
    jax.tree.map(np.testing.assert_array_equal, back, their_state)


def test_states_within_chains_and_wrappers_are_found():
    params = first_params()
    schedule = optax.constant_schedule(0.1)
    chains = {
        "chain": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule)),
        "inject": optax.inject_hyperparams(optax.adam)(0.1),
        "lift": lift(optax.adam, 0.1),
    }
    for theirs in chains.values():
        _, their_state = run(theirs, params, theirs.init(params), 2)
        ours = jgd.chain(jgd.clip_by_global_norm(1.0), jgd.adam(0.1))
        state = from_optax_state(their_state, ours.init(params))
        assert [int(part.count) for part in state] == [2, 2]
        back = to_optax_state(state, theirs.init(params))
        np.testing.assert_array_equal(optax.tree.get(back, "mu")["w"], optax.tree.get(their_state, "mu")["w"])


def test_the_count_is_that_of_the_part_that_has_counted_most():
    params, clip = first_params(), jgd.clip_by_global_norm(1.0)  # put before an optimizer in the middle of its run
    _, state = run(jgd.adam(0.1), params, jgd.adam(0.1).init(params), 2)
    back = to_optax_state((clip.init(params), state), optax.adam(0.1).init(params))
    assert int(optax.tree.get(back, "count")) == 2


def test_parts_of_a_partition_are_groups():
    params = first_params()
    theirs = optax.partition({"a": optax.adam(0.1), "b": optax.lion(0.1)}, {"w": "a", "b": "b"})
    _, their_state = run(theirs, params, theirs.init(params), 2)
    ours = jgd.groups({"a": jgd.adam(0.1), "b": jgd.lion(0.1)}, {"w": "a", "b": "b"})
    state = from_optax_state(their_state, ours.init(params))
    jax.tree.map(np.testing.assert_array_equal, to_optax_state(state, theirs.init(params)), their_state)


def test_masked_leaves_stay_masked():
    params = {"w": jnp.ones(2), "steps": jnp.arange(3)}
    theirs = optax.masked(optax.adam(0.1), {"w": True, "steps": False})
    state = from_optax_state(theirs.init(params), jgd.adam(0.1).init(params))
    assert isinstance(state.slots["mu"]["steps"], optax.MaskedNode)


def test_a_count_that_optax_lacks_is_kept():
    params = first_params()
    ours = jgd.sgd(0.1, momentum=0.9)
    state = ours.init(params)._replace(count=jnp.asarray(7, jnp.int32))
    assert int(from_optax_state(optax.sgd(0.1, momentum=0.9).init(params), state).count) == 7


def test_other_names_may_be_given():
    params = first_params()
    theirs = optax.ema(0.9)
    _, their_state = theirs.update(params, theirs.init(params))
    state = from_optax_state(their_state, jgd.sgd(0.1, momentum=0.9).init(params), names={"trace": "ema"})
    np.testing.assert_array_equal(state.slots["trace"]["w"], their_state.ema["w"])


MISMATCHES = {
    "a slot less": (optax.lion(0.1), jgd.adam(0.1), r"nothing for the slot 'nu' at \['b'\]"),
    "a slot more": (
        optax.amsgrad(0.1),
        jgd.adam(0.1),
        r"\[0\]\.nu_max at \['b'\], for which the jgd state has no slot",
    ),
    "two of a kind": (optax.chain(optax.adam(0.1), optax.adam(0.1)), jgd.adam(0.1), "more than once"),
    "two parts": (optax.adam(0.1), jgd.chain(jgd.adam(0.1), jgd.adam(0.1)), "two parts of the jgd state"),
}


@pytest.mark.parametrize("mismatch", MISMATCHES)
def test_what_does_not_fit_is_said_by_name(mismatch):
    theirs, ours, message = MISMATCHES[mismatch]
    params = first_params()
    with pytest.raises(ValueError, match=message):
        from_optax_state(theirs.init(params), ours.init(params))
    with pytest.raises(ValueError, match=message):
        to_optax_state(ours.init(params), theirs.init(params))


def test_a_wrong_shape_or_no_state_at_all_is_refused():
    with pytest.raises(ValueError, match=r"\[0\]\.mu at \['w'\] has shape \(3,\); expected \(2,\)"):
        from_optax_state(optax.adam(0.1).init({"w": jnp.ones(3)}), jgd.adam(0.1).init({"w": jnp.ones(2)}))
    with pytest.raises(TypeError, match="jgd optimizer"):
        from_optax_state(optax.adam(0.1).init(jnp.ones(3)), optax.adam(0.1).init(jnp.ones(3)))


def test_params_may_be_named_tuples():
    layer = Layer(jnp.ones((2, 3)), jnp.ones(3))
    theirs = optax.adam(0.1)
    _, their_state = theirs.update(layer, theirs.init(layer))
    state = from_optax_state(their_state, jgd.adam(0.1).init(layer))
    np.testing.assert_array_equal(state.slots["mu"].w, their_state[0].mu.w)
    jax.tree.map(np.testing.assert_array_equal, to_optax_state(state, theirs.init(layer)), their_state)
