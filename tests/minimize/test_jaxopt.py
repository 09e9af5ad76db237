"""Problems of jaxopt's test suite, with the values that it asks for, and what they found here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgd.minimizers import Polyak, Status, minimize
from jgd.minimizers.problem._problem import safe_scale, steepest_descent


def zakharov(x):
    total = jnp.sum(0.5 * jnp.arange(1, x.size + 1) * x)
    return jnp.sum(x**2) + total**2 + total**4


def steep(x):
    return 1e17 * jnp.sum(jnp.array([1.0, 2.0]) * x**2)


def steeper(x):
    return 1e21 * jnp.sum(x**2)


def stretched(x, size):
    return size * jnp.sum(jnp.array([1.0, 3.0]) * (x - 2) ** 2)


def bowl(x):
    return jnp.sum((x - jnp.array([1.0, -2.0, 0.5])) ** 2)


def fitted(p, data, x):
    return 0.5 * (p - data * x) ** 2


def test_a_trust_region_on_zakharovs_function_from_far_away():
    # the value is 1e18 at the start, the gradient 4e14, its product with the Hessian and itself above float32
    start = jnp.array([600.0, 700.0, 200.0, 100.0, 90.0, 1e4], jnp.float32)
    result = minimize(zakharov, start, method="trust_region", tol=1e-7)
    assert result.status == Status.CONVERGED
    np.testing.assert_allclose(result.params, np.zeros(6), atol=1e-6)


@pytest.mark.parametrize("method", ["newton_cg", "exact_descent"])
def test_gradients_whose_products_overflow_float32(method):
    # gradients of 2e17 and curvatures of 4e17: along the gradient the second derivative is 1e52
    result = minimize(steep, jnp.ones(2, jnp.float32), method=method, tol=1e14, max_steps=20)
    assert result.status == Status.CONVERGED
    np.testing.assert_allclose(result.params, np.zeros(2), atol=1e-3)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("nesterov", "barzilai_borwein", "cg", "bfgs")]
ANY_SIZE = ["gradient_descent", "lbfgs", "trust_region", *SLOW]


@pytest.mark.parametrize("method", ANY_SIZE)
def test_gradients_whose_squares_overflow_float32(method):
    # gradients of 2e21 and 6e21, so slopes of -4e43; the size is an argument: one program for both
    for size in (1.0, 1e21):
        result = minimize(
            stretched, jnp.ones(2, jnp.float32), args=(size,), method=method, tol=1e-3 * size, max_steps=60
        )
        np.testing.assert_allclose(result.params, [2, 2], atol=1e-3)
        assert result.grad_norm < 2e-3 * size
        assert result.evaluations.values < 60


def test_the_power_of_two_is_one_for_ordinary_vectors():
    for size in (1e-14, 1.0, 1e14):
        assert safe_scale(jnp.array([0.0, size], jnp.float32)) == 1
    assert safe_scale(jnp.zeros(2)) == 1
    for huge in (1e15, 1e21, 1e30):
        direction, slope, power = steepest_descent(jnp.array([huge, -huge], jnp.float32))
        assert power == 2.0**-80
        np.testing.assert_allclose(direction, [-huge * 2.0**-80, huge * 2.0**-80])
        np.testing.assert_allclose(slope, -2 * (huge * 2.0**-80) * huge, rtol=1e-6)


def test_polyaks_step_where_the_square_of_the_gradient_overflows():
    # half of the distance: the value over the squared gradient is 2e21 / 8e42
    result = minimize(steeper, jnp.ones(2, jnp.float32), method=Polyak(), max_steps=1)
    np.testing.assert_allclose(result.params, 0.5 * np.ones(2), rtol=1e-6)


@pytest.mark.parametrize(("lower", "upper"), [((0, -5, 0), (2, 0, 1)), ((0, 0, 0), (1.5, 1, 0.4))])
def test_a_bowl_in_a_box_takes_two_steps(lower, upper):
    bounds = (jnp.array(lower, float), jnp.array(upper, float))
    result = minimize(bowl, jnp.zeros(3), bounds=bounds, tol=1e-3)
    np.testing.assert_allclose(result.params, np.clip([1.0, -2.0, 0.5], *bounds), atol=1e-6)
    assert result.steps <= 2


def test_a_solution_inside_its_bounds_has_its_derivative():
    def solve(x):
        return minimize(fitted, jnp.array(0.0), args=(1.5, x), bounds=(0.0, 10.0)).params

    assert jax.grad(solve)(0.5) == 1.5  # the minimizer is data * x
