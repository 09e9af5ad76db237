"""The optimizer is given twice, to the state and to the step: what differs is told."""

import warnings

import jax
import jax.numpy as jnp
import optax
import pytest
from cases import RULES

import jgd
from jgd.train.step._same_optimizer import differences


def loss_fn(w, batch):
    return jnp.mean((w - batch) ** 2)


def state_of(optimizer):
    return jgd.TrainState.create(jnp.ones(3), optimizer)


def rate(count):
    return 0.1 / (1 + count)


TWICE = {
    "optax": lambda: optax.chain(optax.clip(1.0), optax.adamw(optax.cosine_decay_schedule(1.0, 10))),
    "optax_calls": lambda: optax.MultiSteps(optax.adam(1e-3), 2),
    "optax_injected": lambda: optax.inject_hyperparams(optax.adam)(1e-3),
    "optax_masked": lambda: optax.masked(optax.adam(1e-3), {"w": True}),
    "optax_search": optax.lbfgs,
    "groups": lambda: jgd.groups({"*bias": jgd.sgd(0.1), "*": jgd.adamw(rate)}),
    "wrapped": lambda: jgd.accumulate(jgd.mars(jgd.chain(jgd.clip(1.0), jgd.adam(lambda t: 0.1))), 2),
    **{rule.name: rule.traces[0].ours for rule in RULES if rule.traces},
}


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")
def test_an_optimizer_made_twice_is_the_same():
    unlike = {name: differences(make(), make()) for name, make in TWICE.items()}
    assert len(unlike) > 60
    assert {name: found for name, found in unlike.items() if found} == {}
    assert differences(jgd.adam(0.1), jgd.adam(jnp.float32(0.1))) == []
    used = jgd.adam(0.1)  # what an optimizer notes while it is used is no difference
    jax.eval_shape(lambda w: used.update(w, used.init(w), w), jnp.ones(3))
    assert differences(used, jgd.adam(0.1)) == []
    assert differences(jgd.adam(0.1), jgd.adam(0.1, layout="packed")) == []  # no result depends on it


@pytest.mark.parametrize(
    ("of_state", "of_step", "message"),
    [
        (jgd.adam(1e-3), jgd.adam(1e-2), r"learning_rate is 0\.001 and 0\.01"),
        (jgd.adam(1e-3), jgd.adam(1e-3, b1=0.5), r"b1 is 0\.9 and 0\.5"),
        (optax.adam(1e-3), optax.adam(1e-2), r"step_size is -0\.001 and -0\.01"),
    ],
)
def test_other_numbers_are_a_warning_and_those_of_the_state_count(of_state, of_step, message):
    state, step = state_of(of_state), jgd.make_step(loss_fn, of_step)
    with pytest.warns(UserWarning, match=f"optimizers that differ: {message}.*get_hyperparams") as told:
        state, metrics = step(state, jnp.zeros(3))
    assert told[0].filename == __file__
    assert (
        not isinstance(of_state, jgd.Optimizer)
        or metrics["learning_rate"] == state.opt_state.hyperparams["learning_rate"]
    )
    step(state, jnp.zeros(3))  # once


@pytest.mark.parametrize(
    ("of_state", "of_step", "message"),
    [
        (jgd.adam(1e-3), jgd.adabelief(1e-3), r"given jgd\.adam\(.*make_step jgd\.adabelief\("),
        (jgd.sgd(0.1, 0.9), jgd.sgd(0.1, 0.9, nesterov=True), r"differ in update is heavy_ball_update and nesterov"),
        (jgd.sgd(lambda t: 0.1), jgd.sgd(lambda t: 0.2), r"differ in learning_rate is <lambda> and <lambda>"),
        (optax.adam(1e-3), optax.nadam(1e-3), r"differ in nesterov is False and True"),
        (optax.adam(1e-3), optax.sgd(1e-3), r"differ in .* is scale_by_adam and"),
        (jgd.adamw(0.1, mask=True), jgd.adamw(0.1, mask=False), r"differ in mask is True and False"),
        (optax.adam(1e-3), jgd.adam(1e-3), r"given <optax transform>, make_step jgd\.adam"),
    ],
)
def test_another_rule_is_an_error(of_state, of_step, message):
    step = jgd.make_step(loss_fn, of_step)
    for run, batch in ((step, jnp.zeros(3)), (jgd.scan_steps(step), jnp.zeros((2, 3)))):
        with pytest.raises(
            ValueError, match=f"this state was made for another optimizer: TrainState.create was.*{message}"
        ):
            run(state_of(of_state), batch)
    with pytest.raises(ValueError, match=r"this state was made for another optimizer"):
        jgd.fit(state_of(of_state), step, [jnp.zeros(3)], epochs=1, progress=False)


def test_numbers_that_were_set_and_schedules_are_no_difference():
    for optimizer in (jgd.sgd(0.1), jgd.chain(jgd.clip(1.0), jgd.sgd(rate))):
        state = state_of(optimizer)
        name = next(name for name in jgd.get_hyperparams(state) if name in ("learning_rate_scale", "learning_rate"))
        name = "learning_rate_scale" if "learning_rate_scale" in jgd.get_hyperparams(state) else name
        state = jgd.set_hyperparams(state, **{name: 0.5})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            jgd.make_step(loss_fn, optimizer)(state, jnp.zeros(3))


@pytest.mark.parametrize(
    ("of_state", "of_step", "message"),
    [
        (optax.adam(1e-3), jgd.adam(1e-3), r"than jgd\.adam\(.*\): it lacks a leaf at \.count"),
        (optax.adam(1e-3), optax.sgd(0.1, 0.9), r"than <optax transform>: it lacks a leaf at \[0\]\.trace"),
        (jgd.sgd(0.1), jgd.adam(0.1), r"than jgd\.adam\(.*\): it lacks a leaf at \.hyperparams\['b1'\]"),
    ],
)
def test_a_state_of_unknown_origin_with_the_parts_of_another_rule(of_state, of_step, message):
    state = state_of(of_step)._replace(opt_state=of_state.init(jnp.ones(3)))
    with pytest.raises(ValueError, match=f"make_step: this state's opt_state is another optimizer's {message}"):
        jgd.make_step(loss_fn, of_step)(state, jnp.zeros(3))


def test_what_is_no_optimizer_is_told_what_to_write():
    with pytest.raises(
        TypeError, match=r"TrainState\.create: optimizer must be an optimizer; got the function adam\. adam"
    ):
        jgd.TrainState.create(jnp.ones(3), jgd.adam)
    with pytest.raises(TypeError, match=r"make_step: optimizer must be .* adam makes one: call it, as adam\(\.\.\.\)"):
        jgd.make_step(loss_fn, jgd.adam)
    with pytest.raises(TypeError, match=r"make_step: .* got 'adam'\. Call the factory: jgd\.adam\(\.\.\.\)"):
        jgd.make_step(loss_fn, "adam")
    with pytest.raises(TypeError, match=r"make_step: optimizer must be an optimizer; got the class MultiSteps"):
        jgd.make_step(loss_fn, jgd.MultiSteps)
    with pytest.raises(TypeError, match=r"mars: optimizer must be an optimizer; got the function adam\. adam makes"):
        jgd.mars(jgd.adam)
    calls = optax.MultiSteps(optax.sgd(0.1), 2)  # no tuple, and an optimizer all the same
    jgd.make_step(loss_fn, calls)(jgd.TrainState.create(jnp.ones(3), calls), jnp.zeros(3))


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (1.5, r"1\.5"),
        (True, "True"),
        (jnp.ones(2), r"an array of shape \(2,\)"),
        (jnp.zeros((3, 2), jnp.uint32), r"an array of shape \(3, 2\)"),
    ],
)
def test_a_key_that_cannot_be(key, found):
    message = rf"TrainState\.create: key must be an integer or one key of jax\.random; got {found}"
    with pytest.raises(TypeError, match=message):
        jgd.TrainState.create(jnp.ones(3), jgd.sgd(0.1), key=key)
    with pytest.raises(TypeError, match=r"reduce_per_example: key must be an integer or one key"):
        jgd.gradients.reduce_per_example(loss_fn, jgd.gradients.Mean())(jnp.ones(3), jnp.ones((2, 3)), key=key)
