"""Every status is reached by a run that deserves it, and by none that does not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from minimize.programs import padded, run, solver

from jgd.minimizers import (
    BaseMethod,
    Evaluations,
    GradientDescent,
    HeavyBall,
    Status,
    StepInfo,
    explain,
    linear_rate,
    stable_step,
)

SIZE = 10


def bowl(x):
    return 0.5 * jnp.sum(jnp.array([1.0, 10.0]) * x[:2] ** 2)


def rosenbrock(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def valley(x):
    return 10 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def wood(x):
    valleys = 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2 + 90 * (x[3] - x[2] ** 2) ** 2 + (1 - x[2]) ** 2
    return valleys + 10 * (x[1] + x[3] - 2) ** 2 + 0.1 * (x[1] - x[3]) ** 2


@jax.custom_jvp
def wrong(x):
    return jnp.sum(x**2)


@wrong.defjvp
def _(primals, tangents):
    return wrong(*primals), -jnp.sum(2 * primals[0] * tangents[0])


#: Each takes what it needs of ten params.
FUNCTIONS = {
    "bowl": bowl,
    "rosenbrock": rosenbrock,
    "valley": valley,
    "wood": wood,
    "quartic": lambda x: x[0] ** 4,
    # decreases of 1e-6 of the value are above rounding
    "plateau": lambda x: 1.0 + 1e-3 * bowl(x),
    # ten thousand hides all decreases below 1e-3, and so any gradient below about 0.05
    "high": lambda x: 1e4 + bowl(x),
    "hills": lambda x: 1000.0 + jnp.sum(jnp.cosh(x - 1)),
    "low": lambda x: bowl(x - 1) - 1e5,
    "wall": lambda x: x[0] - jnp.log(x[0]),
    "entropy": lambda x: x[0] * jnp.log(x[0]),
    "wrong": wrong,
    "nan": lambda x: jnp.nan * jnp.sum(x),
    "inf": lambda x: jnp.inf * jnp.sum(x),
    "falling": lambda x: -jnp.sum(x),
    "dome": lambda x: -jnp.sum(x**2),
    "cliff": lambda x: -1e20 * jnp.sum(x),
}
#: The functions that the programs of a method hold; all others are compiled for nothing.
OF = {
    "lbfgs": ["bowl", "rosenbrock", "wood", "hills", "low", "entropy", "wrong", "nan", "inf", "falling", "dome"],
    "lbfgsb": ["cliff"],
    "trust_region": ["rosenbrock", "falling"],
    "gradient_descent": ["high"],
    GradientDescent: ["bowl", "valley", "quartic", "plateau", "wall", "entropy"],
    HeavyBall: ["bowl"],
}


@functools.cache
def program(method, max_steps, trace):
    return solver({name: FUNCTIONS[name] for name in OF[method]}, method, max_steps=max_steps, trace=trace)


def status_of(name, start, *settings, method="lbfgs", max_steps=1000, trace=False, **options):
    """How a run ends, and its result; the settings are the method's."""
    result = program(method, max_steps, trace)(name, padded(start, SIZE), *settings, **options)
    assert bool(result.converged) == (result.status == Status.CONVERGED)
    assert np.all(np.isfinite(result.params)), "the params of a result are finite, whatever happened"
    return Status(int(result.status)), result


descent = functools.partial(status_of, method=GradientDescent, max_steps=3000)


@pytest.mark.parametrize("method", ["lbfgs", "trust_region"])
def test_converged(method):
    status, result = status_of("rosenbrock", [-1.2, 1.0], method=method, tol=1e-3)
    assert status is Status.CONVERGED
    assert result.grad_norm <= 1e-3
    assert explain(result).startswith("Converged in")


def test_a_start_at_the_minimum_makes_no_step():
    status, result = status_of("bowl", [0.0, 0.0])
    assert (status, result.steps, result.evaluations.gradients) == (Status.CONVERGED, 0, 1)


def test_max_steps():
    result = run(rosenbrock, np.array([-1.2, 1.0]), max_steps=3)
    assert (result.status, result.steps, bool(result.converged)) == (Status.MAX_STEPS, 3, False)
    assert descent("bowl", [1.0, 1.0], 0.1, max_steps=0)[0] is Status.MAX_STEPS


def test_a_step_far_below_the_spacing_of_the_params_is_small():
    assert descent("bowl", [1.0, 1.0], 1e-9)[0] is Status.SMALL_STEP


def test_a_slow_step_is_not_small():
    assert descent("bowl", [1.0, 1.0], 1e-5)[0] is Status.MAX_STEPS


def test_at_the_noise_floor_of_the_value_the_decrease_is_small():
    status, result = status_of("high", [3.0, -2.0], method="gradient_descent", tol=1e-6)
    assert status is Status.SMALL_DECREASE
    assert result.grad_norm < 0.05
    assert result.steps < 100
    assert result.evaluations.values < 3 * result.steps, "no endless line searches"


def test_float32_ends_at_the_noise_floor_of_a_value_far_from_zero():
    _, result = status_of("hills", np.zeros(SIZE), tol=1e-7)
    assert np.allclose(result.params, 1, atol=1e-4)
    assert result.evaluations.values <= 40


def test_a_saddle_point_that_looks_flat_is_left():
    # in float32 the values next to the saddle differ by rounding only, while the gradient doubles in each step
    status, result = status_of("wood", [-3.0, -1.0, -3.0, -1.0], tol=1e-4)
    assert status is Status.CONVERGED
    assert np.allclose(result.params[:4], 1, atol=1e-3)


def test_a_plateau_above_rounding_is_not_taken_for_the_floor():
    assert descent("plateau", [1.0, 1.0], 10.0, max_steps=20)[0] is Status.MAX_STEPS


def test_diverged_reports_the_largest_stable_step():
    status, result = descent("bowl", [1.0, 1.0], 0.25)
    assert status is Status.DIVERGED
    assert np.isclose(stable_step(result), 2 / 10, rtol=1e-2)
    assert "overshoot" in explain(result)
    assert "2/L = 0.20" in explain(result)


def test_a_step_just_below_the_stable_one_converges():
    assert descent("bowl", [1.0, 1.0], 0.199, tol=1e-4)[0] is Status.CONVERGED


def test_values_that_rise_for_a_while_have_not_diverged():
    status, result = status_of("bowl", [1e-3, 0.1], 0.1, 0.95, method=HeavyBall, trace=True, tol=1e-4)
    assert np.nanmax(np.diff(result.trace.value)) > 0
    assert status is Status.CONVERGED


def test_overflow_after_rising_values_is_a_divergence():
    assert descent("quartic", [3.0], 1.0)[0] is Status.DIVERGED


def test_line_search_failed_where_the_gradient_is_wrong():
    status, result = status_of("wrong", [1.0, 2.0])
    assert status is Status.LINE_SEARCH_FAILED
    assert np.array_equal(result.params, padded([1.0, 2.0], SIZE))
    assert "gradient" in explain(result)


@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_a_value_that_is_not_finite_at_the_start(bad):
    status, result = status_of(bad, np.ones(SIZE))
    assert (status, result.steps) == (Status.NON_FINITE, 0)


def test_a_step_into_nan_returns_the_last_finite_point():
    # the first step overshoots to 4.2, where all is finite; those after it shrink
    assert descent("wall", [0.2], 1.0)[0] in (Status.CONVERGED, Status.MAX_STEPS)
    status, result = descent("entropy", [0.5], 2.0)
    assert status is Status.NON_FINITE
    assert np.allclose(result.params[0], 0.5)


def test_a_line_search_does_not_step_into_nan():
    assert status_of("entropy", [5.0], tol=1e-4)[0] is Status.CONVERGED


@pytest.mark.parametrize(("fun", "method"), [("falling", "lbfgs"), ("dome", "lbfgs"), ("falling", "trust_region")])
def test_unbounded(fun, method):
    assert status_of(fun, [1.0, 2.0], method=method)[0] is Status.UNBOUNDED


def test_a_very_low_minimum_is_not_unbounded():
    assert status_of("low", [0.0, 0.0], tol=1e-3)[0] is Status.CONVERGED


def test_a_box_has_a_bottom():
    for upper, expected in ((1.0, Status.CONVERGED), (np.inf, Status.UNBOUNDED)):
        assert status_of("cliff", [0.0, 0.5], method="lbfgsb", bounds=(-1.0, upper))[0] is expected


def test_crawling_reports_the_rate_and_the_steps_to_go():
    _, result = descent("bowl", [1.0, 1.0], 0.01, max_steps=400, tol=1e-5)
    assert np.isclose(linear_rate(result), 0.99, atol=1e-4)
    more = int(explain(result).split("it takes ")[1].split()[0])
    assert abs(more - np.log(1e-5 / 0.99**400) / np.log(0.99)) < 10


def test_a_method_of_ones_own_that_gives_up():
    class GivesUp(BaseMethod):
        def init(self, problem, point):
            return ()

        def step(self, problem, point, state):
            return point, state, StepInfo(0.0, Evaluations(), failed=True, accepted=False)

    result = run(bowl, np.ones(2), method=GivesUp())
    assert (result.status, result.steps) == (Status.LINE_SEARCH_FAILED, 1)


def test_explain_refuses_a_batch():
    result = status_of("bowl", [1.0, 1.0])[1]
    with pytest.raises(ValueError, match="batch of shape \\(2,\\)"):
        explain(jax.tree.map(lambda leaf: np.stack([leaf, leaf]), result))


def test_steps_that_bounce_from_wall_to_wall_are_said_to_overshoot():
    start = [-1.4, 1.0]
    status, result = descent("valley", start, 0.025, max_steps=400)
    assert status is Status.MAX_STEPS
    assert result.value < result.path.first_value  # they do not climb
    assert "overshoot" in explain(result)
    crawls = descent("valley", start, 1e-4, max_steps=400)[1]
    searched = run(valley, np.array(start), max_steps=5)
    assert "overshoot" not in explain(crawls) + explain(searched)


DESIGN = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
TARGET = (DESIGN @ np.arange(1.0, 5.0) + np.random.default_rng(1).normal(size=60)).astype(np.float32)


def regression(w):
    return jnp.sum((DESIGN @ w - 1e3 * TARGET) ** 2)


@pytest.mark.parametrize("method", ["lbfgs", "lbfgsb", "newton_cg", "cg"])
def test_by_default_a_regression_in_float32_converges_at_its_minimum(method):
    result = run(regression, np.zeros(4, np.float32), method=method)
    assert result.status is Status.CONVERGED
    assert bool(result.converged)
    assert 1e-6 < result.grad_norm <= result.tol < 1e-5 * np.abs(DESIGN.T @ TARGET).max() * 1e3
    best = np.linalg.lstsq(np.float64(DESIGN), 1e3 * np.float64(TARGET), rcond=None)[0]
    np.testing.assert_allclose(result.params, best, rtol=1e-5)


def test_a_tolerance_that_is_given_is_taken_as_it_is():
    result = run(regression, np.zeros(4, np.float32), tol=1e-6)
    assert result.status in (Status.SMALL_STEP, Status.SMALL_DECREASE)
    assert not bool(result.converged)
    assert result.tol == np.float32(1e-6)


def test_the_default_tolerance_follows_small_gradients():
    # all gradients are below 1e-6 from the start
    result = run(lambda x: 1e-8 * bowl(x - 3.0), np.zeros(2, np.float32))
    np.testing.assert_allclose(result.params, 3.0, rtol=1e-3)


@pytest.mark.parametrize("method", ["lbfgs", "bfgs", "cg"])
def test_a_value_that_cancels_to_zero_is_no_failed_search(method):
    def matyas(x):
        return 0.26 * (x[0] ** 2 + x[1] ** 2) - 0.48 * x[0] * x[1]

    result = run(matyas, np.full(2, 6.0, np.float32), method=method, tol=1e-8)
    assert result.status is Status.CONVERGED
    assert np.abs(result.params).max() < 1e-6


def test_near_a_minimum_a_search_goes_on_by_the_slopes():
    def logistic(w):
        return jnp.sum(jnp.logaddexp(0, -np.sign(TARGET) * (DESIGN @ w))) + 0.5 * jnp.sum(w**2)

    result = run(logistic, np.zeros(4, np.float32), method="lbfgsb")
    assert result.status is Status.CONVERGED
    assert result.grad_norm < 1e-4  # where decreases of the value vanish in rounding it is near 1e-2
    assert result.evaluations.values <= 3 * result.steps


def test_a_status_prints_its_name_and_a_result_says_why_it_stopped():
    result = status_of("bowl", [1.0, 1.0])[1]
    assert f"{result.status}" == "CONVERGED"
    assert explain(result) in repr(result)
    assert "CONVERGED" in repr(result)
    batch = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), result)
    assert batch.status.tolist() == [1, 1]
    assert "2 runs (2 CONVERGED)" in repr(batch)
    assert "Traced" in repr(jax.eval_shape(lambda r: r, result)) or "ShapeDtypeStruct" in repr(
        jax.eval_shape(lambda r: r, result)
    )
