"""What a factory takes and what `set_hyperparams` takes for the same number is one thing, for every factory."""

import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jgd

VALUES = (-1.0, 0.0, 0.5, 1.0, 2.0, np.nan)
#: What factories must be given that is no half, by the argument's name; and where two numbers may not be zero at once.
NEEDED = {"key": 0, "seed": 0}
BESIDE = {"reduce_on_plateau": {"atol": 0.1}}


def factories():
    """All public functions that make an optimizer of at least one number."""
    return {
        name: make
        for name, make in vars(jgd).items()
        if inspect.isfunction(make) and inspect.signature(make).return_annotation is jgd.Optimizer and numbers_of(make)
    }


def numbers_of(make):
    """Its arguments that may be schedules."""
    parameters = inspect.signature(make).parameters.values()
    return [each.name for each in parameters if "ScalarOrSchedule" in str(each.annotation)]


def needed(make):
    """What it must be given: one half for numbers, and an optimizer."""
    parameters = inspect.signature(make).parameters.values()
    given = {
        each.name: jgd.gradient_descent(0.5)
        if each.annotation == optax.GradientTransformation
        else NEEDED.get(each.name, 0.5)
        for each in parameters
        if each.default is each.empty
    }
    return given | BESIDE.get(make.__name__, {})


def is_taken(name, call):
    """Whether a call takes its values; if not, the message names the argument."""
    refused = ""
    try:
        call()
    except ValueError as error:
        refused = str(error)
    assert not refused or name in refused
    return not refused


def started(make, arguments, name, params):
    """A state that has the number of that name, which by default may be left out."""
    if inspect.signature(make).parameters[name].default is not None:
        return make(**arguments).init(params)
    for value in (0.5, 2.0):
        if is_taken(name, lambda: make(**arguments | {name: value})):  # noqa: B023
            return make(**arguments | {name: value}).init(params)
    raise AssertionError(f"{name} takes neither 0.5 nor 2.0")


@pytest.mark.parametrize("make", factories().values(), ids=factories())
def test_a_factory_and_set_hyperparams_take_the_same_values(make):
    arguments, params = needed(make), {"w": jnp.ones((2, 3))}
    for name in numbers_of(make):
        state = started(make, arguments, name, params)
        known = jgd.get_hyperparams(state)
        address = next((key for key in known if key in (name, f"own.{name}")), None)
        if address is None or callable(inspect.signature(make).parameters[name].default):
            continue
        for value in VALUES:
            by_factory = is_taken(name, lambda: make(**arguments | {name: value}))  # noqa: B023
            by_setting = is_taken(name, lambda: jgd.set_hyperparams(state, **{address: value}))  # noqa: B023
            assert by_factory == by_setting, (name, value)
        assert is_taken(name, lambda: jgd.set_hyperparams(state, **{address: known[address]})), name  # noqa: B023


SEEN = r"adam: the schedule of learning_rate must be (at least 0|finite); got .* at "


@pytest.mark.parametrize("schedule", [lambda count: -0.1 + 0.0 * count, lambda count: jnp.sqrt(count - 1.0)])
def test_a_schedule_that_starts_outside_the_range_is_seen_when_the_state_is_made(schedule):
    with pytest.raises(ValueError, match=SEEN + "0"):
        jgd.adam(schedule).init(jnp.zeros(2))


@pytest.mark.parametrize("schedule", [lambda count: 0.1 - 0.2 * count, lambda count: 0.1 * (1 - count) / (1 - count)])
def test_a_schedule_whose_second_value_cannot_be_is_seen_too(schedule):
    with pytest.raises(ValueError, match=SEEN + "1"):
        jgd.adam(schedule).init(jnp.zeros(2))
    jax.eval_shape(jgd.adam(schedule).init, jnp.zeros(2))  # where values are not known nothing is said


def test_all_values_of_a_schedule_are_checked_on_request():
    np.testing.assert_allclose(
        jgd.schedules.check_schedule(lambda count: 0.1 * count, 5000)[-2:], [499.8, 499.9], rtol=1e-6
    )
    with pytest.raises(ValueError, match=r"check_schedule: learning_rate must be at least 0; got -0\.1.* at 3"):
        jgd.schedules.check_schedule(lambda count: 0.2 - 0.1 * count, 5000)
    with pytest.raises(ValueError, match=r"check_schedule: b1 must be at least 0 and below 1; got 1.0 at 10"):
        jgd.schedules.check_schedule(lambda count: 0.1 * count, 20, name="b1")


def test_a_factor_on_a_schedule_does_not_turn_it():
    state = jgd.sgd(lambda count: 0.1, momentum=lambda count: 0.9).init(jnp.zeros(2))
    for name in ("learning_rate_scale", "momentum_scale"):
        jgd.set_hyperparams(state, **{name: 0.0})
        with pytest.raises(ValueError, match=f"{name} must be at least 0"):
            jgd.set_hyperparams(state, **{name: -1.0})


def test_a_state_that_went_through_a_program_or_a_file_keeps_its_ranges():
    optimizer = jgd.optimistic_gradient_descent(0.1)
    params = jnp.zeros(2)
    states = [jax.jit(optimizer.update)(params, optimizer.init(params))[1]]
    states += [pickle.loads(pickle.dumps(states[0])), jax.tree.map(jnp.copy, states[0])]
    plain = states[0]._replace(hyperparams={str(name): value for name, value in states[0].hyperparams.items()})
    assert jax.tree.structure(plain) == jax.tree.structure(states[0])
    states.append(optimizer.update(params, plain)[1])
    for state in states:
        assert float(jgd.set_hyperparams(state, beta=1.5).hyperparams["beta"]) == 1.5
