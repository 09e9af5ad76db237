"""Line searches, alone: what they find fulfills their conditions, at the cost that is known."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from minimize.programs import numbers

from jgd.minimizers import Armijo, HagerZhang, StrongWolfe

pytestmark = pytest.mark.usefixtures("x64")

SEARCHES = [Armijo(), StrongWolfe(), StrongWolfe(c2=0.1), HagerZhang()]
WITH_SLOPES = [StrongWolfe(), HagerZhang()]


def quadratic(t):
    return (t - 3) ** 2


def steep(t):
    return jnp.exp(-t) + 1e-3 * t**2


def wiggly(t):
    # Moré and Thuente's third function in spirit: a slope that changes its sign many times
    return (t - 2) ** 2 + 0.3 * jnp.sin(8 * t)


def walled(t):
    return jnp.where(t < 1, (t - 0.7) ** 2, jnp.nan)


def blowing_up(t):
    return jnp.exp(50 * t) - 100 * t


FUNCTIONS = [quadratic, steep, wiggly, walled, blowing_up]
STEPS = [1e-4, 1e-1, 1.0, 10.0, 1e4]


def uphill(t):
    return (t + 3) ** 2


def rising(t):
    return t, -jnp.ones_like(t)


def falling(t):
    return -t, -jnp.ones_like(t)


def floor(t):
    # as in float32: the values do not differ, only the slopes tell that the minimum is at 1
    return 1e6 + 0 * t, 2e-3 * (t - 1)


def above_the_floor(t):
    return jnp.where(t > 0, 1e6 + 10, 1e6), 2e-3 * (t - 1)


def below_the_noise(t):
    # rises by ten at every step, however short
    return jnp.where(t > 0, 1e6 + 10, 1e6), jnp.where(t > 0, 1.0, -1e-3)


def hole(t):
    return jnp.where(t > 50, -jnp.inf, (t - 1) ** 2), 2 * (t - 1)


def with_data(value, slope, t):
    return value, slope, {"twice": 2 * t}


def from_infinity(t):
    return jnp.where(t > 0, -t, jnp.inf), -jnp.ones_like(t)


def bottomless(t):
    return jnp.where(t > 0, -jnp.inf, 0.0), -jnp.ones_like(t)


def in_quanta(t):
    # a slope of -0.1 in values that are multiples of 0.125
    return -jnp.floor(t) * 0.125, -0.1 * jnp.ones_like(t)


def level(t):
    return 1 + 0 * t, -1e-9 + 0 * t


#: Functions along a line, from a step to the value, the slope and data; the last ones have slopes of their own.
ALONG = {f.__name__: lambda t, f=f: with_data(*jax.value_and_grad(f)(t), t) for f in (*FUNCTIONS, uphill)}
ALONG |= {
    f.__name__: lambda t, f=f: with_data(*f(t), t)
    for f in (
        rising,
        falling,
        floor,
        above_the_floor,
        below_the_noise,
        hole,
        from_infinity,
        bottomless,
        in_quanta,
        level,
    )
}


def along(i, t):
    return jax.lax.switch(i, list(ALONG.values()), t)


@functools.cache
def at():
    return jax.jit(lambda i, t: along(i, t)[:2])


@functools.cache
def program(kind):
    """One for all functions, steps and settings of a kind of search."""

    @jax.jit
    def search(i, phi0, dphi0, step0, settings, noise, max_step, active):
        more = {"noise": noise, "max_step": max_step, "active": active}
        return kind(**settings)(lambda t: along(i, t), phi0, dphi0, step0, **more)

    return search


def look(search, name, step0, *, noise=0.0, max_step=np.inf, active=True):
    """What a search finds along a function from zero on."""
    i, settings = list(ALONG).index(name), dataclasses.asdict(search)
    return numbers(program(type(search))(i, *at()(i, 0.0), step0, settings, noise, max_step, active))


def conditions(search, name, found):
    """Whether the step fulfills what its search promises, from values of its own."""
    i = list(ALONG).index(name)
    (value0, slope0), (value, slope) = (numbers(at()(i, float(t))) for t in (0.0, found.step))
    c1 = search.delta if isinstance(search, HagerZhang) else search.c1
    enough = value <= value0 + c1 * found.step * slope0 + 1e-12
    if isinstance(search, Armijo):
        return enough
    if isinstance(search, HagerZhang):
        approximate = (value <= value0) & ((2 * c1 - 1) * slope0 >= slope)
        return (enough | approximate) & (slope >= search.sigma * slope0)
    return enough & (np.abs(slope) <= search.c2 * np.abs(slope0))


@pytest.mark.parametrize("search", SEARCHES, ids=repr)
def test_the_step_fulfills_the_conditions_from_any_first_step(search):
    for name in (f.__name__ for f in FUNCTIONS):
        for step0 in STEPS:
            found = look(search, name, step0)
            assert found.success, (name, found)
            assert conditions(search, name, found), (name, found)
            assert np.allclose(found.data["twice"], 2 * found.step), "what comes back is of the step taken"
            assert np.allclose(found.value, at()(list(ALONG).index(name), float(found.step))[0])
            assert found.evaluations <= 25, (name, found.evaluations)


@pytest.mark.slow
@pytest.mark.parametrize("search", SEARCHES, ids=repr)
def test_many_first_steps_at_once_find_what_each_finds_alone(search):
    for i, f in enumerate(FUNCTIONS):
        phi0, dphi0 = at()(i, 0.0)
        found = jax.jit(jax.vmap(lambda step0, i=i, a=phi0, b=dphi0: search(lambda t: along(i, t), a, b, step0)))(
            np.array(STEPS)
        )
        for k, step0 in enumerate(STEPS):
            alone = look(search, f.__name__, step0)
            assert (found.evaluations[k], found.success[k]) == (alone.evaluations, True)
            assert np.isclose(found.step[k], alone.step, rtol=1e-9)


def test_a_quadratic_takes_two_evaluations():
    # one to learn the curvature, one at the minimizer; Hager and Zhang's first brackets
    counts = [int(look(search, "quadratic", 7.0).evaluations) for search in (Armijo(), StrongWolfe(c2=0.1))]
    assert counts == [2, 2]


@pytest.mark.parametrize("search", SEARCHES, ids=repr)
def test_nothing_is_evaluated_uphill_or_where_it_is_not_active(search):
    assert look(search, "uphill", 1.0).evaluations == 0
    idle = look(search, "quadratic", 1.0, active=False)
    assert (idle.evaluations, idle.success, idle.step) == (0, False, 0.0)


@pytest.mark.parametrize("search", SEARCHES, ids=repr)
def test_no_step_is_found_where_the_value_only_rises(search):
    found = look(search, "rising", 1.0)
    assert (found.success, found.decreased, found.step) == (False, False, 0.0)
    assert found.evaluations <= 41


@pytest.mark.parametrize("search", WITH_SLOPES, ids=repr)
def test_the_largest_step_is_not_passed(search):
    # no success: the slope there is still that of the start
    found = look(search, "falling", 1.0, max_step=30.0)
    assert (found.step, found.success, found.decreased) == (30.0, False, True)


@pytest.mark.parametrize("step0", [1.0, 30.0])
@pytest.mark.parametrize("search", [StrongWolfe(c2=0.5), StrongWolfe(), HagerZhang(sigma=0.2)], ids=repr)
def test_success_at_the_largest_step_is_that_of_the_conditions(search, step0):
    for max_step in (1.0, 2.0, 2.9):
        found = look(search, "quadratic", step0, max_step=max_step)
        assert found.success == conditions(search, "quadratic", found), (max_step, found)
        assert found.decreased
    assert look(search, "quadratic", 1.0, max_step=2.9).success


@pytest.mark.parametrize("search", SEARCHES, ids=repr)
def test_from_a_value_that_is_infinite_nothing_is_searched(search):
    found = look(search, "from_infinity", 1.0)
    assert (found.step, found.success, found.decreased, found.evaluations) == (0.0, False, False, 0)
    assert found.value == np.inf


@pytest.mark.parametrize("step0", [0.0, np.inf, np.nan])
@pytest.mark.parametrize("search", SEARCHES, ids=repr)
def test_a_step_of_zero_is_no_success(search, step0):
    found = look(search, "quadratic", step0)
    assert (found.step, found.success, found.decreased, found.evaluations) == (0.0, False, False, 0)
    assert found.value == 9.0


@pytest.mark.parametrize("search", SEARCHES, ids=repr)
def test_a_value_of_minus_infinity_is_the_answer_where_there_is_no_other(search):
    found = look(search, "bottomless", 1.0)
    assert (found.decreased, found.value) == (True, -np.inf)
    assert found.step > 0


@pytest.mark.parametrize("search", [Armijo(c1=0.9, max_evaluations=1), HagerZhang(max_evaluations=1)], ids=repr)
def test_a_search_that_may_look_once_returns_a_lower_value_that_is_not_low_enough(search):
    found = look(search, "quadratic", 5.9)
    assert (found.step, found.success, found.decreased) == (5.9, False, True)
    assert np.isclose(found.value, 2.9**2)
    assert np.isclose(found.data["twice"], 11.8)


def test_a_step_that_only_rounding_lets_pass_is_not_taken_where_a_longer_one_is_lower():
    # 0.125 less at 1.5, where 0.135 is asked for; from 0.75 on the value stays as it was, and steps below 0.2 pass
    found = look(Armijo(c1=0.9), "in_quanta", 1.5, noise=0.02)
    assert (found.step, found.value, found.success, found.decreased) == (1.5, -0.125, False, True)


def test_where_no_step_is_found_it_is_zero():
    found = look(StrongWolfe(), "level", 1.0, noise=1e-6)
    assert (found.step, found.value, found.decreased) == (0.0, 1.0, False)


@pytest.mark.parametrize("search", WITH_SLOPES, ids=repr)
def test_at_the_noise_floor_the_slopes_decide(search):
    found = look(search, "floor", 1.1, noise=1.0)
    assert (found.success, found.evaluations) == (True, 1)
    assert not look(search, "above_the_floor", 1.1, noise=1.0).success


def test_a_search_below_the_noise_ends_soon():
    found = look(StrongWolfe(), "below_the_noise", 1.0, noise=1.0)
    assert (bool(found.success), bool(found.decreased)) == (False, False)
    assert found.evaluations <= 4, "a few by the slopes, then no more"


def test_a_value_of_minus_infinity_far_out_does_not_hide_a_minimum():
    found = look(StrongWolfe(), "hole", 100.0)
    assert found.success
    assert np.isfinite(found.value)
