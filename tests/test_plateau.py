"""`reduce_on_plateau`: what counts as an improvement, whatever the loss's sign."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jgd


def scales(optimizer, values):
    """The scale after each value."""
    state = optimizer.init(jnp.zeros(1))

    def step(state, value):
        updates, state = optimizer.update(jnp.ones(1), state, value=value)
        return state, updates[0]

    return np.asarray(jax.jit(lambda values: jax.lax.scan(step, state, values)[1])(jnp.asarray(values, jnp.float32)))


@pytest.mark.parametrize("value", [5.0, 1e-3, 0.0, -1e-3, -5.0])
def test_a_value_that_stays_is_no_improvement(value):
    reduced = scales(jgd.reduce_on_plateau(0.5, patience=2, rtol=0.01), [value] * 8)
    np.testing.assert_array_equal(reduced, [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125])


def test_an_improvement_is_relative_to_the_size_of_the_best():
    optimizer = jgd.reduce_on_plateau(0.5, patience=1, rtol=0.1)
    # down by more than a tenth of its size, across zero, by less than a tenth, up
    np.testing.assert_array_equal(scales(optimizer, [10.0, 8.9, -1.0, -1.2, -1.25, -1.1]), [1, 1, 1, 1, 0.5, 0.25])


def test_above_zero_it_is_optax():
    values = np.abs(np.random.default_rng(0).normal(size=60)) + np.linspace(2, 0.1, 60)
    settings = {"factor": 0.7, "patience": 3, "rtol": 0.05, "atol": 0.01, "cooldown": 2, "accumulation_size": 2}
    found = scales(jgd.reduce_on_plateau(**settings), values)
    np.testing.assert_array_equal(found, scales(optax.contrib.reduce_on_plateau(**settings), values))
    assert found[-1] < 0.5
