"""`minimize` as a whole: every method arrives, any tree goes in, and the result can be batched and differentiated."""

import io
from contextlib import redirect_stderr

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgd import adam
from jgd.minimize import (
    LBFGS,
    LBFGSB,
    BarzilaiBorwein,
    ConjugateGradient,
    GaussNewton,
    GradientDescent,
    HeavyBall,
    LevenbergMarquardt,
    Nesterov,
    Polyak,
    Status,
    explain,
    minimize,
    multi_start,
)


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def residuals(x):
    return {"valley": 10 * (x[1:] - x[:-1] ** 2), "floor": 1 - x[:-1]}


def bowl(x):
    return 0.5 * jnp.sum(jnp.linspace(1.0, 10.0, x.size) * (x - 1) ** 2)


START = np.array([-1.2, 1.0])

#: Methods for any smooth function, and how many gradients they may take on the Rosenbrock function.
GENERAL = [
    ("lbfgs", 70),
    (LBFGS(memory=20), 70),
    ("bfgs", 70),
    ("cg", 330),
    (ConjugateGradient("polak_ribiere"), 330),
    (ConjugateGradient("dai_yuan"), 1500),
    ("newton_cg", 90),
    ("trust_region", 60),
    ("barzilai_borwein", 600),
    ("nesterov", 900),
]

CONVEX = [
    (GradientDescent(0.1), 170),
    ("gradient_descent", 170),
    ("exact_descent", 90),
    (Polyak(0.0), 90),
    (HeavyBall(0.1, 0.5), 120),
    (Nesterov(0.1, restart=True), 100),
    ("nesterov", 100),
    ("barzilai_borwein", 40),
    (BarzilaiBorwein(window=1), 60),
    ("lbfgs", 20),
    (adam(0.1), 500),
    (optax.sgd(0.1), 170),
]

LEAST_SQUARES = ["lm", "gauss_newton", LevenbergMarquardt(solver="cg"), GaussNewton(solver="cg")]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("method", "most"), GENERAL, ids=str)
def test_methods_find_the_minimum_of_a_curved_valley(method, most):
    result = minimize(rosenbrock, jnp.asarray(START), method=method, max_steps=5000)
    assert bool(result.converged), explain(result)
    assert np.allclose(result.params, 1, atol=1e-4)
    assert result.evaluations.gradients <= most


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("method", "most"), CONVEX, ids=lambda case: str(case)[:40])
def test_methods_find_the_minimum_of_a_bowl(method, most):
    result = minimize(bowl, jnp.zeros(5), method=method)
    assert bool(result.converged), explain(result)
    assert np.allclose(result.params, 1, atol=1e-5)
    assert result.evaluations.gradients <= most


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", LEAST_SQUARES, ids=str)
def test_least_squares_take_residuals_in_any_tree(method):
    result = minimize(residuals, jnp.asarray(START), method=method)
    assert bool(result.converged), explain(result)
    assert np.allclose(result.params, 1, atol=1e-5)


@pytest.mark.usefixtures("x64")
def test_the_value_of_residuals_is_half_the_sum_of_their_squares():
    result = minimize(lambda x: jnp.stack([x - 1, x + 1]), jnp.array(3.0), method="lm")
    assert np.isclose(result.value, 1.0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("search", ["armijo", "hager_zhang"])
def test_lbfgs_with_another_line_search(search):
    result = minimize(rosenbrock, jnp.asarray(START), line_search=search)
    assert bool(result.converged)
    assert result.evaluations.values <= 150


def test_a_tree_with_leaves_of_many_kinds_keeps_its_structure_and_dtypes():
    params = {"w": jnp.ones((2, 3)), "b": (jnp.zeros(3, jnp.bfloat16), 2.0), "count": jnp.arange(3), "none": None}

    def fun(p, shift):
        squares = jnp.sum((p["w"] - shift) ** 2) + jnp.sum((p["b"][0].astype(jnp.float32) - 0.5) ** 2)
        return squares + (p["b"][1] - 1) ** 2 + 0 * jnp.sum(p["count"]), {"w": p["w"][0, 0]}

    result = minimize(fun, params, args=(3.0,), has_aux=True, tol=1e-3)
    assert jax.tree.map(lambda x: jnp.asarray(x).dtype, result.params) == jax.tree.map(
        lambda x: jnp.asarray(x).dtype, params
    )
    assert np.allclose(result.params["w"], 3, atol=1e-3)
    assert np.allclose(result.aux["w"], result.params["w"][0, 0]), "aux is that of the solution"
    assert np.array_equal(result.params["count"], [0, 1, 2])


def test_float32_ends_at_the_noise_floor_of_a_value_far_from_zero():
    result = minimize(lambda x: 1000.0 + jnp.sum(jnp.cosh(x - 1)), jnp.zeros(10), tol=1e-7)
    assert np.allclose(result.params, 1, atol=1e-4)
    assert result.evaluations.values <= 40


@pytest.mark.usefixtures("x64")
def test_terms_summed_in_float64_show_decreases_that_float32_hides():
    terms = jnp.linspace(900.0, 1100.0, 2001, dtype=jnp.float32)

    def fun(x):
        return terms + (x - 1.0) ** 2

    result = minimize(fun, jnp.zeros((), jnp.float32), value_dtype=jnp.float64, tol=1e-3)
    assert result.value.dtype == jnp.float64
    assert result.params.dtype == jnp.float32
    assert np.isclose(float(result.value), float(np.sum(np.float64(terms))), rtol=1e-9)


def test_a_trace_has_one_row_a_step():
    result = minimize(rosenbrock, jnp.asarray(START), trace=True, max_steps=100, tol=1e-3)
    steps = int(result.steps)
    for column in result.trace:
        assert column.shape == (100,)
        assert np.all(np.isfinite(column[:steps]))
        assert np.all(np.isnan(column[steps:]))
    assert result.trace.value[steps - 1] == result.value
    assert result.trace.grad_norm[steps - 1] == result.grad_norm
    assert np.isclose(result.trace.value[steps - 2] - result.value, result.decrease)


@pytest.fixture(scope="module")
def lanes():
    with jax.enable_x64(True):
        starts = jnp.asarray(np.random.default_rng(0).uniform(-2, 2, (50, 2)))
        return starts, multi_start(rosenbrock, starts)


def test_lanes_equal_their_solo_runs(lanes):
    starts, found = lanes
    with jax.enable_x64(True):
        for i in (0, 7, 31):
            solo = minimize(rosenbrock, starts[i])
            lane = jax.tree.map(lambda leaf, i=i: leaf[i], found.runs)
            assert (lane.steps, lane.status, *lane.evaluations) == (solo.steps, solo.status, *solo.evaluations)
            assert np.allclose(lane.params, solo.params, rtol=0, atol=1e-12)


def test_multi_start_picks_the_best(lanes):
    _, found = lanes
    assert np.all(found.runs.converged)
    assert len(set(found.runs.steps.tolist())) > 5, "lanes stop one by one"
    assert float(found.best.value) == np.min(np.asarray(found.runs.value))
    with pytest.raises(ValueError, match="one leading axis"):
        multi_start(rosenbrock, {"a": jnp.ones((2, 2)), "b": jnp.ones((3, 2))})


def test_one_compiled_program_serves_all_starts_and_tolerances():
    traces = 0

    def fun(x, scale):
        nonlocal traces
        traces += 1
        return scale * bowl(x)

    minimize(fun, jnp.zeros(3), args=(1.0,), method=LBFGS(memory=3))
    before = traces
    minimize(fun, jnp.ones(3), args=(2.0,), method=LBFGS(memory=3), tol=1e-2)
    assert traces == before


def test_a_progress_bar_changes_nothing():
    shown = io.StringIO()
    with redirect_stderr(shown):
        result = minimize(rosenbrock, jnp.asarray(START), progress=True, tol=1e-3)
    plain = minimize(rosenbrock, jnp.asarray(START), tol=1e-3)
    assert "grad_norm" in shown.getvalue()
    assert np.allclose(result.params, plain.params, atol=1e-6)
    assert result.steps == plain.steps
    with pytest.raises(ValueError, match="inside jit"):
        jax.jit(lambda x: minimize(bowl, x, progress=True))(jnp.ones(2))


DESIGN = np.random.default_rng(1).normal(size=(40, 4))
TARGET = np.random.default_rng(2).normal(size=40)


def ridge(w, penalty):
    return 0.5 * jnp.sum((DESIGN @ w - TARGET) ** 2) + 0.5 * penalty * jnp.sum(w**2)


def ridge_closed(penalty):
    return jnp.linalg.solve(DESIGN.T @ DESIGN + penalty * jnp.eye(4), DESIGN.T @ TARGET)


def logistic(w, data):
    signs = jnp.sign(jnp.asarray(TARGET))
    return jnp.sum(jnp.logaddexp(0, -signs * (data @ w))) + 0.05 * jnp.sum(w**2)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_the_derivative_of_ridge_regression_is_that_of_the_closed_form(mode):
    def solve(penalty):
        result = minimize(ridge, jnp.zeros(4), args=(penalty,), tol=1e-9)
        return result.params, result.value

    params, value = mode(solve)(3.0)
    expected = jax.jacfwd(lambda penalty: (ridge_closed(penalty), ridge(ridge_closed(penalty), penalty)))(3.0)
    assert np.allclose(params, expected[0], rtol=0, atol=1e-9)
    assert np.allclose(value, expected[1], rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_second_derivatives_and_closed_over_values():
    def solve(penalty):
        return minimize(lambda w: ridge(w, penalty), jnp.zeros(4), tol=1e-10).params.sum()

    first, second = jax.jvp(jax.grad(solve), (3.0,), (1.0,))
    expected = jax.jvp(jax.grad(lambda penalty: ridge_closed(penalty).sum()), (3.0,), (1.0,))
    assert np.allclose([first, second], expected, rtol=0, atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_the_derivative_of_logistic_regression_with_respect_to_its_data():
    solve = jax.jit(lambda data: minimize(logistic, jnp.zeros(4), args=(data,), tol=1e-10).params[0])
    data = jnp.asarray(DESIGN)
    grads = jax.grad(solve)(data)
    for i, j in ((0, 0), (7, 2), (39, 3)):
        h = 1e-4
        central = (solve(data.at[i, j].add(h)) - solve(data.at[i, j].add(-h))) / (2 * h)
        assert abs(grads[i, j] - central) < 1e-6
    assert np.max(np.abs(grads)) > 1e-3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", ["lbfgs", "nesterov", GradientDescent(0.01)], ids=str)
def test_unrolled_derivatives_come_near_the_implicit_one(method):
    def solve(penalty):
        run = minimize(
            ridge, jnp.zeros(4), args=(penalty,), tol=0.0, max_steps=60, method=method, differentiate="unroll"
        )
        return run.params.sum()

    expected = jax.grad(lambda penalty: ridge_closed(penalty).sum())(3.0)
    assert abs(jax.grad(solve)(3.0) - expected) < 1e-6


@pytest.mark.usefixtures("x64")
def test_a_few_unrolled_steps_have_their_own_derivative():
    def two_steps(penalty):
        run = minimize(
            ridge, jnp.zeros(4), args=(penalty,), max_steps=2, method=GradientDescent(0.01), differentiate="unroll"
        )
        return run.params.sum()

    def by_hand(penalty):
        w = jnp.zeros(4)
        for _ in range(2):
            w = w - 0.01 * jax.grad(ridge)(w, penalty)
        return w.sum()

    assert np.isclose(jax.grad(two_steps)(3.0), jax.grad(by_hand)(3.0), rtol=1e-10)


def test_settings_that_are_arrays_can_be_batched():
    rates = jnp.array([0.05, 0.1, 0.3])
    result = jax.vmap(lambda rate: minimize(bowl, jnp.zeros(3), method=GradientDescent(rate), max_steps=300, tol=1e-4))(
        rates
    )
    assert result.status.tolist() == [Status.CONVERGED, Status.CONVERGED, Status.DIVERGED]


@pytest.mark.parametrize("method", [LBFGS, LBFGSB])
def test_a_memory_holds_something(method):
    with pytest.raises(ValueError, match="memory must be at least 1; got 0"):
        method(memory=0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"fun": lambda x: x}, TypeError, "must return a scalar; got shape \\(2,\\)"),
        ({"fun": lambda x: (bowl(x), x)}, TypeError, "has_aux=True"),
        ({"params": {"a": jnp.ones(2, jnp.complex64)}}, TypeError, "\\['a'\\] is complex"),
        ({"params": {"a": "text"}}, TypeError, "\\['a'\\] is a str"),
        ({"params": jnp.arange(2)}, TypeError, "no float leaf"),
        ({"method": "lbgfs"}, ValueError, "must be one of 'lbfgs'"),
        ({"method": 3}, TypeError, "got a int"),
        ({"method": "lm", "line_search": "armijo"}, ValueError, "has no line search"),
        ({"line_search": "exact"}, ValueError, "'strong_wolfe'"),
        ({"max_steps": -1}, ValueError, "at least 0"),
        ({"differentiate": "magic"}, ValueError, "'implicit', 'unroll'"),
        ({"value_dtype": jnp.float64}, ValueError, "jax_enable_x64"),
        ({"method": "newton_cg", "bounds": (0, 1)}, ValueError, "knows no bounds"),
        ({"bounds": 3.0}, ValueError, "must be a pair"),
        ({"bounds": [(0, 1)] * 3}, ValueError, r"jnp.array\(bounds\).T"),
        ({"bounds": (1.0, 0.0)}, ValueError, "at most the upper ones; got 1.0 and 0.0 for entry 0"),
        ({"bounds": (jnp.zeros(3), None)}, ValueError, "do not fit params"),
        ({"method": adam(0.1), "bounds": (0, 1)}, ValueError, "one of 'lbfgsb', 'projected_gradient'"),
    ],
)
def test_errors_say_what_was_found_and_what_was_expected(change, error, message):
    call = {"fun": bowl, "params": jnp.ones(2)} | change
    with pytest.raises(error, match=message):
        minimize(call.pop("fun"), call.pop("params"), **call)


def test_with_bounds_the_default_method_keeps_to_them():
    result = minimize(bowl, jnp.zeros(2), bounds=jnp.array([(0.0, 0.5), (-1.0, 3.0)]).T)
    assert bool(result.converged)
    np.testing.assert_allclose(result.params, [0.5, 1.0], atol=1e-6)
    outcome = jax.jit(lambda upper: minimize(bowl, jnp.zeros(2), bounds=(1.0, upper)))(0.0)
    assert Status(int(outcome.status)) is Status.NON_FINITE  # bounds in the wrong order, found where nothing can raise
