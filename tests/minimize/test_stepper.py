"""A loop of one's own: the numbers of `minimize`, and a start with what is known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from minimize.programs import run

from jgd.minimizers import Status, Stepper


def valley(x, place=1.0):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (place - x[0]) ** 2


START = np.array([-1.2, 1.0], np.float32)


def test_step_by_step_the_numbers_are_those_of_minimize():
    stepper = Stepper(valley, tol=1e-3)
    state, norms = stepper.init(START), []
    while state.status == Status.RUNNING:
        state = stepper.update(state)
        norms.append(float(state.grad_norm))
    result, whole = stepper.result(state), run(valley, START, tol=1e-3, trace=True)
    assert result.status is whole.status is Status.CONVERGED
    assert result.evaluations == whole.evaluations
    np.testing.assert_allclose(result.params, whole.params, rtol=1e-5)
    assert len(norms) == whole.steps
    np.testing.assert_array_equal(stepper.update(state).params, state.params)  # a run that has ended stays


def test_several_steps_at_once_inside_jit():
    stepper = Stepper(valley, method="bfgs", tol=1e-3)
    state = jax.jit(lambda x: stepper.update(stepper.init(x, 1.0), 1.0, steps=500))(START)
    assert state.status == Status.CONVERGED
    np.testing.assert_allclose(state.params, 1.0, atol=1e-2)


@pytest.mark.parametrize(
    ("method", "bounds"),
    [("lbfgs", (None, 5.0)), ("bfgs", None), (optax.adam(0.05), None)],
    ids=["lbfgs", "bfgs", "adam"],
)
def test_a_warm_start_keeps_what_the_method_knows(method, bounds):
    stepper = Stepper(valley, method=method, bounds=bounds, tol=1e-3)
    end = stepper.update(stepper.init(START, 1.0), 1.0, steps=2000)
    cold = stepper.update(stepper.init(end.params, 1.05), 1.05, steps=2000)
    begun = stepper.init(end.params, 1.05, warm=end)
    assert begun.run.steps == 0
    assert begun.value == valley(end.params, 1.05), "the value is that of the new arguments"
    warm = stepper.update(begun, 1.05, steps=2000)
    assert warm.status == cold.status == Status.CONVERGED
    np.testing.assert_allclose(warm.params, [1.05, 1.05**2], atol=1e-2)
    if not isinstance(method, optax.GradientTransformation):
        assert warm.run.steps < cold.run.steps


def test_a_stepper_checks_its_arguments():
    with pytest.raises(TypeError, match="max_steps must be an integer"):
        Stepper(valley, max_steps=1.5)
    with pytest.raises(ValueError, match="knows no bounds"):
        Stepper(valley, method="cg", bounds=(0, 1)).init(jnp.ones(2))
