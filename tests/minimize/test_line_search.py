"""Line searches, alone: what they find fulfills their conditions, at the cost that is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgd.minimize import Armijo, HagerZhang, StrongWolfe

SEARCHES = [Armijo(), StrongWolfe(), StrongWolfe(c2=0.1), HagerZhang()]


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


def along(function):
    def phi(t):
        value, slope = jax.value_and_grad(function)(t)
        return value, slope, {"twice": 2 * t}

    return phi


def conditions(search, function, found):
    """Whether the step fulfills what its search promises, from values of its own."""
    value0, slope0 = jax.value_and_grad(function)(0.0)
    value, slope = jax.vmap(jax.value_and_grad(function))(found.step)
    c1 = search.delta if isinstance(search, HagerZhang) else search.c1
    enough = value <= value0 + c1 * found.step * slope0 + 1e-12
    if isinstance(search, Armijo):
        return enough
    if isinstance(search, HagerZhang):
        approximate = (value <= value0) & ((2 * c1 - 1) * slope0 >= slope)
        return (enough | approximate) & (slope >= search.sigma * slope0)
    return enough & (jnp.abs(slope) <= search.c2 * jnp.abs(slope0))


@pytest.mark.parametrize("search", SEARCHES, ids=repr)
@pytest.mark.usefixtures("x64")
def test_the_step_fulfills_the_conditions_from_any_first_step(search):
    for function in FUNCTIONS:
        phi0, dphi0 = jax.value_and_grad(function)(0.0)

        def run(step0, function=function, phi0=phi0, dphi0=dphi0):
            return search(along(function), phi0, dphi0, step0)

        found = jax.jit(jax.vmap(run))(jnp.array(STEPS))
        name = function.__name__
        assert np.all(found.success), (name, found)
        assert np.all(conditions(search, function, found)), (name, found)
        assert np.allclose(found.data["twice"], 2 * found.step), "what comes back is of the step taken"
        assert np.allclose(found.value, jax.vmap(function)(found.step))
        assert np.all(found.evaluations <= 25), (name, found.evaluations)


@pytest.mark.usefixtures("x64")
def test_a_quadratic_takes_two_evaluations():
    # one to learn the curvature, one at the minimizer; Hager and Zhang's first brackets
    counts = [int(s(along(quadratic), 9.0, jnp.array(-6.0), 7.0).evaluations) for s in (Armijo(), StrongWolfe(c2=0.1))]
    assert counts == [2, 2]


@pytest.mark.parametrize("search", SEARCHES, ids=repr)
def test_nothing_is_evaluated_uphill_or_where_it_is_not_active(search):
    assert search(along(quadratic), jnp.array(9.0), jnp.array(6.0), 1.0).evaluations == 0
    idle = search(along(quadratic), jnp.array(9.0), jnp.array(-6.0), 1.0, active=False)
    assert (idle.evaluations, idle.success, idle.step) == (0, False, 0.0)


@pytest.mark.parametrize("search", SEARCHES, ids=repr)
def test_no_step_is_found_where_the_value_only_rises(search):
    found = search(lambda t: (t, -jnp.ones_like(t), None), jnp.array(0.0), jnp.array(-1.0), 1.0)
    assert (found.success, found.decreased, found.step) == (False, False, 0.0)
    assert found.evaluations <= 41


@pytest.mark.parametrize("search", [StrongWolfe(), HagerZhang()], ids=repr)
def test_the_largest_step_is_not_passed(search):
    found = search(lambda t: (-t, -jnp.ones_like(t), None), jnp.array(0.0), jnp.array(-1.0), 1.0, max_step=30.0)
    assert (found.step, found.success) == (30.0, True)


@pytest.mark.parametrize("search", [StrongWolfe(), HagerZhang()], ids=repr)
def test_at_the_noise_floor_the_slopes_decide(search):
    # in float32 the values do not differ, only the slopes tell that the minimum is at 1
    def phi(t):
        return jnp.float32(1e6) + 1e-3 * (t - 1) ** 2, 2e-3 * (t - 1), None

    start = (jnp.float32(1e6), jnp.float32(-2e-3), jnp.float32(1.1))
    found = search(phi, *start, noise=jnp.float32(1.0))
    assert (found.success, found.evaluations) == (True, 1)
    assert not search(lambda t: (phi(t)[0] + 10, *phi(t)[1:]), *start, noise=jnp.float32(1.0)).success
