"""L-BFGS-B: classics with bounds, quadratics in boxes, and what a box may be."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from minimize.programs import numbers, padded, run, solver

from jgd.minimizers import LBFGS, LBFGSB, Status, minimize
from jgd.minimizers.constrained._lbfgsb import check_order
from jgd.minimizers.problem._problem import Problem

INF = np.inf
SIZE = 10


def rosenbrock(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def wood(x):
    valleys = 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2 + 90 * (x[3] - x[2] ** 2) ** 2 + (1 - x[2]) ** 2
    return valleys + 10.1 * ((x[1] - 1) ** 2 + (x[3] - 1) ** 2) + 19.8 * (x[1] - 1) * (x[3] - 1)


def hs5(x):
    return jnp.sin(x[0] + x[1]) + (x[0] - x[1]) ** 2 - 1.5 * x[0] + 2.5 * x[1] + 1


def hs110(x):
    return jnp.sum(jnp.log(x - 2) ** 2 + jnp.log(10 - x) ** 2) - jnp.prod(x) ** 0.2


#: Hock and Schittkowski's problems: function, start, bounds, solution, value.
A, B = (598 / 1200) ** 0.5, 400 * (598 / 1200) ** 1.5
CLASSICS = {
    "hs1": (rosenbrock, [-2, 1], [-INF, -1.5], [INF, INF], [1, 1], 0.0),
    "hs2": (rosenbrock, [2, 1], [-INF, 1.5], [INF, INF], [2 * A * np.cos(np.arccos(1 / B) / 3), 1.5], 0.0504261879),
    "hs3": (lambda x: x[1] + 1e-5 * (x[1] - x[0]) ** 2, [10, 1], [-INF, 0], [INF, INF], [0, 0], 0.0),
    "hs4": (lambda x: (x[0] + 1) ** 3 / 3 + x[1], [1.125, 0.125], [1, 0], [INF, INF], [1, 0], 8 / 3),
    "hs5": (hs5, [0, 0], [-1.5, -3], [4, 3], [0.5 - np.pi / 3, -0.5 - np.pi / 3], -(3**0.5) / 2 - np.pi / 3),
    "hs38": (wood, [-3, -1, -3, -1], [-10] * 4, [10] * 4, [1] * 4, 0.0),
    # its start is outside of the bounds
    "hs45": (lambda x: 2 - jnp.prod(x[:5]) / 120, [2] * 5, [0] * 5, [1, 2, 3, 4, 5], [1, 2, 3, 4, 5], 1.0),
    "hs110": (hs110, [9] * 10, [2.001] * 10, [9.999] * 10, [9.35025655] * 10, -45.77846971),
}
FUNCTIONS = {name: case[0] for name, case in CLASSICS.items()}


@functools.cache
def solve(dtype):
    """The program for all classics in one dtype, which is that of the context."""
    return solver(FUNCTIONS, LBFGSB())


def classic(name, dtype, tol):
    """The result; entries that a problem has not are fixed at zero."""
    _, start, lower, upper, _, _ = CLASSICS[name]
    bounds = (padded(lower, SIZE), padded(upper, SIZE))
    result = solve(dtype)(name, padded(start, SIZE), bounds=bounds, tol=tol)
    assert result.params.dtype == dtype
    return result


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CLASSICS)
def test_classics_end_at_the_published_solutions(name):
    result = classic(name, np.float64, 1e-7)
    _, start, _, _, solution, value = CLASSICS[name]
    assert bool(result.converged)
    assert np.allclose(result.params[: len(start)], solution, atol=2e-5 if name != "hs3" else 1e-2)
    assert np.all(result.params[len(start) :] == 0)
    assert np.isclose(result.value, value, rtol=1e-8, atol=1e-9)
    assert result.evaluations.gradients <= 60


@pytest.mark.parametrize("name", CLASSICS)
def test_float32_ends_soon_at_a_tolerance_it_cannot_reach(name):
    result = classic(name, np.float32, 1e-10)
    value = CLASSICS[name][5]
    assert Status(int(result.status)) in (Status.CONVERGED, Status.SMALL_STEP, Status.SMALL_DECREASE)
    assert abs(float(result.value) - value) <= 1e-6 * max(1, abs(value))
    assert result.evaluations.gradients <= 150


def quadratic(x, matrix, target):
    return 0.5 * jnp.sum((matrix @ x - target) ** 2)


def boxes(count, n, rng):
    """Least squares in boxes, some sides infinite, some entries fixed."""
    matrix, target = rng.normal(size=(count, n + 4, n)), 0.3 * rng.normal(size=(count, n + 4))
    lower = rng.uniform(-0.1, 0.02, size=(count, n))
    upper = lower + rng.choice([0, 0.03, 0.1, 0.3], size=(count, n))
    lower = np.where(rng.random((count, n)) < 0.2, -INF, lower)
    upper = np.where(rng.random((count, n)) < 0.2, INF, upper)
    return matrix, target, lower, upper


@functools.cache
def boxes_program():
    def solve(tol, matrix, target, lower, upper):
        start = jnp.full(lower.shape, 5.0)
        return minimize(quadratic, start, args=(matrix, target), method=LBFGSB(), bounds=(lower, upper), tol=tol)

    return jax.jit(jax.vmap(solve, in_axes=(None, 0, 0, 0, 0)))


def solve_boxes(*problems, tol=1e-9):
    """The results for 64 problems."""
    return numbers(boxes_program()(tol, *problems))


@pytest.mark.usefixtures("x64")
def test_quadratics_in_boxes_end_where_an_active_set_method_ends(rng):
    problems = boxes(64, 14, rng)
    result = solve_boxes(*problems)
    ends = []
    for matrix, target, lower, upper, x in zip(*problems, result.params, strict=True):
        assert np.all(x >= lower)
        assert np.all(x <= upper)
        # an entry is where its gradient lets it be
        grad = matrix.T @ (matrix @ x - target)
        assert np.all((np.abs(grad) <= 1e-8) | ((x == lower) & (grad >= 0)) | ((x == upper) & (grad <= 0)))
        ends += [np.sum(x == lower) / x.size, np.sum(x == upper) / x.size]
        wide = lower < upper  # the reference wants room
        rest = target - matrix[:, ~wide] @ lower[~wide]
        best = scipy.optimize.lsq_linear(matrix[:, wide], rest, (lower[wide], upper[wide]), method="bvls", tol=1e-14)
        assert np.allclose(x[wide], best.x, atol=1e-8)
    assert 0.2 < np.mean(ends) < 0.5  # bounds do bind
    # the others end where rounding hides what is left
    assert np.mean(result.converged) > 0.9
    assert np.mean(result.evaluations.gradients) < 25  # scipy's L-BFGS-B: 24


@pytest.mark.usefixtures("x64")
def test_lanes_with_their_own_bounds_are_equal_to_solo_runs(rng):
    problems = boxes(64, 14, rng)
    batch = solve_boxes(*problems)
    for i in (0, 17, 63):
        solo = solve_boxes(*(np.repeat(a[i : i + 1], 64, axis=0) for a in problems))
        assert int(solo.steps[5]) == int(batch.steps[i])
        assert np.allclose(solo.params[5], batch.params[i], rtol=0, atol=1e-12)


SEEN = []


def watched(x, top):
    jax.debug.callback(lambda x: SEEN.append(np.asarray(x)), x)
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2) + jnp.sum((x - 3 * top) ** 4)


@functools.cache
def watched_program():
    return jax.jit(lambda start, lower, upper: minimize(watched, start, args=(upper,), bounds=(lower, upper), tol=1e-4))


@pytest.mark.parametrize("top", [0.1, 1 / 3, 0.7])
def test_no_evaluation_is_outside_of_the_bounds(top):
    SEEN.clear()
    lower, upper = np.linspace(-1.3, top - 0.05, 5, dtype=np.float32), np.full(5, top, np.float32)
    start = np.float32(0.9) * lower + np.float32(0.1) * upper
    result = numbers(watched_program()(start, lower, upper))
    jax.effects_barrier()
    assert len(SEEN) >= result.evaluations.values >= 2
    assert all(np.all(x >= lower) and np.all(x <= upper) for x in SEEN)
    assert np.any(result.params == upper)


@pytest.mark.usefixtures("x64")
def test_with_infinite_bounds_it_is_lbfgs():
    start = padded([-1.2, 1.0], SIZE)
    free = run(rosenbrock, start, method=LBFGS(), tol=1e-7)
    mine = solve(np.float64)("hs1", start, bounds=(np.full(SIZE, -INF), np.full(SIZE, INF)), tol=1e-7)
    assert bool(mine.converged)
    assert np.allclose(mine.params, free.params, atol=1e-6)
    assert abs(int(mine.evaluations.gradients) - int(free.evaluations.gradients)) <= 3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", ["projected_gradient", pytest.param("lbfgsb", marks=pytest.mark.slow)])
def test_bounds_are_trees_numbers_or_none(method):
    params = {"a": np.full(3, 4.0), "b": (np.array(-2.0),)}

    def fun(p):
        return jnp.sum((p["a"] - jnp.array([-1.0, 0.5, 9.0])) ** 2) + (p["b"][0] + p["a"][0]) ** 2

    result = run(fun, params, method=method, bounds=({"a": np.zeros(3), "b": (-INF,)}, 5.0))
    assert bool(result.converged)
    assert np.allclose(result.params["a"], [0, 0.5, 5])
    assert np.allclose(result.params["b"][0], 0, atol=1e-6)
    assert np.allclose(run(fun, params, method=method, bounds=(None, 0.25)).params["a"], [-0.625, 0.25, 0.25])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lower", "upper", "found"), [(2.0, 3.0, 2.0), (-3.0, 0.5, 0.5), (-3.0, 3.0, 1.0), (2.0, 2.0, 2.0)]
)
def test_one_entry(lower, upper, found):
    result = one_entry()("parabola", np.array(7.0), bounds=(lower, upper))
    assert bool(result.converged)
    assert np.isclose(result.params, found)


def parabola(x):
    return (x - 1) ** 2


@functools.cache
def one_entry():
    return solver({"parabola": parabola}, LBFGSB())


@pytest.mark.usefixtures("x64")
def test_all_entries_at_their_bounds_is_a_solution():
    upper = padded(np.arange(1.0, 6.0), SIZE)
    result = solve(np.float64)("hs45", upper, bounds=(np.zeros(SIZE), upper), tol=1e-7)
    assert bool(result.converged)
    assert int(result.steps) == 0
    assert np.array_equal(result.params, upper)


def test_bounds_in_the_wrong_order():
    with pytest.raises(ValueError, match=r"got 2.0 and 1.0 for entry 1 of the raveled params \(1 of 2"):
        check_order((np.array([0.0, 2.0]), np.array([1.0, 1.0])))
    with pytest.raises(ValueError, match="lower bounds must be at most"):
        check_order((np.array([np.nan]), np.array([1.0])))
    check_order((np.array([1.0]), np.array([1.0])))
    check_order(None)
    # where they are not known at trace time the start is NaN, and the run ends as non-finite
    with jax.enable_x64(False):
        result = solve(np.float32)("hs3", np.ones(SIZE), bounds=(np.ones(SIZE), np.zeros(SIZE)))
    assert Status(int(result.status)) is Status.NON_FINITE
    problem = Problem(parabola, bounds=(np.array([2.0, 0.0]), np.array([1.0, 1.0])))
    assert np.array_equal(LBFGSB().start(problem, np.array([0.0, 3.0])), [np.nan, 1], equal_nan=True)


@pytest.mark.usefixtures("x64")
def test_derivatives_of_a_solution_with_respect_to_arguments_and_bounds(rng):
    matrix, target, lower, upper = (a[0] for a in boxes(1, 14, rng))
    upper = np.where(lower < upper, upper, lower + 0.03)  # a box without room has no derivative with respect to a side

    def solution(inputs):
        target, lower, upper = inputs
        run = minimize(
            quadratic, np.zeros(14), args=(matrix, target), method=LBFGSB(), bounds=(lower, upper), tol=1e-12
        )
        return run.params

    inputs = (target, np.where(np.isfinite(lower), lower, -1e3), np.where(np.isfinite(upper), upper, 1e3))
    found = numbers(jax.jit(jax.jacobian(solution))(inputs))
    for k, size in enumerate(a.size for a in inputs):
        shifts = np.zeros((64, size))
        shifts[: 2 * size] = 1e-5 * np.concatenate([np.eye(size), -np.eye(size)])
        moved = (a + shifts if j == k else np.broadcast_to(a, (64, a.size)) for j, a in enumerate(inputs))
        x = solve_boxes(np.broadcast_to(matrix, (64, *matrix.shape)), *moved, tol=1e-12).params
        assert np.allclose(found[k].T, (x[:size] - x[size : 2 * size]) / 2e-5, atol=1e-6)
    at_bound = np.sum((x[-1] == lower) | (x[-1] == upper))
    assert 0 < at_bound < 14
