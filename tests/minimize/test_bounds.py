"""L-BFGS-B: classics with bounds, quadratics in boxes, and what a box may be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jgd.minimize import LBFGS, LBFGSB, Status, minimize
from jgd.minimize._lbfgsb import check_order
from jgd.minimize._problem import Problem

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
FUNCTIONS = [case[0] for case in CLASSICS.values()]


@jax.jit
def solve_classic(i, start, lower, upper, tol):
    def fun(x, i):
        return jax.lax.switch(i, FUNCTIONS, x)

    return minimize(fun, start, args=(i,), method=LBFGSB(), bounds=(lower, upper), tol=tol)


def classic(name, dtype, tol):
    """The result; entries that a problem has not are fixed at zero."""
    _, start, lower, upper, _, _ = CLASSICS[name]
    padded = [jnp.asarray(np.pad(np.asarray(row, float), (0, SIZE - len(row))), dtype) for row in (start, lower, upper)]
    return solve_classic(list(CLASSICS).index(name), *padded, jnp.asarray(tol, dtype))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CLASSICS)
def test_classics_end_at_the_published_solutions(name):
    result = classic(name, jnp.float64, 1e-7)
    _, start, _, _, solution, value = CLASSICS[name]
    assert bool(result.converged)
    assert np.allclose(result.params[: len(start)], solution, atol=2e-5 if name != "hs3" else 1e-2)
    assert np.all(np.asarray(result.params[len(start) :]) == 0)
    assert np.isclose(result.value, value, rtol=1e-8, atol=1e-9)
    assert result.evaluations.gradients <= 60


@pytest.mark.parametrize("name", CLASSICS)
def test_float32_ends_soon_at_a_tolerance_it_cannot_reach(name):
    result = classic(name, jnp.float32, 1e-10)
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


@jax.jit
def solve_boxes(matrix, target, lower, upper):
    def solve(matrix, target, lower, upper):
        start = jnp.full(lower.shape, 5.0)
        return minimize(quadratic, start, args=(matrix, target), method=LBFGSB(), bounds=(lower, upper), tol=1e-9)

    return jax.vmap(solve)(matrix, target, lower, upper)


@pytest.mark.usefixtures("x64")
def test_quadratics_in_boxes_end_where_an_active_set_method_ends(rng):
    problems = boxes(64, 14, rng)
    result = solve_boxes(*problems)
    ends = []
    for matrix, target, lower, upper, x in zip(*problems, np.asarray(result.params), strict=True):
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


@pytest.mark.parametrize("top", [0.1, 1 / 3, 0.7])
def test_no_evaluation_is_outside_of_the_bounds(top):
    SEEN.clear()
    lower, upper = jnp.linspace(-1.3, top - 0.05, 5), jnp.full(5, top)
    start = 0.9 * lower + 0.1 * upper
    result = minimize(watched, start, args=(upper,), method=LBFGSB(), bounds=(lower, upper), tol=1e-4)
    jax.effects_barrier()
    assert len(SEEN) >= result.evaluations.values >= 2
    assert all(np.all(x >= lower) and np.all(x <= upper) for x in SEEN)
    assert np.any(np.asarray(result.params) == np.asarray(upper))


@pytest.mark.usefixtures("x64")
def test_with_infinite_bounds_it_is_lbfgs():
    start = jnp.array([-1.2, 1.0])
    free = minimize(rosenbrock, start, method=LBFGS(), tol=1e-7)
    mine = solve_classic(0, jnp.pad(start, (0, SIZE - 2)), jnp.full(SIZE, -INF), jnp.full(SIZE, INF), jnp.array(1e-7))
    assert bool(mine.converged)
    assert np.allclose(mine.params[:2], free.params, atol=1e-6)
    assert abs(int(mine.evaluations.gradients) - int(free.evaluations.gradients)) <= 3


@pytest.mark.usefixtures("x64")
def test_bounds_are_trees_numbers_or_none():
    params = {"a": jnp.full(3, 4.0), "b": (jnp.array(-2.0),)}

    def fun(p):
        return jnp.sum((p["a"] - jnp.array([-1.0, 0.5, 9.0])) ** 2) + (p["b"][0] + p["a"][0]) ** 2

    lower = {"a": jnp.zeros(3), "b": (-INF,)}
    result = minimize(fun, params, method=LBFGSB(), bounds=(lower, 5.0))
    assert bool(result.converged)
    assert np.allclose(result.params["a"], [0, 0.5, 5])
    assert np.allclose(result.params["b"][0], 0, atol=1e-6)
    assert np.allclose(minimize(fun, params, method=LBFGSB(), bounds=(None, 0.25)).params["a"], [-0.625, 0.25, 0.25])


@pytest.mark.parametrize(
    ("lower", "upper", "found"), [(2.0, 3.0, 2.0), (-3.0, 0.5, 0.5), (-3.0, 3.0, 1.0), (2.0, 2.0, 2.0)]
)
def test_one_entry(lower, upper, found):
    result = minimize(parabola, jnp.array(7.0), method=LBFGSB(), bounds=(lower, upper))
    assert bool(result.converged)
    assert np.isclose(result.params, found)


def parabola(x):
    return (x - 1) ** 2


@pytest.mark.usefixtures("x64")
def test_all_entries_at_their_bounds_is_a_solution():
    upper = jnp.pad(jnp.arange(1.0, 6.0), (0, SIZE - 5))
    result = solve_classic(list(CLASSICS).index("hs45"), upper, jnp.zeros(SIZE), upper, jnp.array(1e-7))
    assert bool(result.converged)
    assert int(result.steps) == 0
    assert np.array_equal(result.params, upper)


def test_bounds_in_the_wrong_order():
    with pytest.raises(ValueError, match=r"got 2.0 and 1.0 for entry 1 of the raveled params \(1 of 2"):
        check_order((jnp.array([0.0, 2.0]), jnp.array([1.0, 1.0])))
    with pytest.raises(ValueError, match="lower bounds must be at most"):
        check_order((jnp.array([jnp.nan]), jnp.array([1.0])))
    check_order((jnp.array([1.0]), jnp.array([1.0])))
    check_order(None)
    # where they are not known at trace time the start is NaN, and the run ends as non-finite
    problem = Problem(parabola, bounds=(jnp.array([2.0, 0.0]), jnp.array([1.0, 1.0])))
    assert np.array_equal(LBFGSB().start(problem, jnp.array([0.0, 3.0])), [np.nan, 1], equal_nan=True)


@pytest.mark.usefixtures("x64")
def test_derivatives_of_a_solution_with_respect_to_arguments_and_bounds(rng):
    matrix, target, lower, upper = (a[0] for a in boxes(1, 6, rng))

    def solution(inputs):
        target, lower, upper = inputs
        run = minimize(
            quadratic, jnp.zeros(6), args=(matrix, target), method=LBFGSB(), bounds=(lower, upper), tol=1e-12
        )
        return run.params

    inputs = (target, np.where(np.isfinite(lower), lower, -1e3), np.where(np.isfinite(upper), upper, 1e3))
    inputs = tuple(map(jnp.asarray, inputs))
    found = jax.jit(jax.jacobian(solution))(inputs)
    many = jax.jit(jax.vmap(solution))
    for k, size in enumerate(a.size for a in inputs):
        shifts = 1e-5 * np.concatenate([np.eye(size), -np.eye(size)])
        moved = tuple(a + shifts if j == k else jnp.broadcast_to(a, (2 * size, a.size)) for j, a in enumerate(inputs))
        moved = tuple(jnp.pad(a, ((0, 2 * 10 - 2 * size), (0, 0)), mode="edge") for a in moved)
        x = np.asarray(many(moved))
        assert np.allclose(found[k].T, (x[:size] - x[size : 2 * size]) / 2e-5, atol=1e-6)
    at_bound = np.sum((x[-1] == lower) | (x[-1] == upper))
    assert 0 < at_bound < 6
