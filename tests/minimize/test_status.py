"""Every status is reached by a run that deserves it, and by none that does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgd.minimize import (
    LBFGS,
    BaseMethod,
    Evaluations,
    GradientDescent,
    HeavyBall,
    Status,
    StepInfo,
    explain,
    linear_rate,
    minimize,
    stable_step,
)


def bowl(x):
    return 0.5 * jnp.sum(jnp.array([1.0, 10.0]) * x**2)


def rosenbrock(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def status_of(fun, start, **options):
    result = minimize(fun, jnp.asarray(start), **options)
    assert bool(result.converged) == (result.status == Status.CONVERGED)
    assert np.all(np.isfinite(result.params)), "the params of a result are finite, whatever happened"
    return Status(int(result.status)), result


@pytest.mark.parametrize("method", ["lbfgs", "trust_region"])
def test_converged(method):
    status, result = status_of(rosenbrock, [-1.2, 1.0], method=method, tol=1e-3)
    assert status is Status.CONVERGED
    assert result.grad_norm <= 1e-3
    assert explain(result).startswith("Converged in")


def test_a_start_at_the_minimum_makes_no_step():
    status, result = status_of(bowl, [0.0, 0.0])
    assert (status, result.steps, result.evaluations.gradients) == (Status.CONVERGED, 0, 1)


def test_max_steps():
    status, result = status_of(rosenbrock, [-1.2, 1.0], max_steps=3)
    assert (status, result.steps) == (Status.MAX_STEPS, 3)
    assert status_of(rosenbrock, [-1.2, 1.0], max_steps=0)[0] is Status.MAX_STEPS


def test_a_step_far_below_the_spacing_of_the_params_is_small():
    assert status_of(bowl, [1.0, 1.0], method=GradientDescent(1e-9))[0] is Status.SMALL_STEP


def test_a_slow_step_is_not_small():
    assert status_of(bowl, [1.0, 1.0], method=GradientDescent(1e-5), max_steps=50)[0] is Status.MAX_STEPS


def test_at_the_noise_floor_of_the_value_the_decrease_is_small():
    # ten thousand hides all decreases below 1e-3, and so any gradient below about 0.05
    status, result = status_of(lambda x: 1e4 + bowl(x), [3.0, -2.0], method="gradient_descent", tol=1e-6)
    assert status is Status.SMALL_DECREASE
    assert result.grad_norm < 0.05
    assert result.steps < 100
    assert result.evaluations.values < 3 * result.steps, "no endless line searches"


def test_a_plateau_above_rounding_is_not_taken_for_the_floor():
    # decreases of 1e-6 of the value are above rounding
    status, _ = status_of(lambda x: 1.0 + 1e-3 * bowl(x), [1.0, 1.0], method=GradientDescent(10.0), max_steps=20)
    assert status is Status.MAX_STEPS


def test_diverged_reports_the_largest_stable_step():
    status, result = status_of(bowl, [1.0, 1.0], method=GradientDescent(0.25))
    assert status is Status.DIVERGED
    assert np.isclose(stable_step(result), 2 / 10, rtol=1e-2)
    assert "overshoot" in explain(result)
    assert "2/L = 0.20" in explain(result)


def test_a_step_just_below_the_stable_one_converges():
    assert status_of(bowl, [1.0, 1.0], method=GradientDescent(0.199), max_steps=3000, tol=1e-4)[0] is Status.CONVERGED


def test_values_that_rise_for_a_while_have_not_diverged():
    method = HeavyBall(0.1, 0.95)
    status, result = status_of(bowl, [1e-3, 0.1], method=method, trace=True, tol=1e-4)
    assert np.nanmax(np.diff(result.trace.value)) > 0
    assert status is Status.CONVERGED


def test_overflow_after_rising_values_is_a_divergence():
    assert status_of(lambda x: jnp.sum(x**4), [3.0], method=GradientDescent(1.0))[0] is Status.DIVERGED


def test_line_search_failed_where_the_gradient_is_wrong():
    @jax.custom_jvp
    def wrong(x):
        return jnp.sum(x**2)

    @wrong.defjvp
    def _(primals, tangents):
        return wrong(*primals), -jnp.sum(2 * primals[0] * tangents[0])

    status, result = status_of(wrong, [1.0, 2.0])
    assert status is Status.LINE_SEARCH_FAILED
    assert np.array_equal(result.params, [1.0, 2.0])
    assert "gradient" in explain(result)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_value_that_is_not_finite_at_the_start(bad):
    status, result = status_of(lambda x: bad * jnp.sum(x), [1.0])
    assert (status, result.steps) == (Status.NON_FINITE, 0)


def test_a_step_into_nan_returns_the_last_finite_point():
    status, result = status_of(lambda x: jnp.sum(x - jnp.log(x)), [0.2], method=GradientDescent(1.0))
    # the first step overshoots to 4.2, where all is finite; those after it shrink
    assert status in (Status.CONVERGED, Status.MAX_STEPS)
    status, result = status_of(lambda x: jnp.sum(x * jnp.log(x)), [0.5], method=GradientDescent(2.0))
    assert status is Status.NON_FINITE
    assert np.allclose(result.params, [0.5])


def test_a_line_search_does_not_step_into_nan():
    assert status_of(lambda x: jnp.sum(x * jnp.log(x)), [5.0], tol=1e-4)[0] is Status.CONVERGED


def falling(x):
    return -jnp.sum(x)


def dome(x):
    return -jnp.sum(x**2)


@pytest.mark.parametrize(("fun", "method"), [(falling, "lbfgs"), (dome, "lbfgs"), (falling, "trust_region")])
def test_unbounded(fun, method):
    assert status_of(fun, [1.0, 2.0], method=method)[0] is Status.UNBOUNDED


def test_a_very_low_minimum_is_not_unbounded():
    assert status_of(lambda x: bowl(x - 1) - 1e5, [0.0, 0.0], tol=1e-3)[0] is Status.CONVERGED


def test_a_box_has_a_bottom():
    def fall(x):
        return -1e20 * jnp.sum(x)

    assert status_of(fall, [0.0, 0.5], bounds=(-1.0, 1.0))[0] is Status.CONVERGED
    assert status_of(fall, [0.0, 0.5], bounds=(-1.0, None))[0] is Status.UNBOUNDED


def test_crawling_reports_the_rate_and_the_steps_to_go():
    _, result = status_of(bowl, [1.0, 1.0], method=GradientDescent(0.01), max_steps=400, tol=1e-5)
    assert np.isclose(linear_rate(result), 0.99, atol=1e-4)
    more = int(explain(result).split("it takes ")[1].split()[0])
    assert abs(more - np.log(1e-5 / 0.99**400) / np.log(0.99)) < 10


def test_a_method_of_ones_own_that_gives_up():
    class GivesUp(BaseMethod):
        def init(self, problem, point):
            return ()

        def step(self, problem, point, state):
            return point, state, StepInfo(0.0, Evaluations(), failed=True, accepted=False)

    status, result = status_of(bowl, [1.0, 1.0], method=GivesUp())
    assert (status, result.steps) == (Status.LINE_SEARCH_FAILED, 1)


def test_explain_refuses_a_batch():
    batch = jax.vmap(lambda x: minimize(bowl, x, method=LBFGS(memory=2)))(jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="batch of shape \\(2,\\)"):
        explain(batch)


def test_steps_that_bounce_from_wall_to_wall_are_said_to_overshoot():
    def valley(x):
        return 10 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2

    start = [-1.4, 1.0]
    status, result = status_of(valley, start, method=GradientDescent(0.025), max_steps=500)
    assert status is Status.MAX_STEPS
    assert result.value < result.path.first_value  # they do not climb
    assert "overshoot" in explain(result)
    crawls = status_of(valley, start, method=GradientDescent(1e-4), max_steps=500)[1]
    searched = status_of(valley, start, max_steps=5)[1]
    assert "overshoot" not in explain(crawls) + explain(searched)
