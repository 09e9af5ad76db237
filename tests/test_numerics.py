"""The arithmetic that rules share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgd
from jgd.core import abs_sq, ascent_direction, debias, increment


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.5, 0.9, 0.999, 0.9999])
@pytest.mark.parametrize("step", [1, 2, 10, 1000, 1_000_000, 2**31 - 1])
def test_a_bias_correction_keeps_its_digits_at_any_count(decay, step):
    rate = np.float32(1 - decay)
    expected = -np.expm1(step * np.log1p(-np.float64(rate))) if rate < 1 else 1.0
    np.testing.assert_allclose(debias(jnp.asarray(rate), jnp.int32(step)), expected, rtol=1e-6)


def test_a_bias_correction_has_a_derivative_where_the_decay_is_zero():
    assert float(jax.grad(debias)(jnp.float32(1.0), jnp.int32(1))) == 1.0
    assert float(jax.grad(debias)(jnp.float32(1.0), jnp.int32(3))) == 0.0


def test_a_count_stops_at_the_largest_integer():
    assert int(increment(jnp.int32(2**31 - 1))) == 2**31 - 1
    state = jgd.adam(0.1).init(jnp.ones(1))._replace(count=jnp.int32(2**31 - 1))
    updates, state = jgd.adam(0.1).update(jnp.ones(1), state)
    assert np.isfinite(updates[0])
    assert int(state.count) == 2**31 - 1


def test_squares_of_complex_numbers_are_real():
    np.testing.assert_array_equal(abs_sq(jnp.array([3 + 4j])), [25.0])
    assert float(jgd.global_norm({"z": jnp.array([3 + 4j]), "n": jnp.arange(5), "none": None})) == 5.0


def test_the_direction_of_ascent_is_the_conjugate_of_what_jax_gives_and_real_leaves_are_untouched():
    def loss(params):
        return jnp.sum(jnp.abs(params["z"] - (1 + 2j)) ** 2) + jnp.sum(params["x"])

    params = {"z": jnp.zeros(2, jnp.complex64), "x": jnp.ones(2)}
    grads = jax.grad(loss)(params)
    ascent = ascent_direction(grads)
    np.testing.assert_array_equal(ascent["z"], np.full(2, -2 - 4j))  # by both parts: 2 (w - target)
    assert ascent["x"] is grads["x"]


def test_a_norm_is_at_least_float32_and_has_a_derivative_at_zero():
    assert jgd.global_norm(jnp.ones(2, jnp.float16)).dtype == jnp.float32
    assert jgd.global_norm({}).dtype == jnp.float32
    np.testing.assert_array_equal(jax.grad(jgd.global_norm)(jnp.zeros(3)), np.zeros(3))


@pytest.mark.parametrize("given", [0.999, 0.9, 0.5, 0.0])
def test_the_complement_of_a_decay_rate_is_that_of_the_number_given(given):
    optimizer = jgd.adam(1.0, b1=0.0, b2=given, eps=0.0)
    _, state = optimizer.update(jnp.ones(1), optimizer.init(jnp.ones(1)))
    np.testing.assert_allclose(state.slots["nu"][0], 1 - given, rtol=2e-7)


def test_the_complement_follows_what_is_set():
    optimizer = jgd.adam(1.0, b2=0.999)
    state = jgd.set_hyperparams(optimizer.init(jnp.ones(1)), b2=0.75)
    _, state = optimizer.update(jnp.ones(1), state)
    assert float(state.slots["nu"][0]) == 0.25


def test_the_update_of_bfloat16_params_is_rounded_once():
    params = jnp.ones(3, jnp.bfloat16)
    updates, _ = jgd.sgd(1e-3).update(jnp.full(3, 3.0), jgd.sgd(1e-3).init(params), params)
    assert updates.dtype == jnp.float32  # the gradients' precision, which the sum with the params still can use
    assert jgd.apply_updates(params, updates).dtype == jnp.bfloat16
    # 2^-8 is half of the way to the next number, and a little more is past it.
    moved = jgd.apply_updates(jnp.array(1.0, jnp.bfloat16), jnp.array(2.0**-8 + 2.0**-17))
    assert float(moved) == 1 + 2.0**-7


def test_the_variance_of_gradients_that_do_not_change_is_not_below_zero():
    grads = jnp.linspace(0.1, 1.0, 500)
    optimizer = jgd.rmsprop(0.1, eps=1e-12, centered=True)
    settled = optimizer.init(grads)._replace(slots={"nu": grads**2, "mu": grads})
    updates, _ = optimizer.update(grads, settled)
    # The mean square and the squared mean differ by a few roundings of 6e-8: this is 0.1 over the root of thirty.
    assert np.all(np.abs(updates) > 70)
