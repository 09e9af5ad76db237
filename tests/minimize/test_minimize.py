"""`minimize` as a whole: every method arrives, any tree goes in, and the result can be batched and differentiated."""

import functools
import io
from contextlib import redirect_stderr

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from minimize.programs import numbers, padded, run, solver

from jgd import adam
from jgd.minimizers import (
    L1,
    LBFGS,
    LBFGSB,
    Armijo,
    BarzilaiBorwein,
    ConjugateGradient,
    ExactDescent,
    GaussNewton,
    GradientDescent,
    HeavyBall,
    LevenbergMarquardt,
    Nesterov,
    Polyak,
    ProximalGradient,
    Status,
    explain,
    minimize,
    multi_start,
)
from jgd.minimizers._names import flat_bounds, make_method
from jgd.minimizers.methods._conjugate_gradient import beta

SIZE = 5


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def bowl(x):
    return 0.5 * jnp.sum(jnp.linspace(1.0, 10.0, x.size) * (x - 1) ** 2)


START = np.array([-1.2, 1.0])

#: Methods for any smooth function, and how many gradients they may take on the Rosenbrock function.
GENERAL = [
    ("lbfgs", 70),
    pytest.param(LBFGS(memory=20), 70, marks=pytest.mark.slow),
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
    pytest.param(optax.sgd(0.1), 170, marks=pytest.mark.slow),
]

LEAST_SQUARES = ["lm", "gauss_newton", LevenbergMarquardt(solver="cg"), GaussNewton(solver="cg")]
#: Residuals are trees: a valley, and two whose squares add up to one at their minimum.
RESIDUALS = {
    "valley": lambda x: {"valley": 10 * (x[1:] - x[:-1] ** 2), "floor": 1 - x[:-1]},
    "apart": lambda x: {"valley": x[:1] - 1, "floor": x[:1] + 1},
}
#: What L-BFGS runs with each of its other line searches.
SEARCHES = ["armijo", "hager_zhang"]


def methods_of(cases):
    return [getattr(case, "values", case)[0] for case in cases]


@functools.cache
def program(method, search=None):
    """One for both functions, as far as a method is asked for both."""
    functions = {"valley": lambda x: rosenbrock(x[:2])} if method in methods_of(GENERAL) else {}
    functions |= {"bowl": bowl} if method in methods_of(CONVEX) else {}
    return solver(functions, method, line_search=search, max_steps=5000)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("method", "most"), GENERAL, ids=str)
def test_methods_find_the_minimum_of_a_curved_valley(method, most):
    result = program(method)("valley", padded(START, SIZE))
    assert bool(result.converged), explain(result)
    assert np.allclose(result.params[:2], 1, atol=1e-4)
    assert result.evaluations.gradients <= most


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("method", "most"), CONVEX, ids=lambda case: str(case)[:40])
def test_methods_find_the_minimum_of_a_bowl(method, most):
    result = program(method)("bowl", np.zeros(SIZE))
    assert bool(result.converged), explain(result)
    assert np.allclose(result.params, 1, atol=1e-5)
    assert result.evaluations.gradients <= most


@pytest.mark.usefixtures("x64")
def test_a_heavy_ball_keeps_its_part_of_the_last_step():
    found = run(bowl, START, method=HeavyBall(0.1, 0.5), max_steps=3, tol=0.0)
    x, move = START, 0.0
    for _ in range(3):
        move = 0.5 * move - 0.1 * np.array([1.0, 10.0]) * (x - 1)
        x = x + move
    assert np.allclose(found.params, x, rtol=1e-12)


@functools.cache
def least_squares(method):
    return solver(RESIDUALS, method)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", LEAST_SQUARES, ids=str)
def test_least_squares_take_residuals_in_any_tree(method):
    result = least_squares(method)("valley", START)
    assert bool(result.converged), explain(result)
    assert np.allclose(result.params, 1, atol=1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", LEAST_SQUARES, ids=str)
def test_the_value_of_residuals_is_half_the_sum_of_their_squares(method):
    result = least_squares(method)("apart", [3.0, 0.0])
    assert np.isclose(result.value, 1.0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("search", SEARCHES)
def test_lbfgs_with_another_line_search(search):
    result = program("lbfgs", search)("valley", padded(START, SIZE))
    assert bool(result.converged)
    assert result.evaluations.values <= 150


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("formula", ["polak_ribiere", "dai_yuan", "hager_zhang"])
def test_how_much_conjugate_gradients_keep_of_a_direction(formula):
    keep = jax.jit(functools.partial(beta, formula))
    random = np.random.default_rng(3)
    for size in np.repeat([1.0, 0.1], 10):
        before, direction = random.normal(size=(2, 4))
        across = size * random.normal(size=4)
        # nearly orthogonal to the last gradient, as a line search leaves it, with some curvature along the direction
        after = across - before * (across @ before) / (before @ before) + 0.05 * before
        after += direction * max(0.0, 0.1 + direction @ (before - after)) / (direction @ direction)
        change = after - before
        bend = direction @ change
        jammed = abs(after @ before) >= 0.2 * (after @ after)
        least = -1 / (np.linalg.norm(direction) * min(0.01, np.linalg.norm(before)))
        expected = {
            "polak_ribiere": max(after @ change / (before @ before), 0),
            "dai_yuan": 0 if jammed else max(after @ after / bend, 0),
            "hager_zhang": max((change - 2 * direction * (change @ change) / bend) @ after / bend, least),
        }
        assert np.isclose(keep(before, after, direction), expected[formula], rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_the_exact_step_is_that_of_the_formula():
    curvatures, start = np.array([1.0, 10.0]), np.array([-1.2, 0.5])
    x = start
    for _ in range(3):
        grad = curvatures * (x - 1)
        x = x - (grad @ grad) / (grad @ (curvatures * grad)) * grad
    found = run(bowl, start, method=ExactDescent(), max_steps=3, tol=0.0)
    assert np.allclose(found.params, x, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_nesterovs_first_steps_are_those_of_the_formula():
    curvatures, theta, last, y = np.array([1.0, 10.0]), 1.0, START, START
    for _ in range(3):
        x = y - 0.05 * curvatures * (y - 1)
        after = (1 + np.sqrt(1 + 4 * theta**2)) / 2
        y, last, theta = x + (theta - 1) / after * (x - last), x, after
    found = run(bowl, START, method=Nesterov(0.05, restart=False), max_steps=3, tol=0.0)
    assert np.allclose(found.params, y, rtol=1e-12)


def test_a_tree_with_leaves_of_many_kinds_keeps_its_structure_and_dtypes():
    params = {"w": jnp.ones((2, 3)), "b": (jnp.zeros(3, jnp.bfloat16), 2.0), "count": jnp.arange(3), "none": None}

    def fun(p, shift):
        squares = jnp.sum((p["w"] - shift) ** 2) + jnp.sum((p["b"][0].astype(jnp.float32) - 0.5) ** 2)
        return squares + (p["b"][1] - 1) ** 2 + 0 * jnp.sum(p["count"]), {"w": p["w"][0, 0]}

    result = jax.jit(lambda p: minimize(fun, p, args=(3.0,), method=GradientDescent(0.25), has_aux=True, tol=1e-3))(
        params
    )
    assert jax.tree.map(lambda x: jnp.asarray(x).dtype, result.params) == jax.tree.map(
        lambda x: jnp.asarray(x).dtype, params
    )
    assert np.allclose(result.params["w"], 3, atol=1e-3)
    assert np.allclose(result.aux["w"], result.params["w"][0, 0]), "aux is that of the solution"
    assert np.array_equal(result.params["count"], [0, 1, 2])


@pytest.mark.usefixtures("x64")
def test_terms_summed_in_float64_show_decreases_that_float32_hides():
    terms = np.linspace(900.0, 1100.0, 2001, dtype=np.float32)

    def fun(x):
        return terms + (x - 1.0) ** 2

    result = run(fun, np.zeros((), np.float32), value_dtype=jnp.float64, tol=1e-3)
    assert result.value.dtype == np.float64
    assert result.params.dtype == np.float32
    assert np.isclose(float(result.value), float(np.sum(np.float64(terms))), rtol=1e-9)


@functools.cache
def traced_run():
    """The bowl by gradient descent, with a trace."""
    return run(bowl, START, method=GradientDescent(0.1), trace=True, max_steps=100, tol=1e-3)


def test_a_trace_has_one_row_a_step():
    result = traced_run()
    steps = int(result.steps)
    assert 5 < steps < 100
    for column in result.trace:
        assert column.shape == (100,)
        assert np.all(np.isfinite(column[:steps]))
        assert np.all(np.isnan(column[steps:]))
    assert result.trace.value[steps - 1] == result.value
    assert result.trace.grad_norm[steps - 1] == result.grad_norm
    assert np.isclose(result.trace.value[steps - 2] - result.value, result.decrease)


@functools.cache
def lanes():
    """Fifty starts in the valley, and what is found from them."""
    starts = np.random.default_rng(0).uniform(-2, 2, (50, 2))

    def valley(x):
        return rosenbrock(x[:2])

    with jax.enable_x64(True):
        starts = np.pad(starts, ((0, 0), (0, SIZE - 2)))
        # one more where the value is not a number, and none is lower
        starts = np.concatenate([starts, np.full((1, SIZE), np.nan)])
        return starts, numbers(jax.jit(lambda starts: multi_start(valley, starts))(starts))


@pytest.mark.usefixtures("x64")
def test_lanes_equal_their_solo_runs():
    starts, found = lanes()
    for i in (0, 7, 31):
        solo = program("lbfgs")("valley", starts[i])
        lane = jax.tree.map(lambda leaf, i=i: leaf[i], found.runs)
        assert (lane.steps, lane.status, *lane.evaluations) == (solo.steps, solo.status, *solo.evaluations)
        assert np.allclose(lane.params, solo.params, rtol=0, atol=1e-12)


def test_multi_start_picks_the_best():
    _, found = lanes()
    assert np.all(found.runs.converged[:-1])
    assert found.runs.status[-1] == Status.NON_FINITE
    assert len(set(found.runs.steps[:-1].tolist())) > 5, "lanes stop one by one"
    assert found.best.value == np.nanmin(found.runs.value)
    assert found.runs.value[found.index] == found.best.value
    with pytest.raises(ValueError, match="one leading axis"):
        multi_start(rosenbrock, {"a": np.ones((2, 2)), "b": np.ones((3, 2))})


def test_one_compiled_program_serves_all_starts_and_tolerances():
    traces = 0

    def fun(x, scale):
        nonlocal traces
        traces += 1
        return scale * bowl(x)

    minimize(fun, np.zeros(3), args=(1.0,), method=GradientDescent(0.1))
    before = traces
    minimize(fun, np.ones(3), args=(2.0,), method=GradientDescent(0.1), tol=1e-2)
    assert traces == before


def test_a_progress_bar_changes_nothing():
    shown = io.StringIO()
    with redirect_stderr(shown):
        result = minimize(bowl, START, method=GradientDescent(0.1), trace=True, max_steps=100, tol=1e-3, progress=True)
    plain = traced_run()
    assert "grad_norm" in shown.getvalue()
    assert np.allclose(result.params, plain.params, atol=1e-6)
    assert int(result.steps) == plain.steps
    assert np.allclose(result.trace, plain.trace, atol=1e-6, equal_nan=True)
    with pytest.raises(ValueError, match="inside jit"):
        jax.jit(lambda x: minimize(bowl, x, progress=True))(np.ones(2))


DESIGN = np.random.default_rng(1).normal(size=(40, 4))
TARGET = np.random.default_rng(2).normal(size=40)


def ridge(w, penalty):
    return 0.5 * jnp.sum((DESIGN @ w - TARGET) ** 2) + 0.5 * penalty * jnp.sum(w**2)


def ridge_closed(penalty):
    """The solution, and its first and second derivatives with respect to the penalty."""
    inverse = np.linalg.inv(DESIGN.T @ DESIGN + penalty * np.eye(4))
    solution = inverse @ DESIGN.T @ TARGET
    return solution, -inverse @ solution, 2 * inverse @ inverse @ solution


def logistic(w, data):
    signs = np.sign(TARGET)
    return jnp.sum(jnp.logaddexp(0, -signs * (data @ w))) + 0.05 * jnp.sum(w**2)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_the_derivative_of_ridge_regression_is_that_of_the_closed_form(mode):
    def solve(penalty):
        result = minimize(ridge, np.zeros(4), args=(penalty,), method="newton_cg", tol=1e-9)
        return result.params, result.value

    params, value = numbers(jax.jit(mode(solve))(3.0))
    solution, slope, _ = ridge_closed(3.0)
    assert np.allclose(params, slope, rtol=0, atol=1e-9)
    assert np.allclose(value, 0.5 * solution @ solution, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_second_derivatives_and_closed_over_values():
    def solve(penalty):
        return minimize(lambda w: ridge(w, penalty), np.zeros(4), method="newton_cg", tol=1e-10).params.sum()

    found = jax.jit(lambda penalty: jax.jvp(jax.grad(solve), (penalty,), (1.0,)))(3.0)
    assert np.allclose(found, [derivative.sum() for derivative in ridge_closed(3.0)[1:]], rtol=0, atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_the_derivative_of_logistic_regression_with_respect_to_its_data():
    solve = jax.jit(jax.value_and_grad(lambda data: minimize(logistic, np.zeros(4), args=(data,), tol=1e-10).params[0]))
    grads = np.asarray(solve(DESIGN)[1])
    for i, j in ((0, 0), (7, 2), (39, 3)):
        shift = np.zeros_like(DESIGN)
        shift[i, j] = 1e-4
        central = (solve(DESIGN + shift)[0] - solve(DESIGN - shift)[0]) / 2e-4
        assert abs(grads[i, j] - central) < 1e-6
    assert np.max(np.abs(grads)) > 1e-3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "method", ["lbfgs", "nesterov", pytest.param(GradientDescent(0.01), marks=pytest.mark.slow)], ids=str
)
def test_unrolled_derivatives_come_near_the_implicit_one(method):
    def solve(penalty):
        run = minimize(
            ridge, np.zeros(4), args=(penalty,), tol=0.0, max_steps=60, method=method, differentiate="unroll"
        )
        return run.params.sum()

    assert abs(jax.jit(jax.grad(solve))(3.0) - ridge_closed(3.0)[1].sum()) < 1e-6


@pytest.mark.usefixtures("x64")
def test_a_few_unrolled_steps_have_their_own_derivative():
    def two_steps(penalty):
        run = minimize(
            ridge, np.zeros(4), args=(penalty,), max_steps=2, method=GradientDescent(0.01), differentiate="unroll"
        )
        return run.params.sum()

    # the first step, from zero, does not see the penalty; the second one shrinks what the first has found
    first = 0.01 * DESIGN.T @ TARGET
    assert np.isclose(jax.jit(jax.grad(two_steps))(3.0), -0.01 * first.sum(), rtol=1e-10)


def test_settings_that_are_arrays_can_be_batched():
    def end(rate):
        return minimize(bowl, np.zeros(3), method=GradientDescent(rate), max_steps=300, tol=1e-4)

    result = jax.jit(jax.vmap(end))(np.array([0.05, 0.1, 0.3]))
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
        ({"params": jnp.ones(2, jnp.complex64), "bounds": (0, 1)}, TypeError, "complex numbers have no order"),
        ({"fun": None}, TypeError, "fun must be a function; got None"),
        ({"fun": lambda x: None}, TypeError, "real scalar; got a NoneType"),
        ({"fun": lambda x: jnp.sum(x).astype(int)}, TypeError, "its gradient is zero everywhere"),
        ({"fun": lambda x: 3}, TypeError, "its gradient is zero everywhere"),
        ({"fun": lambda x: jnp.sum(x) + 1j}, TypeError, "take its real part"),
        ({"fun": bowl, "has_aux": True}, TypeError, "has_aux=True, fun must return a pair"),
        ({"max_steps": 1.5}, TypeError, "max_steps must be an integer.*got 1.5"),
        ({"max_steps": True}, TypeError, "got True"),
        ({"tol": "small"}, TypeError, "tol must be a number or None; got 'small'"),
        ({"tol": -1.0}, ValueError, "at least 0; got -1.0"),
        ({"tol": jnp.nan}, ValueError, "finite"),
        ({"trace": "yes"}, TypeError, "trace must be True or False; got 'yes'"),
        ({"value_dtype": "wide"}, TypeError, "a dtype of floats or None; got 'wide'"),
        ({"method": LBFGS}, TypeError, r"got LBFGS itself: call it, LBFGS\(...\)"),
        ({"method": adam}, TypeError, "got adam itself"),
        ({"method": "Nelder-Mead"}, ValueError, "all methods here use gradients"),
        ({"line_search": Armijo}, TypeError, "line_search must be one of 'armijo'"),
        ({"maxiter": 10}, TypeError, "no argument 'maxiter'; here it is max_steps"),
        ({"callback": print}, TypeError, "here it is trace=True"),
        ({"colour": 1}, TypeError, "no argument 'colour'"),
        ({"bounds": [[0, 0], [1, 1]]}, ValueError, "may be"),
        ({"params": {"a": "text"}}, TypeError, "\\['a'\\] is a str"),
        ({"params": jnp.arange(2)}, TypeError, "no float leaf; found \\['int32'\\]. Integers do not move"),
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
    call = {"fun": bowl, "params": np.ones(2)} | change
    with pytest.raises(error, match=message):
        minimize(call.pop("fun"), call.pop("params"), **call)


def test_names_stand_for_methods_and_searches():
    assert make_method("lbfgs", None, None) == LBFGS()
    assert make_method("lbfgs", None, (0, 1)) == LBFGSB()
    assert make_method("lm", None, None) == make_method("levenberg_marquardt", None, None) == LevenbergMarquardt()
    assert make_method("L-BFGS-B", None, None) == make_method("LBFGS", None, (0, 1)) == LBFGSB()
    assert make_method("Newton-CG", None, None) == make_method("newton_cg", None, None)
    assert make_method("trust-ncg", None, None) == make_method("Trust_Region", None, None)
    assert make_method("cg", "zoom", None) == make_method("CG", "strong_wolfe", None)
    assert make_method(LBFGS(memory=3), "armijo", None) == LBFGS(memory=3, line_search=Armijo())


def test_bounds_in_scipys_form():
    pairs = flat_bounds([(0, 1), (None, 2)], jnp.ones(2))
    np.testing.assert_array_equal(pairs, [[0, -np.inf], [1, 2]])
    np.testing.assert_array_equal(flat_bounds(scipy.optimize.Bounds([0, 1], [2, 3]), jnp.ones(2)), [[0, 1], [2, 3]])
    np.testing.assert_array_equal(flat_bounds([(0, 1)] * 3, jnp.ones(3)), [[0] * 3, [1] * 3])
    # a tree of two numbers has bounds that are trees of two
    np.testing.assert_array_equal(flat_bounds([(0, 1), (2, 3)], (0.5, 0.5)), [[0, 1], [2, 3]])


@pytest.mark.parametrize("args", [2.0, np.float32(2.0), (2.0,)])
def test_what_is_no_tuple_is_one_argument(args):
    found = run(lambda x, shift: bowl(x - shift), np.zeros(2, np.float32), args=args, method=GradientDescent(0.1))
    np.testing.assert_allclose(found.params, 3.0, atol=1e-5)


#: Every method that has a meaning for complex params, and a number that it finds: 1 + 2j, or with a penalty less.
COMPLEX = {
    "lbfgs": "lbfgs",
    "newton_cg": "newton_cg",
    "cg": "cg",
    "gradient_descent": GradientDescent(0.1),
    "adam": adam(0.1),
    "optax": optax.sgd(0.1),
    "lm": "lm",
    "l1": ProximalGradient(L1(1.0)),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_params_are_found(name):
    goal = 1 + 2j
    fun = (lambda w: w["a"] - goal) if name == "lm" else (lambda w: jnp.sum(jnp.abs(w["a"] - goal) ** 2))
    found = run(fun, {"a": np.full(2, 0.1j, np.complex64)}, method=COMPLEX[name], tol=1e-3)
    assert found.params["a"].dtype == np.complex64
    expected = goal * (1 - 0.5 / np.abs(goal)) if name == "l1" else goal
    np.testing.assert_allclose(found.params["a"], expected, atol=2e-3)


@pytest.mark.slow
def test_with_bounds_the_default_method_keeps_to_them():
    solve = jax.jit(lambda bounds: minimize(bowl, np.zeros(2), bounds=bounds))
    result = solve(np.array([(0.0, 0.5), (-1.0, 3.0)]).T)
    assert bool(result.converged)
    np.testing.assert_allclose(result.params, [0.5, 1.0], atol=1e-6)
    outcome = solve(np.array([(1.0, 0.0)] * 2).T)
    assert Status(int(outcome.status)) is Status.NON_FINITE
