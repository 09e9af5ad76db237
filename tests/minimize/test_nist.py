"""NIST's certified nonlinear regressions, from both starts; their certified standard errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from minimize.problems import nist
from minimize.programs import numbers, padded, padded_rows

from jgd.minimizers import minimize

pytestmark = pytest.mark.usefixtures("x64")

#: Of two to four params: badly scaled, curved, with plateaus.
QUICK = ["Misra1a", "BoxBOD", "Eckerle4", "MGH10", "MGH09"]


@functools.cache
def solver(names, dtype="float64"):
    """One program for all: from a name and a start to a result, whose params beyond the problem's own stay zero."""
    problems = [nist.REGRESSIONS[name] for name in names]
    rows, size = max(len(p.y) for p in problems), max(p.size for p in problems)
    branches = [
        functools.partial(padded_rows, lambda x, p=p: p.residuals(x[: p.size]), rows)  # rows of zeros say nothing
        for p in problems
    ]

    @jax.jit
    def program(start, i):
        # Bennett5, a long curved valley, takes 1,123 steps from its first start, all others less than 1,000;
        # with geodesic=True it takes 8
        return minimize(lambda x: jax.lax.switch(i, branches, x), start, method="lm", max_steps=1500)

    return lambda name, start: numbers(program(padded(start, size).astype(dtype), names.index(name)))


def digits(name, found):
    """How many digits of the worst param are those certified."""
    problem = nist.REGRESSIONS[name]
    off = np.abs(np.asarray(found.params, float)[: problem.size] / problem.params - 1)
    return float(-np.log10(np.max(off) + 1e-12))


def check(name, start, found):
    problem = nist.REGRESSIONS[name]
    assert digits(name, found) >= 6, (name, start, found)
    # the params are certified to 11 digits, and so is the sum where their rounding does not hide it
    assert abs(2 * float(found.value) / problem.squares - 1) <= 1e-8 or name == "Lanczos1"
    assert bool(found.converged), (name, start, found)


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("start", [0, 1])
def test_the_certified_params_are_found(name, start):
    check(name, start, solver(tuple(QUICK))(name, nist.REGRESSIONS[name].starts[start]))


def test_standard_errors_are_the_certified_ones():
    problem = nist.REGRESSIONS["MGH10"]  # columns of the Jacobian differ by 1e8
    found = jax.jit(lambda start: minimize(problem.residuals, start, method="lm"))(problem.starts[1])
    errors = np.sqrt(np.diag(found.covariance()))
    np.testing.assert_allclose(errors, problem.errors, rtol=1e-6)
    assert found.jacobian.shape == (16, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(nist.REGRESSIONS))
def test_all_of_nist(name):
    solve = solver(tuple(nist.REGRESSIONS))
    for start in (0, 1):
        check(name, start, solve(name, nist.REGRESSIONS[name].starts[start]))


@pytest.mark.slow
def test_float32_finds_two_digits_of_nearly_all():
    # five fits are beyond it: their sums of squares do not tell params apart in float32
    solve = solver(tuple(nist.REGRESSIONS), "float32")
    found = {(name, k): solve(name, p.starts[k]) for name, p in nist.REGRESSIONS.items() for k in (0, 1)}
    assert sum(digits(name, result) >= 2 for (name, _), result in found.items()) >= 49
    assert all(result.params.dtype == jnp.float32 for result in found.values())
