"""General constraints: published solutions with their multipliers, statuses, derivatives, errors.

The problems are Hock and Schittkowski's, "Test examples for nonlinear programming codes",
https://doi.org/10.1007/978-3-642-48320-2, 1981, by their numbers there.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from minimize.programs import numbers

from jgd.minimizers import Status, explain, minimize


class Published(NamedTuple):
    """A problem and its solution: the value, and the multipliers as the conditions at the solution give them."""

    fun: Any
    start: list[float]
    value: float
    equality: Any = None
    inequality: Any = None
    bounds: Any = None
    params: Any = None
    multipliers: tuple = (None, None)


PROBLEMS = {
    7: Published(
        lambda x: jnp.log(1 + x[0] ** 2) - x[1],
        [2.0, 2.0],
        -np.sqrt(3),
        equality=lambda x: (1 + x[0] ** 2) ** 2 + x[1] ** 2 - 4,
        params=[0, np.sqrt(3)],
        multipliers=(1 / (2 * np.sqrt(3)), None),
    ),
    12: Published(
        lambda x: 0.5 * x[0] ** 2 + x[1] ** 2 - x[0] * x[1] - 7 * x[0] - 7 * x[1],
        [0.0, 0.0],
        -30.0,
        inequality=lambda x: 4 * x[0] ** 2 + x[1] ** 2 - 25,
        params=[2, 3],
        multipliers=(None, 0.5),
    ),
    14: Published(
        lambda x: (x[0] - 2) ** 2 + (x[1] - 1) ** 2,
        [2.0, 2.0],
        9 - 2.875 * np.sqrt(7),
        equality=lambda x: x[0] - 2 * x[1] + 1,
        inequality=lambda x: 0.25 * x[0] ** 2 + x[1] ** 2 - 1,
        params=[0.5 * (np.sqrt(7) - 1), 0.25 * (np.sqrt(7) + 1)],
    ),
    28: Published(
        lambda x: (x[0] + x[1]) ** 2 + (x[1] + x[2]) ** 2,
        [-4.0, 1.0, 1.0],
        0.0,
        equality=lambda x: x[0] + 2 * x[1] + 3 * x[2] - 1,
        params=[0.5, -0.5, 0.5],
        multipliers=(0.0, None),
    ),
    35: Published(
        lambda x: (
            9 - jnp.array([8.0, 6.0, 4.0]) @ x + jnp.array([2.0, 2.0, 1.0]) @ x**2 + 2 * x[0] * x[1] + 2 * x[0] * x[2]
        ),
        [0.5, 0.5, 0.5],
        1 / 9,
        inequality=lambda x: x[0] + x[1] + 2 * x[2] - 3,
        bounds=(0.0, None),
        params=[4 / 3, 7 / 9, 4 / 9],
        multipliers=(None, 2 / 9),
    ),
    39: Published(
        lambda x: -x[0],
        [2.0] * 4,
        -1.0,
        equality=lambda x: {"a": x[1] - x[0] ** 3 - x[2] ** 2, "b": x[0] ** 2 - x[1] - x[3] ** 2},
        params=[1, 1, 0, 0],
        multipliers=({"a": -1.0, "b": -1.0}, None),
    ),
    43: Published(
        lambda x: jnp.array([1.0, 1.0, 2.0, 1.0]) @ x**2 - jnp.array([5.0, 5.0, 21.0, -7.0]) @ x,
        [0.0] * 4,
        -44.0,
        inequality=lambda x: jnp.array(
            [
                x @ x + x[0] - x[1] + x[2] - x[3] - 8,
                jnp.array([1.0, 2.0, 1.0, 2.0]) @ x**2 - x[0] - x[3] - 10,
                jnp.array([2.0, 1.0, 1.0, 0.0]) @ x**2 + 2 * x[0] - x[1] - x[3] - 5,
            ]
        ),
        params=[0, 1, 2, -1],
        multipliers=(None, [1.0, 0.0, 2.0]),
    ),
    71: Published(
        lambda x: x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2],
        [1.0, 5.0, 5.0, 1.0],
        17.0140173,
        equality=lambda x: x @ x - 40,
        inequality=lambda x: 25 - x[0] * x[1] * x[2] * x[3],
        bounds=(1.0, 5.0),
        params=[1, 4.742994, 3.8211503, 1.3794082],
    ),
    100: Published(
        lambda x: (
            (x[0] - 10) ** 2
            + 5 * (x[1] - 12) ** 2
            + x[2] ** 4
            + 3 * (x[3] - 11) ** 2
            + 10 * x[4] ** 6
            + 7 * x[5] ** 2
            + x[6] ** 4
            - 4 * x[5] * x[6]
            - 10 * x[5]
            - 8 * x[6]
        ),
        [1.0, 2.0, 0.0, 4.0, 0.0, 1.0, 1.0],
        680.6300573,
        inequality=lambda x: (
            -jnp.array(
                [
                    127 - 2 * x[0] ** 2 - 3 * x[1] ** 4 - x[2] - 4 * x[3] ** 2 - 5 * x[4],
                    282 - 7 * x[0] - 3 * x[1] - 10 * x[2] ** 2 - x[3] + x[4],
                    196 - 23 * x[0] - x[1] ** 2 - 6 * x[5] ** 2 + 8 * x[6],
                    -4 * x[0] ** 2 - x[1] ** 2 + 3 * x[0] * x[1] - 2 * x[2] ** 2 - 5 * x[5] + 11 * x[6],
                ]
            )
        ),
    ),
}


def solved(problem, **options):
    """As one program."""
    options = {"equality": problem.equality, "inequality": problem.inequality, "bounds": problem.bounds} | options
    return numbers(jax.jit(lambda x: minimize(problem.fun, x, **options))(np.array(problem.start)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "number", [7, *(pytest.param(n, marks=() if n in (14, 43, 71) else pytest.mark.slow) for n in PROBLEMS if n != 7)]
)
def test_published_solutions_are_found_with_their_multipliers(number):
    problem = PROBLEMS[number]
    result = solved(problem)
    assert result.status is Status.CONVERGED
    assert bool(result.converged)
    assert result.violation <= 1e-6
    assert result.grad_norm <= 1e-6
    np.testing.assert_allclose(result.value, problem.value, rtol=1e-5, atol=1e-5)
    if problem.params is not None:
        np.testing.assert_allclose(result.params, problem.params, atol=1e-4)
    for found, expected in zip(result.multipliers, problem.multipliers, strict=True):
        if expected is not None:
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, expected)


def test_float32_ends_as_near_as_it_can_tell():
    result = solved(PROBLEMS[12])
    assert result.status is Status.CONVERGED
    np.testing.assert_allclose(result.params, [2, 3], atol=5e-4)


@pytest.mark.parametrize("method", [pytest.param("bfgs", marks=pytest.mark.slow), "newton_cg"])
def test_other_methods_can_minimize_the_lagrangians(method):
    result = solved(PROBLEMS[12], method=method, trace=True)
    assert result.status is Status.CONVERGED
    np.testing.assert_allclose(result.params, [2, 3], atol=1e-3)
    assert np.isfinite(result.trace.value).sum() == result.steps, "one row a step of all minimizations"


@pytest.mark.usefixtures("x64")
def test_what_no_params_fulfill_is_infeasible():
    def circle(x):
        return x[0] ** 2 + 1

    result = numbers(jax.jit(lambda x: minimize(lambda x: x @ x, x, equality=circle))(np.ones(2)))
    assert result.status is Status.INFEASIBLE
    assert not bool(result.converged)
    np.testing.assert_allclose(result.violation, 1.0)
    assert "violated by 1" in explain(result)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mode", [jax.jacrev, pytest.param(jax.jacfwd, marks=pytest.mark.slow)])
def test_derivatives_of_a_constrained_solution_and_its_multipliers(mode):
    # min (x - 2)^2 + (y - 1)^2 on x + y = b, with y at most c: y = c is active, and so x = b - c
    def solve(b, c):
        result = minimize(
            lambda x: (x[0] - 2) ** 2 + (x[1] - 1) ** 2,
            jnp.zeros(2),
            args=(),
            equality=lambda x: x[0] + x[1] - b,
            inequality=lambda x: jnp.array([x[1] - c, -x[1] - 100.0]),
            tol=1e-9,
        )
        return result.params, result.value, result.multipliers

    def closed(b, c):
        x = jnp.array([b - c, c])
        force = -2 * (x[0] - 2)
        return x, (x[0] - 2) ** 2 + (c - 1) ** 2, (force, jnp.array([-2 * (c - 1) - force, 0.0]))

    point = (1.5, -0.25)
    found, expected = jax.jit(lambda: (mode(solve, (0, 1))(*point), mode(closed, (0, 1))(*point)))()
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"equality": 3.0}, TypeError, "equality must be a function or None; got 3.0"),
        ({"inequality": lambda x: None}, TypeError, "inequality must return float arrays; got NoneType"),
        ({"inequality": lambda x: x > 0}, TypeError, r"must return float arrays; got \['bool'\]"),
        ({"equality": jnp.sum, "method": "gauss_newton"}, ValueError, "methods for least squares know no constraints"),
        ({"equality": jnp.sum, "differentiate": "unroll"}, ValueError, 'expected differentiate="implicit"'),
        ({"equality": jnp.sum, "progress": True}, ValueError, "no progress bar"),
        ({"constraints": ()}, TypeError, "here it is equality=g"),
    ],
)
def test_errors_say_what_constraints_must_be(change, error, message):
    with pytest.raises(error, match=message):
        minimize(lambda x: x @ x, jnp.ones(2), **change)
