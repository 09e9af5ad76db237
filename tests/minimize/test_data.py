"""Arrays among a method's settings are data: one program for all their values, swept and differentiated."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgd.minimizers import LBFGS, GradientDescent, HeavyBall, StrongWolfe, minimize
from jgd.minimizers.problem._data import join, split


def bowl(x):
    return 0.5 * jnp.sum(jnp.array([1.0, 10.0]) * x**2)


START = np.ones(2)


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: object
    factor: object = 2.0


@pytest.mark.parametrize(
    ("setting", "count"),
    [
        (LBFGS(memory=3), 0),
        (GradientDescent(0.1), 0),
        (GradientDescent(np.float32(0.1)), 1),
        (HeavyBall(jnp.array(0.1), 0.5), 1),
        (LBFGS(line_search=StrongWolfe(c2=jnp.array(0.5))), 1),
        (Outer(jax.tree_util.Partial(optax.projections.projection_box, lower=jnp.zeros(2), upper=1.0)), 1),
        (Outer({"a": jnp.zeros(3), "b": (jnp.ones(()), 2.0)}, jnp.zeros(2)), 3),
        (optax.sgd(0.1), 0),
    ],
)
def test_a_setting_comes_together_again_with_other_arrays(setting, count):
    rest, arrays = split(setting)
    assert len(arrays) == count
    assert (rest is setting) == (count == 0)
    again = join(rest, tuple(array + 1 for array in arrays))
    assert type(again) is type(setting)
    expected = jax.tree.leaves([array + 1 for array in arrays])
    assert all(np.array_equal(a, b) for a, b in zip(split(again)[1], expected, strict=True))


def test_settings_without_their_arrays_are_equal():
    first, second = (split(LBFGS(line_search=StrongWolfe(c2=jnp.array(c2))))[0] for c2 in (0.5, 0.9))
    assert first == second
    assert hash(first) == hash(second)
    assert first != split(LBFGS(memory=3, line_search=StrongWolfe(c2=jnp.array(0.5))))[0]


@pytest.mark.usefixtures("x64")
def test_learning_rates_are_swept_in_one_program():
    traces = []

    def counted(x):
        traces.append(1)
        return bowl(x)

    def steps(rate):
        return minimize(counted, START, method=GradientDescent(rate), max_steps=50).params

    rates = np.array([0.01, 0.05, 0.1])
    alone = [steps(rate) for rate in rates]
    once = len(traces)
    steps(np.array(0.15))
    assert len(traces) == once
    together = jax.jit(jax.vmap(steps))(rates)
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-12)
    np.testing.assert_allclose(together, (1 - rates[:, None] * np.array([1.0, 10.0])) ** 50, rtol=1e-9, atol=1e-15)


@pytest.mark.usefixtures("x64")
def test_the_unrolled_run_is_differentiated_with_respect_to_its_learning_rate():
    def last(rate):
        method = GradientDescent(rate)
        return minimize(bowl, START, method=method, tol=0.0, max_steps=3, differentiate="unroll").params

    scales = np.array([1.0, 10.0])
    np.testing.assert_allclose(jax.jit(jax.jacobian(last))(0.05), -3 * scales * (1 - 0.05 * scales) ** 2, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_how_a_solution_was_found_does_not_matter_to_it():
    def solution(rate):
        return minimize(bowl, START, method=GradientDescent(rate), tol=1e-8).params

    np.testing.assert_array_equal(jax.jit(jax.jacobian(solution))(0.1), np.zeros(2))
