"""Optimizers that differ in arrays alone need one program, where a library looks for the arrays in their closures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import RULES, WRAPPERS
from tiers import over

import jgd
from jgd.core import Cached
from jgd.core._fingerprints import fingerprint

eqx = pytest.importorskip("equinox")
import equinox.internal  # noqa: E402

PARAMS = {"kernel": jnp.arange(12.0).reshape(4, 3) / 10, "bias": jnp.ones(3)}
# Where its steps start is in what makes the slots, and each array is a rule of its own.
STARTS_FROM_ITS_RATE = ("rprop",)


def opened(optimizer):
    """As `optimistix.OptaxMinimiser` takes an optimizer."""
    return equinox.internal.closure_to_pytree(optimizer)


def static(optimizer):
    return jax.tree.flatten(eqx.filter(opened(optimizer), eqx.is_array, inverse=True))


@over("rule", [r for r in RULES if r.first and r.name not in STARTS_FROM_ITS_RATE], fast=lambda rule: rule.stands_for)
def test_the_same_rule_with_another_array_is_the_same_program(rule):
    one, other = (static(rule.factory(jnp.array(rate), *rule.first[1:])) for rate in (0.1, 0.2))
    assert one == other
    assert [hash(leaf) for leaf in one[0]] == [hash(leaf) for leaf in other[0]]


@over("wrapper", [row for row in WRAPPERS if row.around])
def test_the_same_wrapper_around_another_array_is_the_same_program(wrapper):
    one, other = (static(wrapper.around(jgd.adamw(jnp.array(rate)))) for rate in (0.1, 0.2))
    assert one == other


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (jgd.adamw(jnp.array(0.1)), jgd.adamw(jnp.array(0.1), nesterov=True)),
        (jgd.adamw(jnp.array(0.1)), jgd.adamw(jnp.array(0.1), b1=0.8)),
        (jgd.adamw(jnp.array(0.1)), jgd.adamw(jnp.array(0.1), mask={"kernel": True, "bias": False})),
        (jgd.adam(jnp.array(0.1)), jgd.adam(jnp.array(0.1), state_dtype="bfloat16")),
        (jgd.adam(jnp.array(0.1)), jgd.adam(jnp.array(0.1), layout="packed")),
        (jgd.muon(jnp.array(0.1)), jgd.muon(jnp.array(0.1), ns_steps=3)),
        (jgd.sgd(jnp.array(0.1)), jgd.sgd(jnp.array(0.1), momentum=0.9)),
        (jgd.clip(1.0), jgd.clip(2.0)),
    ],
)
def test_what_differs_in_more_is_not_the_same(one, other):
    assert static(one) != static(other)


def test_one_program_and_each_its_own_steps():
    traces = []

    @eqx.filter_jit
    def run(optimizer, params):
        traces.append(None)
        state = optimizer.init(params)
        updates, state = optimizer.update(params, state, params)
        return updates, jgd.get_hyperparams(state)

    for rate in (0.1, 0.2, 0.4):
        largest = 2 * rate
        optimizer = jgd.chain(jgd.clip(jnp.array(largest)), jgd.sgd(jnp.array(rate)))
        updates, hyperparams = run(opened(optimizer), PARAMS)
        expected = jax.tree.map(lambda p, rate=rate, top=largest: -rate * np.minimum(p, top), PARAMS)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updates, expected)
        np.testing.assert_allclose(hyperparams["learning_rate"], rate)
    assert len(traces) == 1


def test_a_state_set_to_another_rate_goes_on_with_it():
    """The numbers of the state are what counts, whatever the optimizer came with."""
    optimizer = opened(jgd.sgd(jnp.array(0.1)))
    state = jgd.set_hyperparams(optimizer.init(PARAMS), learning_rate=0.5)
    updates, _ = eqx.filter_jit(lambda o, s: o.update(PARAMS, s, PARAMS))(optimizer, state)
    np.testing.assert_allclose(updates["bias"], -0.5 * PARAMS["bias"])


def test_what_does_the_same_has_one_fingerprint():
    def make(number, text="a"):
        def recursive(n):
            return recursive(n - 1) if n else number

        return [lambda x: x + number, recursive, functools.partial(max, number), {"t": text}, Cached(lambda: number)]

    assert fingerprint(make(1)) == fingerprint(make(1))
    assert hash(fingerprint(make(1))) == hash(fingerprint(make(1)))
    for other in (make(2), make(1.0), make(True), make(1, "b")):
        assert fingerprint(make(1)) != fingerprint(other)
    assert fingerprint(lambda x: x + 1) != fingerprint(lambda x: x + 2)
    assert fingerprint(np.arange(3)) == fingerprint(np.arange(3)) != fingerprint(np.arange(3.0))
    array = jnp.ones(2)
    assert fingerprint(array) == fingerprint(array) != fingerprint(jnp.ones(2))
    assert Cached(make) == Cached(make)
    assert Cached(make) != Cached(lambda number: make(number))
