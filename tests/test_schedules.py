"""Schedules: restarts and epochs that begin at the step they should, in any float; arguments that cannot be."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgd import schedules

STEPS = 20_000


def exact_rounds(period, factor):
    """For each step the number of its round and the share of it that is over, in integers up to the last division."""
    a, b = Fraction(str(factor)).as_integer_ratio()
    number, start, length, scale = 0, 0, period, 1  # start and length in units of 1 / scale
    numbers, shares = np.zeros(STEPS), np.zeros(STEPS)
    while start < STEPS * scale:
        for t in range(-(-start // scale), min(-(-(start + length) // scale), STEPS)):
            numbers[t], shares[t] = number, (t * scale - start) / length
        number, start, length, scale = number + 1, (start + length) * b, length * a, scale * b
    return numbers, shares


@pytest.mark.parametrize(
    ("period", "factor"),
    [(10, 1.1), (7, 1.3), (10, 1.5), (3, 2), (100, 2.5), (1, 3.0), (7, 1)]
    + [pytest.param(*slow, marks=pytest.mark.slow) for slow in ((10, 1.001), (1, 1.01))],
)
def test_restarts_come_at_their_step(period, factor):
    numbers, shares = exact_rounds(period, factor)
    schedule = schedules.cosine_restarts_schedule(1.0, period, factor=factor, shrink=0.999)
    found = jax.jit(jax.vmap(schedule))(jnp.arange(STEPS))
    expected = 0.5 * (1 + np.cos(np.pi * shares)) * 0.999**numbers
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))[:40]
    assert [float(schedule(int(t))) > 0.9 * 0.999**number for t, number in zip(starts, numbers[starts], strict=True)]


def test_the_first_restarts_of_a_factor_close_to_one():
    schedule = schedules.cosine_restarts_schedule(1.0, 10, factor=1.001)
    assert [float(schedule(t)) for t in (0, 10)] == [1.0, 1.0]
    assert float(schedule(20)) < 0.001  # the second round is of 10.01 steps


def test_a_factor_close_to_one_goes_on_after_the_table_of_restarts():
    schedule = jax.jit(schedules.cosine_restarts_schedule(1.0, 1, factor=1.000001))
    assert float(schedule(jnp.int32(5_000_000))) == pytest.approx(1.0, abs=0.1)  # rounds of one step


@pytest.mark.parametrize("steps_per_epoch", [1, 3, 1000])
def test_an_epoch_begins_at_its_step_after_more_steps_than_floats_count(steps_per_epoch):
    epochs = 40_000_000 // steps_per_epoch
    schedule = jax.jit(schedules.yolo_schedule(1.0, 0.0, epochs=epochs, steps_per_epoch=steps_per_epoch))
    epoch = 17_000_001 // steps_per_epoch
    before, at = (float(schedule(jnp.int32(epoch * steps_per_epoch + late))) for late in (-1, 0))
    np.testing.assert_allclose([before, at], [1 - (epoch - 1) / epochs, 1 - epoch / epochs], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.cosine_restarts_schedule(1.0, 2.5), "period must be an integer; got 2.5"),
        (lambda: schedules.cosine_restarts_schedule(1.0, 0), "period must be at least 1; got 0"),
        (lambda: schedules.cosine_restarts_schedule(1.0, 5, factor=0.5), "factor must be at least 1; got 0.5"),
        (lambda: schedules.cosine_restarts_schedule("1", 5), "peak_value must be a number; got '1'"),
        (lambda: schedules.warmup_stable_decay_schedule(1.0, None, 1, 1), "warmup_steps must be an integer; got None"),
        (lambda: schedules.trapezoid_schedule(1j, 1, 1, 1), "peak_value must be a number; got 1j"),
        (lambda: schedules.inverse_sqrt_schedule(float("nan"), 1), "peak_value must be finite; got nan"),
        (lambda: schedules.yolo_schedule(0.1, epochs="3", steps_per_epoch=1), "epochs must be an integer; got '3'"),
        (lambda: schedules.ademamix_alpha(1.0, 0), "warmup_steps must be at least 1; got 0"),
        (lambda: schedules.ademamix_b3(0.9, True, 3), "b3 must be a number; got True"),
        (lambda: schedules.check_schedule(0.1, 3), "schedule must be a function; got 0.1"),
    ],
)
def test_arguments_that_cannot_be(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()
