"""L-BFGS where it is hard: badly scaled params, edges of a domain; and its memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from minimize.programs import numbers, run, solver

from jgd.minimizers import LBFGS, Status
from jgd.minimizers.methods._lbfgs import LBFGSMemory, add_pair, two_loop_recursion

pytestmark = pytest.mark.usefixtures("x64")


def saturation(x):
    # NIST's Misra1b with data of our own: params of about 340 and 4e-4
    t = jnp.linspace(80.0, 760.0, 14)
    return jnp.sum((x[0] * (1 - (1 + x[1] * t / 2) ** -2) - 239 * (1 - jnp.exp(-5.5e-4 * t))) ** 2)


def cliff(x):
    # minus infinity where x[0] = 1, not a number beyond
    return jnp.log(1 - x[0] ** 2) + x[1] ** 2


def root(x):
    # the edge itself is the minimum, with a slope that has no bound
    return jnp.sqrt(x[0]) + x[1] ** 2


@functools.cache
def solve():
    return solver({"saturation": saturation, "cliff": cliff, "root": root}, "lbfgs")


def memory_of(moves, changes, rows):
    """The memory after pairs, of which the last `rows` are remembered."""
    n = moves.shape[1]
    state = LBFGSMemory(np.zeros((rows, n)), np.zeros((rows, n)), np.zeros(rows), np.ones(()), np.array(True))
    return numbers(
        jax.jit(lambda state: functools.reduce(lambda s, pair: add_pair(s, *pair), zip(moves, changes), state))(state)
    )


@pytest.mark.parametrize("rows", [5, 3, 1])
def test_the_direction_is_that_of_the_dense_formula(rows):
    random = np.random.default_rng(0)
    root = random.normal(size=(4, 4))
    moves = random.normal(size=(3, 4))
    changes = moves @ (root @ root.T + np.eye(4))
    state = memory_of(moves, changes, rows)
    inverse = np.linalg.norm(moves[-1]) / np.linalg.norm(changes[-1]) * np.eye(4)
    for s, y in zip(moves[-rows:], changes[-rows:], strict=True):
        left = np.eye(4) - np.outer(s, y) / (s @ y)
        inverse = left @ inverse @ left.T + np.outer(s, s) / (s @ y)
    vector = random.normal(size=4)
    assert np.allclose(jax.jit(two_loop_recursion)(state, vector), inverse @ vector, rtol=1e-10)


def test_a_pair_without_positive_curvature_is_not_remembered():
    state = memory_of(np.array([[1.0, 0.0]]), np.array([[2.0, 0.0]]), rows=1)
    same = numbers(jax.jit(add_pair)(state, np.array([0.0, 1.0]), np.array([1.0, -1.0])))
    assert all(np.array_equal(a, b) for a, b in zip(state, same, strict=True))


def test_params_of_scales_far_apart_are_all_moved():
    result = solve()("saturation", [500.0, 1e-4])
    gradient = jax.jit(jax.grad(saturation))(result.params) * result.params
    assert np.max(np.abs(gradient)) < 1e-3, "without units; it is 30 where only the second one was moved"
    assert result.evaluations.values < 100


def test_minus_infinity_at_the_edge_of_the_domain_is_no_failed_search():
    result = solve()("cliff", [0.5, 0.2])
    assert Status(int(result.status)) is Status.UNBOUNDED
    assert np.isfinite(result.value)
    assert solve()("root", [2.0, 3.0]).status != Status.UNBOUNDED


@pytest.mark.parametrize("memory", [1, 3])
def test_any_memory_converges(memory):
    with jax.enable_x64(False):
        result = run(lambda x: jnp.sum(jnp.cosh(x * jnp.arange(1.0, 5.0))), np.ones(4), method=LBFGS(memory), tol=1e-3)
    assert result.converged
