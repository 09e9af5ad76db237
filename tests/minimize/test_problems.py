"""The test problems are what their authors published, and L-BFGS and Levenberg-Marquardt solve them.

The fast tier does so for a few problems; `pytest -m slow` for all of the 35 of More, Garbow and Hillstrom.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from minimize.problems import classics, mgh, sif
from minimize.problems._problem import sum_of_squares
from minimize.programs import numbers, padded, padded_rows

from jgd.minimizers import minimize

# Norms of the residuals at the starts: those that MINPACK's test program prints, and the paper's values.
START_NORMS = {
    "rosenbrock": 4.919350,
    "freudenstein_roth": 20.01249,
    "helical_valley": 50.0,
    "bard": 6.456136,
    "meyer": 41153.46,
    "box_three_dimensional": 32.11158,
    "powell_singular": 14.66288,
    "kowalik_osborne": 0.07289151,
    "jennrich_sampson": 64.58565,
    "brown_dennis": 2815.438,
    "osborne_1": 0.9375640,
    "osborne_2": 1.446865,
    "watson": 5.477226,
    "brown_almost_linear": 16.53022,
    "linear_full_rank": 7.071068,
    "chebyquad": 0.1965139,
}

#: Varied ones, for the fast tier.
QUICK = ["rosenbrock", "beale", "helical_valley", "bard", "gaussian", "box_three_dimensional"]
QUICK += ["powell_singular", "wood", "kowalik_osborne", "trigonometric", "broyden_tridiagonal", "variably_dimensioned"]
QUICK_CLASSICS = ["booth", "branin", "griewank_10", "ridge_diabetes"]


def tiered(names, quick):
    """The names as parameters: those that are not among the quick ones are slow."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


@pytest.fixture(autouse=True, scope="module")
def in_float64():
    with jax.enable_x64(True):
        yield


def differentiated(problem, x):
    """The value, its gradient, and what the gradient would be if nothing in it canceled."""

    def both(x):
        if problem.residuals is None:
            value, gradient = jax.value_and_grad(problem.fun)(x)
            return value, gradient, jnp.abs(gradient) + 1
        residuals = problem.residuals(x)
        jacobian = jax.jacfwd(problem.residuals)(x)
        return problem.fun(x), 2 * residuals @ jacobian, 2 * jnp.abs(residuals) @ jnp.abs(jacobian)

    return numbers(jax.jit(both)(x))


def test_there_are_as_many_problems_as_promised():
    assert len(mgh.PROBLEMS) == 35
    assert len(classics.PROBLEMS) >= 25


@pytest.mark.parametrize("name", tiered(START_NORMS, QUICK))
def test_the_start_is_the_published_one(name):
    problem = mgh.PROBLEMS[name]
    assert np.linalg.norm(jax.jit(problem.residuals)(problem.start)) == pytest.approx(START_NORMS[name], rel=6e-7)


@pytest.mark.parametrize("name", tiered(mgh.PROBLEMS, QUICK))
def test_the_published_minimum_of_mgh_is_a_stationary_point(name):
    problem = mgh.PROBLEMS[name]
    value, gradient, scale = differentiated(problem, problem.minimizer)
    assert value == pytest.approx(problem.minimum, rel=1e-5, abs=1e-20)
    assert np.all(np.abs(gradient) <= 1e-9 * scale + 1e-9)


@pytest.mark.parametrize(
    "name", tiered([name for name, p in classics.PROBLEMS.items() if p.minimizer is not None], QUICK_CLASSICS)
)
def test_the_known_minimum_of_a_classic_is_a_stationary_point(name):
    problem = classics.PROBLEMS[name]
    value, gradient, scale = differentiated(problem, problem.minimizer)
    assert value == pytest.approx(problem.minimum, rel=1e-9, abs=1e-20)
    assert np.all(np.abs(gradient) <= 1e-9 * scale + 1e-9)


@pytest.mark.parametrize("name", [*mgh.PROBLEMS, *classics.PROBLEMS])
def test_float32_stays_float32(name):
    problem = (mgh.PROBLEMS | classics.PROBLEMS)[name]
    x = jax.ShapeDtypeStruct((problem.size,), jnp.float32)
    assert jax.eval_shape(problem.fun, x).dtype == jnp.float32
    if problem.residuals is not None:
        assert jax.eval_shape(problem.residuals, x).dtype == jnp.float32


def groups(names):
    """The names by the size of their problems."""
    found = {}
    for name in names:
        found.setdefault(mgh.PROBLEMS[name].size, []).append(name)
    return list(found.values())


def solve(names, method):
    """The values at the results by name, from one compiled program; smaller problems get params that they ignore."""
    problems = [mgh.PROBLEMS[name] for name in names]
    rows = max(jax.eval_shape(problem.residuals, problem.start).size for problem in problems)
    size = max(problem.size for problem in problems)

    def residuals(problem):
        return functools.partial(padded_rows, lambda x: problem.residuals(x[: problem.size]), rows)

    branches = [residuals(problem) for problem in problems]
    if method != "levenberg_marquardt":
        branches = [sum_of_squares(branch) for branch in branches]

    @jax.jit
    def run(x, i):
        return minimize(lambda x: jax.lax.switch(i, branches, x), x, method=method, max_steps=2000)

    @jax.jit
    def value(x, i):
        return jax.lax.switch(i, [lambda x, p=p: p.fun(x[: p.size]) for p in problems], x)

    return {
        problem.name: float(value(run(padded(problem.start, size), i).params, i)) for i, problem in enumerate(problems)
    }


@pytest.mark.parametrize("method", ["lbfgs", "levenberg_marquardt"])
@pytest.mark.parametrize(
    "names",
    [
        pytest.param(QUICK, id="quick"),
        *(
            pytest.param(names, id=f"n={mgh.PROBLEMS[names[0]].size}", marks=pytest.mark.slow)
            for names in groups(mgh.PROBLEMS)
        ),
    ],
)
def test_mgh_is_solved(names, method):
    for name, value in solve(names, method).items():
        known = [mgh.PROBLEMS[name].minimum, *mgh.PROBLEMS[name].others]
        assert any(abs(value - minimum) <= 1e-6 * min(1, 1e-12 + minimum) + 1e-8 for minimum in known), (name, value)


@pytest.mark.skipif(not sif.is_installed(), reason="pip install 'jgd[problems]'")
def test_sif2jax_has_at_least_a_hundred_problems():
    unconstrained, bounded = sif.problems("unconstrained"), sif.problems("bounded")
    assert len(unconstrained) >= 100
    assert len(bounded) >= 50
    assert sif.is_installed()  # still, with its packages in place
    assert any(np.any(np.isfinite(problem.bounds)) for problem in bounded.values())
    # Where both have a problem, they agree on its start and on its value there and elsewhere.
    pairs = {
        "rosenbr": "rosenbrock",
        "beale": "beale",
        "helix": "helical_valley",
        "bard": "bard",
    }
    for theirs, name in pairs.items():
        mine = mgh.PROBLEMS[name]
        for x in (mine.start, mine.start + 0.1):
            assert float(unconstrained[theirs].fun(jnp.asarray(x))) == pytest.approx(float(mine.fun(jnp.asarray(x))))
