"""L-BFGS where it is hard: badly scaled params, saddle points, noise floors, and functions without a minimum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgd.minimize import LBFGS, Status, StrongWolfe, minimize
from jgd.minimize._lbfgs import LBFGSState, remember, two_loops


def saturation(x):
    # NIST's Misra1b with data of our own: params of about 340 and 4e-4
    t = jnp.linspace(80.0, 760.0, 14)
    return jnp.sum((x[0] * (1 - (1 + x[1] * t / 2) ** -2) - 239 * (1 - jnp.exp(-5.5e-4 * t))) ** 2)


def wood(x):
    return (
        100 * (x[1] - x[0] ** 2) ** 2
        + (1 - x[0]) ** 2
        + 90 * (x[3] - x[2] ** 2) ** 2
        + (1 - x[2]) ** 2
        + 10 * (x[1] + x[3] - 2) ** 2
        + 0.1 * (x[1] - x[3]) ** 2
    )


def memory_of(moves, changes):
    rows, n = moves.shape
    none = jnp.zeros((), moves.dtype)
    state = LBFGSState(jnp.zeros((rows, n)), jnp.zeros((rows, n)), jnp.zeros(rows), none + 1, jnp.array(True))
    for move, change in zip(moves, changes, strict=True):
        state = remember(state, move, change)
    return state


@pytest.mark.usefixtures("x64")
def test_the_direction_is_that_of_the_dense_formula():
    random = np.random.default_rng(0)
    root = random.normal(size=(4, 4))
    moves = random.normal(size=(3, 4))
    changes = moves @ (root @ root.T + np.eye(4))
    state = memory_of(jnp.asarray(moves), jnp.asarray(changes))
    inverse = np.linalg.norm(moves[-1]) / np.linalg.norm(changes[-1]) * np.eye(4)
    for s, y in zip(moves, changes, strict=True):
        left = np.eye(4) - np.outer(s, y) / (s @ y)
        inverse = left @ inverse @ left.T + np.outer(s, s) / (s @ y)
    vector = random.normal(size=4)
    assert np.allclose(two_loops(jnp.asarray(vector), state), inverse @ vector, rtol=1e-10)


def test_a_pair_without_positive_curvature_is_not_remembered():
    state = memory_of(jnp.array([[1.0, 0.0]]), jnp.array([[2.0, 0.0]]))
    same = remember(state, jnp.array([0.0, 1.0]), jnp.array([1.0, -1.0]))
    assert all(np.array_equal(a, b) for a, b in zip(state, same, strict=True))


@pytest.mark.usefixtures("x64")
def test_params_of_scales_far_apart_are_all_moved():
    result = minimize(saturation, jnp.array([500.0, 1e-4]))
    gradient = jax.grad(saturation)(result.params) * result.params
    assert np.max(np.abs(gradient)) < 1e-3, "without units; it is 30 where only the second one was moved"
    assert result.evaluations.values < 100


def test_a_saddle_point_that_looks_flat_is_left():
    # in float32 the values next to the saddle differ by rounding only, while the gradient doubles in each step
    result = minimize(wood, jnp.array([-3.0, -1.0, -3.0, -1.0]), tol=1e-4)
    assert result.converged
    assert np.allclose(result.params, 1, atol=1e-3)


def test_a_search_below_the_noise_ends_at_once():
    def phi(t):  # rises by ten at every step, however short
        return jnp.float32(1e6) + 10, jnp.float32(1.0), None

    found = StrongWolfe()(phi, jnp.float32(1e6), jnp.float32(-1e-3), 1.0, noise=jnp.float32(1.0))
    assert (found.success, found.decreased, found.evaluations) == (False, False, 1)


@pytest.mark.usefixtures("x64")
def test_minus_infinity_at_the_edge_of_the_domain_is_no_failed_search():
    def cliff(x):  # minus infinity where x[0] = 1, not a number beyond
        return jnp.log(1 - x[0] ** 2) + x[1] ** 2

    result = minimize(cliff, jnp.array([0.5, 0.2]))
    assert Status(int(result.status)) is Status.UNBOUNDED
    assert np.isfinite(result.value)

    def root(x):  # the edge itself is the minimum, with a slope that has no bound
        return jnp.sqrt(x[0]) + x[1] ** 2

    assert minimize(root, jnp.array([2.0, 3.0])).status != Status.UNBOUNDED


def test_a_value_of_minus_infinity_far_out_does_not_hide_a_minimum():
    def hole(x):
        return jnp.where(x[0] > 50, -jnp.inf, (x[0] - 1) ** 2)

    first = StrongWolfe()(
        lambda t: (hole(jnp.array([t])), 2 * (t - 1), None), jnp.array(1.0), jnp.array(-2.0), jnp.array(100.0)
    )
    assert first.success
    assert np.isfinite(first.value)


@pytest.mark.parametrize("memory", [1, 3])
def test_any_memory_converges(memory):
    result = minimize(
        lambda x: jnp.sum(jnp.cosh(x * jnp.arange(1.0, 5.0))), jnp.ones(4), method=LBFGS(memory), tol=1e-3
    )
    assert result.converged
