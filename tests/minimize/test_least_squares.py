"""Gauss-Newton and Levenberg-Marquardt: what a step costs, hard residuals, rank deficiency, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from minimize.problems import mgh
from minimize.programs import numbers, run

from jgd.minimizers import GaussNewton, LevenbergMarquardt, Status, minimize

pytestmark = pytest.mark.usefixtures("x64")


def counted(residuals):
    """The residuals, and a list that grows with each evaluation (of values, alone or with derivatives)."""
    calls = []

    @jax.custom_jvp
    def tick(x):
        jax.debug.callback(lambda: calls.append(1))
        return x

    @tick.defjvp
    def _(primals, tangents):
        return tick(*primals), tangents[0]

    return lambda x: residuals(tick(x)), calls


def valley(x):
    return jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def test_a_step_costs_one_evaluation_and_the_count_says_so():
    fun, calls = counted(valley)
    found = run(fun, np.array([-1.2, 1.0]), method="lm")
    jax.effects_barrier()
    assert bool(found.converged)
    steps = int(found.steps)
    assert [int(n) for n in found.evaluations] == [steps + 1, steps + 1, 0]
    assert len(calls) <= steps + 2  # the Jacobian of the start may be evaluated with its value, or after it


def test_residuals_that_stay_large():
    # as few evaluations as optimistix's method needs
    problem = mgh.PROBLEMS["brown_dennis"]
    found = run(problem.residuals, problem.start, method="lm", tol=5e-7)
    assert bool(found.converged)
    assert int(found.evaluations.values) <= 91
    np.testing.assert_allclose(2 * float(found.value), problem.minimum, rtol=1e-6)


def test_a_run_towards_zero_has_an_end():
    # a singular Jacobian at a solution of zeros: the value falls by a factor of 16 a step for ever
    problem = mgh.PROBLEMS["powell_singular"]
    found = run(problem.residuals, problem.start, method="lm")
    assert bool(found.converged)
    assert int(found.evaluations.values) <= 60
    assert float(found.value) < 1e-30


def test_whole_steps_where_the_value_cannot_tell():
    # in float32 the value is the same for 1e-5 around the minimizer; the gradient is not
    angle, size = np.arange(12) * np.pi / 6, np.float32(70.0)
    data = size + 16 * np.sin(angle + 1) + np.cos(5 * angle)

    def residuals(p):
        return jnp.asarray(data, p.dtype) - (p[0] * jnp.sin(jnp.asarray(angle, p.dtype) * p[1] + p[2]) + p[3])

    start = np.array([10.0, 0.9, 1.5, 60.0])
    best = run(residuals, start, method="gauss_newton", tol=1e-10)
    found = run(residuals, np.float32(start), method="gauss_newton", tol=1e-6)
    np.testing.assert_allclose(found.params, best.params, rtol=2e-6)


def test_the_radius_shrinks_fast_after_steps_far_too_long():
    # the first step of Gauss and Newton would go to exp(5e8); half the radius at each rejection takes 55
    fun, start = lambda x: jnp.exp(x) - 1, np.array([-20.0])
    for method, most in [("lm", 5), (LevenbergMarquardt(radius=1e9), 45)]:
        found = run(fun, start, method=method, tol=1e-9)
        assert bool(found.converged)
        assert int(found.evaluations.values) <= most


def test_badly_scaled_residuals_in_float32():
    problem = mgh.PROBLEMS["meyer"]
    found = run(problem.residuals, np.float32(problem.start), method="lm", tol=5e-5)
    assert found.params.dtype == jnp.float32
    assert 2 * float(found.value) <= problem.minimum + 1e-4 * (1 + problem.minimum)
    assert int(found.status) in (Status.CONVERGED, Status.SMALL_STEP, Status.SMALL_DECREASE)


def test_scaling_by_columns_does_not_depend_on_units():
    units = np.array([1.0, 1024.0])  # a power of two: the same roundings

    @jax.jit
    def solve(units):
        method = LevenbergMarquardt(scaling="columns")
        return minimize(lambda x, u: valley(x / u), np.array([-1.2, 1.0]) * units, args=(units,), method=method)

    one, other = solve(np.ones(2)), solve(units)
    assert bool(one.converged)
    assert abs(int(one.steps) - int(other.steps)) <= 1
    np.testing.assert_allclose(np.asarray(other.params) / units, [1, 1], rtol=1e-6)


def test_rank_deficient_residuals_move_by_the_step_of_least_norm():
    matrix = np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    data = np.array([1.0, 2.0, 3.0])
    found = run(lambda x: matrix @ x - data, np.zeros(3), method="gauss_newton")
    assert bool(found.converged)
    np.testing.assert_allclose(found.params, np.linalg.pinv(matrix) @ data, atol=1e-6)


T = np.linspace(0, 2, 7)
DATA = 3 * np.exp(-0.5 * T) + 0.1 * np.sin(9 * T)


def curve(p, a):
    return p[0] * jnp.exp(p[1] * T) - DATA * a + 0.1 * p[2] ** 2 * T


@pytest.mark.parametrize(("solver", "steps"), [("qr", 6), ("cg", 6)])
def test_unrolled_derivatives_are_those_of_the_steps(solver, steps):
    method = LevenbergMarquardt(solver=solver)

    @jax.jit
    @jax.value_and_grad
    def solve(a, tol):
        # few steps: the derivative differs from that of the solution
        start, more = np.array([1.0, -1.0, 0.3]), {"max_steps": steps, "tol": tol, "differentiate": "unroll"}
        return minimize(curve, start, args=(a,), method=method, **more).params @ np.array([1.0, 2.0, 3.0])

    for tol in (0.0, 3.0):  # the second run stops early
        expected = (solve(1 + 1e-6, tol)[0] - solve(1 - 1e-6, tol)[0]) / 2e-6
        assert abs(float(expected)) > 1
        np.testing.assert_allclose(solve(1.0, tol)[1], expected, rtol=1e-5)


def test_values_summed_in_float64_work_batched_and_differentiated():
    start = np.array([1.0, -1.0, 0.3], np.float32)

    def fit(a):
        fun = lambda p, a: curve(p, a).astype(jnp.float32)  # noqa: E731
        return minimize(fun, start, args=(a,), method="lm", tol=1e-4, value_dtype=jnp.float64)

    scales = np.array([0.8, 1.0, 1.2], np.float32)
    found, moves = numbers(jax.jit(jax.vmap(lambda a: jax.jvp(fit, (a,), (jnp.ones_like(a),))))(scales))
    assert found.value.dtype == jnp.float64
    assert found.params.dtype == jnp.float32
    # the amplitude is proportional to the data, where the third term vanishes
    assert np.all(np.isfinite(moves.params))
    slope = (found.params[2, 0] - found.params[0, 0]) / 0.4
    np.testing.assert_allclose(moves.params[1, 0], slope, rtol=1e-2)


def test_unknown_settings_are_refused():
    for number in (0.0, -1.0, np.nan, np.float32(0)):
        with pytest.raises(ValueError, match="radius must be above 0"):
            LevenbergMarquardt(radius=number)
    with pytest.raises(ValueError, match="solver"):
        GaussNewton(solver="lu")
    with pytest.raises(ValueError, match="scaling"):
        LevenbergMarquardt(scaling="rows")
