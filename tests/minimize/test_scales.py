"""Least squares on badly scaled params, within bounds, and what a result says of a fit: references are scipy's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from minimize.problems import mgh, nist
from minimize.programs import numbers, run

from jgd.minimizers import GaussNewton, LevenbergMarquardt, Status, minimize

pytestmark = pytest.mark.usefixtures("x64")

#: With the Jacobian, and with products alone.
METHODS = {"qr": LevenbergMarquardt(), "cg": LevenbergMarquardt(solver="cg")}
solvers = pytest.mark.parametrize("solver", METHODS)

T = np.linspace(0, 5, 30)
WAVES = 0.01 * np.sin(9 * T)


def decay(amplitude):
    data = amplitude * (np.exp(-0.7 * T) + WAVES)
    best = scipy.optimize.curve_fit(lambda t, a, k: a * np.exp(-k * t), T, data, [amplitude, 0.7])[0]

    def residuals(p):
        return p[0] * jnp.exp(-p[1] * jnp.asarray(T, p.dtype)) - jnp.asarray(data, p.dtype)

    return residuals, np.array([amplitude / 2, 0.2]), best


@pytest.mark.parametrize(("amplitude", "dtype"), [(1e5, "float32"), (1e9, "float64"), (1e-6, "float64")])
@solvers
def test_params_of_very_different_sizes(amplitude, dtype, solver):
    residuals, start, best = decay(amplitude)
    found = run(residuals, start.astype(dtype), method=METHODS[solver])
    np.testing.assert_allclose(found.params, best, rtol=1e-4 if dtype == "float32" else 1e-6)
    assert bool(found.converged), found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@solvers
def test_a_regression_whose_columns_differ_by_nine_orders(dtype, solver):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(30, 3)) * np.array([1e6, 1.0, 1e-3])
    data = matrix @ np.array([1e-6, 2.0, 3e3]) + 0.1 * rng.normal(size=30)
    best = np.linalg.lstsq(matrix, data, rcond=None)[0]
    residuals = lambda p: jnp.asarray(matrix, p.dtype) @ p - jnp.asarray(data, p.dtype)  # noqa: E731
    found = run(residuals, np.zeros(3, dtype), method=METHODS[solver])
    np.testing.assert_allclose(found.params, best, rtol=1e-3 if dtype == "float32" else 1e-9)
    assert bool(found.converged), found


@pytest.mark.parametrize("method", [METHODS["cg"], GaussNewton(solver="cg")], ids=["lm", "gauss_newton"])
def test_columns_that_are_estimated(method):
    # more params than are solved for at once; their columns differ by six orders
    rng = np.random.default_rng(0)
    matrix, truth = rng.normal(size=(90, 60)) / 9, rng.normal(size=60)
    units = 10.0 ** rng.uniform(-3, 3, 60)
    target = np.tanh(matrix @ truth)
    found = run(lambda z: jnp.tanh(matrix @ (z * units)) - target, np.zeros(60), method=method)
    assert bool(found.converged), found
    np.testing.assert_allclose(found.params * units, truth, atol=1e-6)


@solvers
def test_meyers_problem_in_any_units(solver):
    problem, method = mgh.PROBLEMS["meyer"], METHODS[solver]

    @jax.jit
    def solve(units):
        return minimize(lambda x, u: problem.residuals(x * u), problem.start / units, args=(units,), method=method)

    for units in ([1.0, 1.0, 1.0], [1e-2, 1e3, 1e2], [1e2, 1e-3, 1e-2], [1e-3, 1.0, 1e4]):
        found = numbers(solve(np.array(units)))
        assert 2 * float(found.value) <= problem.minimum * (1 + 1e-6), units
        assert bool(found.converged), found


@solvers
def test_acceleration_saves_most_steps_in_a_curved_valley(solver):
    problem = nist.REGRESSIONS["Bennett5"]
    method = dataclasses.replace(METHODS[solver], geodesic=True)
    found = run(problem.residuals, np.array(problem.starts[0], float), method=method)
    assert bool(found.converged)
    assert 2 * float(found.value) <= problem.squares * (1 + 1e-6)
    assert int(found.steps) <= 20  # 1,123 without


@solvers
def test_an_accelerated_step(solver):
    # r = p + b p^2 for one param: the second-order step to the root from params at which the radius does not bind
    method = dataclasses.replace(METHODS[solver], geodesic=True, radius=100.0)
    start, b = 0.1, 0.2
    found = run(lambda x: x + b * x**2, np.array([start]), method=method, max_steps=1)
    slope = 1 + 2 * b * start
    step = -(start + b * start**2) / slope
    np.testing.assert_allclose(found.params, [start + step - 0.5 * 2 * b * step**2 / slope], rtol=1e-9)


def test_a_plateau_is_no_solution():
    # the first step ends where the exponential has underflowed: the gradient is below tol, the value is not
    heat = [34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872]
    t = np.linspace(0.5, 1.25, 16)
    residuals = lambda c: c[0] * jnp.exp(10 * c[1] / (t + c[2]) - 13) - 1e-3 * np.array(heat)  # noqa: E731
    found = run(residuals, np.array([40.0, 50.0, 30.0]), method="lm", tol=1e-3)
    assert bool(found.converged)
    np.testing.assert_allclose(found.params, [2.48, 6.18, 3.45], rtol=5e-3)


def test_a_fit_that_is_damped_does_not_stand_still():
    # with one radius for all params, the smaller one moves by less than rounding of the value can tell
    residuals, start, best = decay(1e5)
    found = run(residuals, np.float32(start), method=LevenbergMarquardt(scaling="none"))
    value = lambda p: np.sum((p[0] * np.exp(-p[1] * T) - 1e5 * (np.exp(-0.7 * T) + WAVES)) ** 2)  # noqa: E731
    assert value(np.float64(found.params)) <= 1.01 * value(best) or int(found.status) == Status.MAX_STEPS


BOXES = {
    "inside": ([0.0, -10.0], [10.0, 10.0]),
    "one bound": ([0.0, 0.6], [2.5, 10.0]),
    "both bounds": ([4.0, 0.7], [10.0, 10.0]),
    "fixed": ([-np.inf, 0.8], [np.inf, 0.8]),
    "start outside": ([5.0, 3.0], [6.0, 4.0]),
}
DATA = 3.0 * np.exp(-0.5 * T) + 0.1 * np.sin(9 * T)


def curve(p):
    return p[0] * jnp.exp(-p[1] * T) - DATA


def in_box():
    solve = jax.jit(lambda start, low, high: minimize(curve, start, method="lm", bounds=(low, high)))
    return lambda box: numbers(solve(np.array([1.0, 1.0]), *map(np.array, box)))


def test_bounds_give_the_fit_of_scipy():
    solve = in_box()
    for name, (low, high) in BOXES.items():
        found = solve((low, high))
        low, high = np.array(low), np.array(high)
        wide = np.where(low == high, high + 1e-9, high)  # scipy wants room
        x0 = np.clip([1.0, 1.0], low + 1e-10, wide - 1e-10)
        best = scipy.optimize.least_squares(
            lambda p: np.asarray(p[0] * np.exp(-p[1] * T) - DATA),
            x0,
            bounds=(low, wide),
            xtol=1e-15,
            ftol=1e-15,
            gtol=1e-15,
        )
        assert np.all((found.params >= low) & (found.params <= high)), name
        np.testing.assert_allclose(found.params, best.x, rtol=1e-5, err_msg=name)
        assert bool(found.converged), (name, found)


def test_bounds_of_rosenbrocks_valley():
    # its known solutions: (0.5, 0.25) below 0.5, (1.5, 2.25) above 1.5
    valley = lambda x: jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])  # noqa: E731
    solve = jax.jit(lambda low, high: minimize(valley, np.array([-1.2, 1.0]), method="lm", bounds=(low, high)))
    for low, high, best in [(-2.0, 0.5, [0.5, 0.25]), (1.5, 9.0, [1.5, 2.25]), (-9.0, 9.0, [1.0, 1.0])]:
        found = solve(np.array([low, -9.0]), np.array([high, 9.0]))
        np.testing.assert_allclose(found.params, best, rtol=1e-9)
        assert bool(found.converged)


def test_no_evaluation_is_outside_of_the_bounds():
    # a logarithm that is NaN below zero; the best first param is at its bound
    def residuals(p):
        return jnp.log(p[0]) * T + p[1] - DATA

    found = run(residuals, np.array([2.0, 0.0]), method="lm", bounds=(np.array([0.9, 0.0]), np.array([5.0, 9.0])))
    assert float(found.params[0]) == 0.9
    np.testing.assert_allclose(found.params[1], np.mean(DATA - np.log(0.9) * T), rtol=1e-8)


def test_a_bounded_solution_is_differentiated():
    def fit(scale):
        residuals = lambda p: p[0] * jnp.exp(-p[1] * T) - scale * DATA  # noqa: E731
        return minimize(residuals, np.array([1.0, 1.0]), method="lm", bounds=(0.0, np.array([9.0, 0.4]))).params

    slope = jax.jit(jax.jacfwd(fit))(1.0)
    shape = np.exp(-0.4 * T)
    np.testing.assert_allclose(slope, [shape @ DATA / (shape @ shape), 0.0], atol=1e-6)


def test_covariance_is_that_of_curve_fit():
    sigma = 0.1 + 0.02 * T
    weighted = run(lambda p: curve(p) / sigma, np.array([1.0, 1.0]), method="lm")
    for absolute in (False, True):
        _, expected = scipy.optimize.curve_fit(
            lambda t, a, k: a * np.exp(-k * t), T, DATA, [1.0, 1.0], sigma, absolute_sigma=absolute
        )
        np.testing.assert_allclose(weighted.covariance(absolute_sigma=absolute), expected, rtol=1e-5)


def test_covariance_of_params_that_the_data_do_not_determine():
    # the first two params appear as their sum alone, the third is determined, the fourth does nothing
    def residuals(p):
        return (p[0] + p[1]) + 1e-6 * p[2] * T + 0 * p[3] - DATA

    found = run(residuals, np.zeros(4), method="lm")
    assert bool(found.converged), found
    got = np.asarray(found.covariance())
    design = np.stack([np.ones_like(T), 1e-6 * T], axis=1)
    left = np.linalg.lstsq(design, DATA, rcond=None)[1][0]
    expected = np.linalg.inv(design.T @ design)[1, 1] * left / (len(T) - 4)
    np.testing.assert_allclose(got[2, 2], expected, rtol=1e-6)
    assert np.all(np.isinf(got[[0, 1, 3]])), "nothing is known of them"


def test_covariance_of_lanes_and_of_too_few_residuals():
    def fit(scale):
        return minimize(lambda p: p[0] * jnp.exp(-p[1] * T) - scale * DATA, np.array([1.0, 1.0]), method="lm")

    lanes = jax.jit(jax.vmap(fit))(np.array([1.0, 2.0]))
    found = np.asarray(lanes.covariance())
    np.testing.assert_allclose(found[1, 0, 0], 4 * found[0, 0, 0], rtol=1e-5)
    exact = run(lambda p: p * np.array([1.0, 2.0]) - 1, np.zeros(2), method="lm")
    assert np.all(np.isinf(exact.covariance()))
    np.testing.assert_allclose(exact.covariance(absolute_sigma=True), np.diag([1.0, 0.25]))


def test_the_jacobian_is_that_of_the_solution_and_so_is_its_derivative():
    def fit(scale):
        return minimize(lambda p: jnp.stack([p[0] ** 2 - scale, 3 * p[1]]), np.array([1.0, 1.0]), method="lm").jacobian

    jacobian, slope = jax.jit(lambda a: jax.jvp(fit, (a,), (1.0,)))(4.0)
    np.testing.assert_allclose(jacobian, [[4.0, 0.0], [0.0, 3.0]], atol=1e-9)
    np.testing.assert_allclose(slope, [[0.5, 0.0], [0.0, 0.0]], atol=1e-6)  # 2 sqrt(a)


def test_a_scalar_loss_is_refused():
    for method in ("lm", "gauss_newton"):
        with pytest.raises(TypeError, match=r"need residuals; fun returned a scalar.*'lbfgs'"):
            minimize(lambda p: jnp.sum(p**2), np.ones(2), method=method)


def test_what_has_no_jacobian_or_no_bounds_says_so():
    loss = run(lambda p: jnp.sum(p**2), np.ones(2))
    assert loss.jacobian is None
    with pytest.raises(ValueError, match="has no Jacobian"):
        loss.covariance()
    with pytest.raises(ValueError, match="with bounds the Jacobian is formed"):
        minimize(curve, np.ones(2), method=LevenbergMarquardt(solver="cg"), bounds=(0.0, 1.0))
    with pytest.raises(ValueError, match="'lm'"):
        minimize(curve, np.ones(2), method="gauss_newton", bounds=(0.0, 1.0))


def test_steps_within_bounds_are_not_accelerated_and_not_counted_so():
    method = LevenbergMarquardt(geodesic=True)
    found = run(curve, np.ones(2), method=method, bounds=(0.0, 10.0))
    assert int(found.evaluations.values) == int(found.steps) + 1
    assert int(found.evaluations.products) == 0
