"""The test problems of scipy and optimistix, to the tolerances of their own test suites."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from minimize.problems import _published as published
from minimize.programs import numbers, padded_rows, run

from jgd.minimizers import Status, minimize

pytestmark = pytest.mark.usefixtures("x64")

METHODS = ["lbfgs", "bfgs", "cg", "newton_cg", "trust_region"]
GENERAL = [*published.SCIPY, *published.OPTIMISTIX]


def solver(problems, method, *, residuals=False):
    """One program for problems of one size: from a problem and maybe bounds to a result."""
    kinds = list({id(problem.fun): problem.fun for problem in problems}.values())

    def fun(x, i):
        if not residuals:
            return jax.lax.switch(i, kinds, x)
        rows = max(jax.eval_shape(kind, x).size for kind in kinds)
        return jax.lax.switch(i, [functools.partial(padded_rows, kind, rows) for kind in kinds], x)

    @jax.jit
    def solve(start, i, bounds):
        return minimize(fun, start, args=(i,), method=method, tol=1e-8, max_steps=2000, bounds=bounds)

    return lambda problem, start, bounds=None: numbers(solve(start, kinds.index(problem.fun), bounds))


def misses(problem, result):
    """What a result lacks of what is asked for; empty if nothing."""
    x, value = result.params, float(result.value)
    near = {"rtol": problem.rtol, "atol": problem.atol}
    found = []
    if problem.value is not None and not np.allclose(value, problem.value, **near):
        found.append(f"value {value!r}, expected {problem.value!r}")
    if problem.minimizer is not None and not np.allclose(x[: len(problem.minimizer)], problem.minimizer, **near):
        found.append(f"params {x}, expected {problem.minimizer}")
    return [f"{problem.name}: {', '.join(found)}; {Status(int(result.status)).name}"] if found else []


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=() if name == "lbfgs" else pytest.mark.slow) for name in METHODS]
)
def test_minimization_problems(method):
    problems = [p for p in (*published.SCIPY, *published.OPTIMISTIX) if not p.only or method in p.only]
    solve = solver(problems, method)
    failures = [line for p in problems for line in misses(p, solve(p, published.padded(p.start)))]
    assert not failures, "\n".join(failures)


def test_sums_of_squares():
    solve = solver(published.SQUARES, "lm", residuals=True)
    failures = [line for p in published.SQUARES for line in misses(p, solve(p, published.padded(p.start)))]
    assert not failures, "\n".join(failures)


@pytest.mark.slow
def test_large_sums_of_squares():
    solve = solver(published.LARGE_SQUARES, "lm", residuals=True)
    results = [solve(p, p.start) for p in published.LARGE_SQUARES]
    assert max(int(result.evaluations.values) for result in results) < 100
    failures = [line for p, result in zip(published.LARGE_SQUARES, results, strict=True) for line in misses(p, result)]
    assert not failures, "\n".join(failures)


def test_problems_with_bounds():
    solve = solver(published.BOUNDED, "lbfgs")
    kinds = {id(p.fun): p.fun for p in published.BOUNDED}
    gradients = jax.jit(lambda x: {name: jax.grad(fun)(x) for name, fun in kinds.items()})
    failures = []
    for problem in published.BOUNDED:
        lower, upper = (published.padded(b, f) for b, f in zip(problem.bounds, (-np.inf, np.inf), strict=True))
        result = solve(problem, published.padded(problem.start), (lower, upper))
        x = result.params
        assert np.all((x >= lower) & (x <= upper)), problem.name
        gradient = np.asarray(gradients(x)[id(problem.fun)])
        optimality = np.max(np.abs(x - np.clip(x - gradient, lower, upper)))
        failures += misses(problem, result) + ([] if optimality <= 1e-5 else [f"{problem.name}: {optimality}"])
    assert not failures, "\n".join(failures)


def test_a_line_is_fitted_in_float32():
    x = np.linspace(0, 1, 100, dtype=np.float32)
    y = np.random.default_rng(1978).random(size=100, dtype=np.float32)
    found = run(lambda p: p[0] + p[1] * x - y, np.array([-1, -1], np.float32), method="lm", tol=1e-4)
    expected = np.linalg.lstsq(np.stack([np.ones(100), x], 1), y.astype(np.float64))[0]
    assert found.params.dtype == np.float32
    np.testing.assert_allclose(found.params, expected, atol=9e-5)


# --- trees, of optimistix: all as one tree, of which each problem uses its part ---------------------------------------
NETWORK = {
    "weight1": np.array(
        [3.39958394, -0.00648151, -0.57178741, -0.9259611, 0.43010087, 0.74950293, -0.35932756, 1.28393738]
    )[:, None],
    "bias1": np.array([-0.14702571, 3.61400359, -1.01404942, 0.3223137, 2.19991259, -0.51860872, 0.4717813, 0.9449359]),
    "weight2": np.array(
        [[0.26476087, 0.05913492, 0.40830152, 0.704758, 0.64347694, 0.85807767, 0.54285774, 0.05507022]]
    ),
    "bias2": np.array([-2.16578771]),
}
TREES = {
    "bowl": ({"a": 0.05 * np.ones((2, 3, 3))}, 0.05 * np.ones(2)),
    "line": (1.5 * np.ones((2, 4)), {"a": 1.5 * np.ones((2, 3, 2))}, ()),
    "network": NETWORK,
}


def flat(tree):
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def diagonal_bowl(trees):
    weights = 0.1 + jax.random.normal(jax.random.key(17), (20,)) ** 2
    return flat(trees["bowl"]) ** 2 * weights


def line(trees):
    y = flat(trees["line"])
    return jnp.concatenate([100 * (y[1:] - y[:-1]), 1 - y[:-1]])


def network(trees):
    net, x = trees["network"], jnp.linspace(0, 1, 100)[:, None]
    hidden = jax.nn.relu(x @ net["weight1"].T + net["bias1"])
    return jnp.ravel(hidden @ net["weight2"].T + net["bias2"] - x**2) ** 2


def coupled_bowl(trees):
    matrix = jax.random.normal(jax.random.key(17), (20, 20))
    return jnp.sum((matrix @ flat(trees["bowl"])) ** 2)


def stacked(trees, i):
    """Residuals of the `i`-th problem."""
    kinds = (diagonal_bowl, line, network)
    return jax.lax.switch(i, [functools.partial(padded_rows, kind, 100) for kind in kinds], trees)


@pytest.mark.slow
def test_trees_of_residuals():
    @jax.jit
    def solve(i):
        return minimize(stacked, TREES, args=(i,), method="lm", tol=1e-8)

    for i, name in enumerate(TREES):
        assert 2 * float(solve(i).value) <= 1e-4, name


@pytest.mark.slow
def test_a_tree():
    found = run(coupled_bowl, {"bowl": TREES["bowl"]}, tol=1e-8)
    assert jax.tree.structure(found.params["bowl"]) == jax.tree.structure(TREES["bowl"])
    assert abs(float(found.value)) <= 1e-4
