"""What wrappers, groups and averages promise beyond running."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jgd
from jgd.core import Wrapper, wrap, zeros


def run(optimizer, params, grads):
    state = optimizer.init(params)
    for grad in grads:
        updates, state = optimizer.update(jax.tree.map(jnp.asarray, grad), state, params)
        params = jgd.apply_updates(params, updates)
    return params, state


def gradients(rng, shape=(4, 3), steps=8):
    return [rng.normal(size=shape).astype(np.float32) for _ in range(steps)]


def test_a_trust_ratio_around_adam_is_lamb(rng):
    params, grads = jnp.ones((4, 3)), gradients(rng)
    found, _ = run(jgd.trust_ratio(jgd.adam(0.02, eps=1e-6)), params, grads)
    expected, _ = run(jgd.lamb(0.02), params, grads)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_step_of_length_zero_has_no_ratio():
    params, _ = run(jgd.trust_ratio(jgd.sgd(0.1)), jnp.ones(3), [np.zeros(3, np.float32)])
    np.testing.assert_array_equal(params, 1)


def test_hyperball_keeps_the_norm_and_takes_steps_of_the_length_asked_for(rng):
    params = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
    found, _ = run(jgd.hyperball(jgd.adam(0.1)), params, gradients(rng))
    np.testing.assert_allclose(jnp.linalg.norm(found), jnp.linalg.norm(params), rtol=1e-5)
    one, _ = run(jgd.hyperball(jgd.sgd(0.1)), params, gradients(rng, steps=1))
    # The step before the projection is a tenth of the radius.
    assert 0.05 < jnp.linalg.norm(one - params) / jnp.linalg.norm(params) <= 0.1001


def test_cautious_decay_follows_its_formula_with_the_learning_rate_of_each_step(rng):
    expected, grads = rng.normal(size=5).astype(np.float32), gradients(rng, (5,), 2)
    found, _ = run(jgd.cautious_decay(jgd.sgd(lambda count: 0.1 + 0.2 * count), 0.5), jnp.asarray(expected), grads)
    for rate, grad in zip((0.1, 0.3), grads, strict=True):
        delta = -rate * grad
        expected = expected + delta - rate * 0.5 * np.where(delta * expected <= 0, expected, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_update_clipping_bounds_the_root_mean_square():
    found, _ = run(jgd.clip_update_rms(jgd.sgd(0.1), 0.5), jnp.zeros(4), [np.full(4, 30.0)])
    np.testing.assert_allclose(found, -0.05 * np.ones(4), rtol=1e-6)
    within, _ = run(jgd.clip_update_rms(jgd.sgd(0.1), 50.0), jnp.zeros(4), [np.full(4, 30.0)])
    np.testing.assert_allclose(within, -3.0 * np.ones(4), rtol=1e-6)


def test_averages_are_those_of_the_params(rng):
    grads = gradients(rng, (3,), 12)
    path, params, state = [], jnp.zeros(3), jgd.sgd(0.1).init(jnp.zeros(3))
    for grad in grads:
        updates, state = jgd.sgd(0.1).update(jnp.asarray(grad), state)
        params = params + updates
        path.append(np.asarray(params, np.float64))
    weights = 0.9 ** np.arange(12)[::-1]
    expected = {
        "ema": np.average(path, axis=0, weights=weights),
        "swa": np.mean([path[i] for i in (3, 6, 9)], axis=0),  # after step 4, every third: 4, 7, 10
    }
    for name, arguments in (("ema", {"decay": 0.9}), ("swa", {"kind": "polyak", "start": 4, "every": 3})):
        params, state = run(jgd.average_params(jgd.sgd(0.1), **arguments), jnp.zeros(3), grads)
        np.testing.assert_allclose(jgd.eval_params(state, params), expected[name], rtol=1e-5)
        np.testing.assert_allclose(params, path[-1], rtol=1e-5)


def test_eval_params_reaches_through_chains_and_groups():
    optimizer = jgd.chain(
        jgd.clip(1.0), jgd.groups({"a": jgd.average_params(jgd.sgd(1.0), decay=0.5), "b": jgd.sgd(1.0)})
    )
    params = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    params, state = run(optimizer, params, [{"a": -np.ones(2), "b": -np.ones(2)}] * 3)
    evaluated = jgd.eval_params(state, params)
    assert float(evaluated["a"][0]) < float(params["a"][0]) == 3.0
    np.testing.assert_array_equal(evaluated["b"], params["b"])


def test_hyperparameters_of_a_wrapper_and_of_what_is_in_it_are_data():
    optimizer = jgd.cautious_decay(jgd.mars(jgd.adam(0.1)), 0.01)
    state = optimizer.init(jnp.ones(2))
    known = jgd.get_hyperparams(state)
    assert {"weight_decay", "gamma", "learning_rate"} <= {name.split(".")[-1] for name in known}
    traces = []

    @jax.jit
    def step(state):
        traces.append(1)
        return optimizer.update(jnp.ones(2), state, jnp.ones(2))

    for rate in (0.1, 0.2, 0.3):
        step(jgd.set_hyperparams(state, learning_rate=rate, weight_decay=rate))
    assert len(traces) == 1


@pytest.mark.parametrize("name", ["b1", "b2", "eps", "weight_decay", "learning_rate"])
def test_any_hyperparameter_takes_any_schedule(name):
    schedule = jgd.schedules.warmup_stable_decay_schedule(0.4, 2, 2, 4, init_value=0.1, end_value=0.05)
    optimizer = jgd.adamw(**({"learning_rate": 0.1} | {name: schedule}))
    state, seen = optimizer.init(jnp.ones(2)), []
    for _ in range(9):
        _, state = jax.jit(optimizer.update)(jnp.ones(2), state, jnp.ones(2))
        seen.append(float(jgd.get_hyperparams(state)[name]))
    np.testing.assert_allclose(seen, [float(schedule(t)) for t in range(9)], rtol=1e-6)


class TestGroups:
    @property
    def params(self):
        return {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "table": jnp.ones(3)}

    def test_each_leaf_gets_its_own_optimizer_and_none_is_frozen(self):
        optimizer = jgd.groups(
            {"*/kernel": jgd.sgd(0.1), "re:.*bias": jgd.sgd(1.0, momentum=0.9), "rest": None}, default="rest"
        )
        updates, state = optimizer.update(self.params, optimizer.init(self.params), self.params)
        assert [float(leaf.ravel()[0]) for leaf in jax.tree.leaves(updates)] == [-1.0, pytest.approx(-0.1), 0.0]
        assert jax.tree.leaves(state["rest"]) == []

    def test_labels_are_a_tree_or_a_function(self):
        for labels in ({"dense": "a", "table": "b"}, lambda params: {"dense": "a", "table": "b"}):
            optimizer = jgd.groups({"a": jgd.sgd(0.1), "b": jgd.sgd(1.0)}, labels)
            updates, _ = optimizer.update(self.params, optimizer.init(self.params), self.params)
            assert float(updates["table"][0]) == -1.0

    def test_it_equals_partition_of_optax(self, rng):
        labels = {"dense": "a", "table": "b"}
        grads = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), self.params)
        ours = jgd.groups({"a": jgd.adam(0.1), "b": jgd.sgd(0.5)}, labels)
        theirs = optax.partition({"a": optax.adam(0.1), "b": optax.sgd(0.5)}, labels)
        found, _ = run(ours, self.params, [grads] * 3)
        expected, _ = run(theirs, self.params, [grads] * 3)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)

    @pytest.mark.parametrize(
        ("optimizers", "more", "message"),
        [
            ({"*kernel": jgd.sgd(1.0)}, {}, "'dense/bias' matches none of '\\*kernel'"),
            ({"dense/*": jgd.sgd(1.0), "*kernel": jgd.sgd(1.0)}, {"default": "*kernel"}, None),
            ({"dense/*": jgd.sgd(1.0), "*e*": None, "*l*": None}, {}, "'dense/kernel' matches several patterns"),
            ({"*": jgd.sgd(1.0), "re:.*": None}, {}, "'dense/bias' matches several patterns: '\\*', 're:"),
            ({"*": jgd.sgd(1.0), "*kernle": None}, {}, "'\\*kernle' matches no leaf; the leaves are 'dense/bias'"),
            ({"rest": None, "*kernle": None}, {"default": "rest"}, "'\\*kernle' matches no leaf"),
            ({"re:(": jgd.sgd(1.0)}, {}, "'re:\\(' is not a regular expression: missing \\)"),
            ({"a": jgd.sgd(1.0)}, {"labels": {"other": "a"}}, "the labels are not a prefix of the params"),
            ({"a": jgd.sgd(1.0)}, {"labels": {"dense": "a", "table": "c"}}, "has the label 'c'"),
            ({"a": jgd.sgd(1.0)}, {"default": "z"}, "default='z' is not one of the groups"),
            ({}, {}, "at least one group"),
        ],
    )
    def test_a_leaf_without_a_place_is_an_error_that_names_it(self, optimizers, more, message):
        if message is None:
            jgd.groups(optimizers, **more).init(self.params)
            return
        with pytest.raises(ValueError, match=message):
            jgd.groups(optimizers, **more).init(self.params)

    @pytest.mark.parametrize("order", [1, -1])
    def test_the_most_specific_pattern_wins(self, order):
        rates = {"*": 0.1, "dense/*": 0.5, "dense/bias": 1.0}
        optimizer = jgd.groups({name: jgd.sgd(rates[name]) for name in list(rates)[::order]})
        updates, _ = optimizer.update(self.params, optimizer.init(self.params), self.params)
        found = [-float(leaf.ravel()[0]) for leaf in jax.tree.leaves(updates)]
        np.testing.assert_allclose(found, [1.0, 0.5, 0.1], rtol=1e-6)

    def test_a_variable_of_nnx_is_found_without_its_value(self):
        params = {"dense": Variable(jnp.ones(2)), "head": Variable(jnp.ones(2))}
        for patterns in (("dense", "head"), ("dense/value", "*"), ("re:d.*e", "*head")):
            optimizer = jgd.groups(dict(zip(patterns, (jgd.sgd(0.1), jgd.sgd(1.0)), strict=True)))
            updates, _ = optimizer.update(params, optimizer.init(params), params)
            assert (float(updates["dense"].value[0]), float(updates["head"].value[0])) == (pytest.approx(-0.1), -1.0)

    def test_what_is_no_dict_or_no_pattern_is_refused_in_words(self):
        with pytest.raises(
            TypeError, match=r"groups: optimizers must be a dict whose entries are each an optimizer or None; got \["
        ):
            jgd.groups([jgd.sgd(1.0)])
        with pytest.raises(TypeError, match="groups: a pattern must be text; got 1"):
            jgd.groups({1: jgd.sgd(1.0)})

    def test_names_are_those_that_are_taken_with_a_training_state_around_and_without(self):
        optimizer = jgd.groups({"*": jgd.sgd(0.1), "dense/*": jgd.sgd(0.2)})
        state = jgd.TrainState.create(self.params, optimizer)
        names = ["*.learning_rate", "dense/*.learning_rate"]
        assert list(jgd.get_hyperparams(state)) == list(jgd.get_hyperparams(state.opt_state)) == names
        state = jgd.set_hyperparams(state, **dict.fromkeys(names, 0.5))
        assert [float(value) for value in jgd.get_hyperparams(state.opt_state).values()] == [0.5, 0.5]

    def test_metrics_say_whose_learning_rate_it_is(self):
        optimizer = jgd.groups({"*": jgd.sgd(0.1), "dense/*": jgd.sgd(0.2)})
        step = jgd.make_step(lambda params, _: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)), optimizer)
        _, metrics = step(jgd.TrainState.create(self.params, optimizer), None)
        rates = {name: round(float(rate), 3) for name, rate in metrics.items() if "learning_rate" in name}
        assert rates == {"*.learning_rate": 0.1, "dense/*.learning_rate": 0.2, "learning_rate": 0.2}


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Variable:
    """As flax's nnx has them."""

    value: jax.Array


def test_skip_nonfinite_leaves_everything_as_it_was():
    optimizer, params = jgd.skip_nonfinite(jgd.adam(0.1)), {"good": jnp.ones(2), "bad": jnp.ones(2)}
    first, state = run(optimizer, params, [params])
    again, after = optimizer.update({"good": jnp.ones(2), "bad": jnp.array([np.inf, 1.0])}, state, first)
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0), again)
    jax.tree.map(np.testing.assert_array_equal, after.inner, state.inner)
    assert (int(after.own.slots["skipped"]), int(after.own.slots["consecutive"])) == (1, 1)


def test_accumulated_sums_start_anew_after_each_update():
    optimizer = jgd.MultiSteps(jgd.sgd(1.0), 2, use_grad_mean=False)
    state, found = optimizer.init(jnp.zeros(1)), []
    for grad in (1.0, 2.0, 30.0, 40.0):
        updates, state = optimizer.update(jnp.full(1, grad), state)
        found.append(float(updates[0]))
    assert found == [0, -3, 0, -70]


def test_private_aggregation_equals_optax_without_noise(rng):
    grads = {"a": rng.normal(size=(6, 3)).astype(np.float32), "b": rng.normal(size=(6, 2, 2)).astype(np.float32)}
    ours = jgd.differentially_private_aggregate(1.5, 0.0, key=0)
    theirs = optax.contrib.differentially_private_aggregate(1.5, 0.0, key=0)
    found = ours.update(grads, ours.init(grads))[0]
    expected = theirs.update(grads, theirs.init(grads))[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, expected)


def test_the_noise_of_private_aggregation_is_so_many_times_the_limit():
    aggregate = jgd.differentially_private_aggregate(0.5, 3.0, key=0)
    noise, _ = aggregate.update(jnp.zeros((8, 4000)), aggregate.init(None))
    # Of a sum over eight examples; 4000 numbers tell a deviation to one percent.
    np.testing.assert_allclose(np.std(noise), 0.5 * 3.0 / 8, rtol=0.05)


def test_the_variance_of_added_noise_falls_with_the_power_asked_for():
    optimizer = jgd.add_noise(0.25, 0.5, key=0)
    late = optimizer.init(jnp.zeros(4000))._replace(count=jnp.int32(9999))
    noise, _ = optimizer.update(jnp.zeros(4000), late)
    np.testing.assert_allclose(np.std(noise), np.sqrt(0.25 / 10_000**0.5), rtol=0.05)


def test_sam_descends_from_where_it_was_along_the_gradient_of_where_it_climbed_to():
    optimizer = jgd.sam(jgd.sgd(0.1), jgd.chain(jgd.normalize(), jgd.sgd(0.05)))
    start = params = np.float32([3.0, 4.0])
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = optimizer.update(2 * params, state, params)
        params = np.asarray(params + updates)
    climbed = start + 0.05 * start / 5
    np.testing.assert_allclose(params, start - 0.1 * 2 * climbed, rtol=1e-6)


def test_where_the_rate_falls_schedule_free_averages_its_iterates_alike(rng):
    # Each weighs the largest rate so far, squared.
    rates, grads = np.float32([0.4, 0.1, 0.05]), gradients(rng, (3,), 3)
    schedule = lambda count: jnp.asarray(rates)[count]  # noqa: E731
    optimizer = jgd.schedule_free(jgd.sgd(schedule), schedule, like="author")
    params, state = run(optimizer, jnp.ones(3), grads)
    iterates = 1 - np.cumsum(rates[:, None] * grads, axis=0)
    np.testing.assert_allclose(jgd.eval_params(state, params), iterates.mean(0), rtol=1e-5)


def test_dog_decays_the_leaves_of_its_mask_alone():
    optimizer = jgd.dog(weight_decay=0.1, mask={"a": True, "b": False})
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    assert np.all(updates["a"] < 0)
    np.testing.assert_array_equal(updates["b"], 0)


def test_wrappers_refuse_what_is_no_optimizer():
    with pytest.raises(TypeError, match=r"cautious: optimizer must be an optimizer; got 0\.1"):
        jgd.cautious(0.1)
    two_rates = jgd.chain(jgd.sgd(1.0), jgd.sgd(0.5))
    optimizer = jgd.trust_ratio(two_rates)
    with pytest.raises(ValueError, match="several parts of the inner optimizer have a learning_rate"):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)), jnp.ones(2))


MISTAKES = [
    (
        lambda g, s, p, h, t: (g, {"sum": s["sum"][0]}),
        ValueError,
        r"with shape \(3,\); expected",
    ),
    (lambda g, s, p, h, t: (g, {"total": g}), ValueError, r"returned a slot 'total'; expected .*: 'sum'"),
    (
        lambda g, s, p, h, t: (g.astype(jnp.bfloat16), {}),
        TypeError,
        r"the {result} with dtype bfloat16; expected float32",
    ),
    (lambda g, s, p, h, t: g, TypeError, r"returned an array .*expected two values, \({result}, slots\)"),
    (lambda g, s, p, h, t: (h["rate"] * g, {}), KeyError, r"looks up 'rate', which there is not"),
]


@pytest.mark.parametrize("around", ["before", "after"])
@pytest.mark.parametrize(
    ("formula", "error", "message"), MISTAKES, ids=["slot_shape", "slot_name", "dtype", "one_value", "no_name"]
)
def test_what_a_wrapper_returns_is_checked_as_what_a_rule_returns(around, formula, error, message):
    after = lambda d, g, s, p, h, t: formula(d, s, p, h, t)  # noqa: E731
    wrapper = Wrapper(**{around: formula if around == "before" else after}, slots={"sum": zeros})
    optimizer, params = wrap(jgd.sgd(0.1), wrapper, {}, name="mine"), {"a": jnp.ones((4, 3))}
    message = message.replace("{result}", "grad" if around == "before" else "delta")
    with pytest.raises(error, match=rf"mine: at \['a'\] {around} .*{message}"):
        optimizer.update(params, optimizer.init(params), params)


def test_a_wrapper_returns_the_slots_that_it_changes():
    before = lambda g, s, p, h, t: (2 * g, {"first": g})  # noqa: E731
    after = lambda d, g, s, p, h, t: (d, {"last": d})  # noqa: E731
    wrapper = Wrapper(before, after, {"first": zeros, "last": zeros, "kept": lambda p: p})
    optimizer, params = wrap(jgd.sgd(0.5), wrapper, {}, name="mine"), jnp.array([3.0])
    _, state = optimizer.update(jnp.array([1.0]), optimizer.init(params), params)
    assert {slot: float(value[0]) for slot, value in state.own.slots.items()} == {"first": 1, "last": -1, "kept": 3}


@pytest.mark.parametrize(
    "make",
    [
        jgd.sgd,
        jgd.clip,
        jgd.galore,
        lambda rate: jgd.cautious(jgd.sgd(rate)),
        lambda rate: jgd.mechanize(jgd.sgd(rate)),
        lambda rate: jgd.schedule_free(jgd.sgd(rate), rate),
        lambda rate: jgd.skip_nonfinite(jgd.sgd(rate)),
        lambda rate: jgd.stochastic_rounding(jgd.sgd(rate)),
        lambda rate: jgd.differentially_private_aggregate(rate, 0.0, key=0),
        lambda rate: jgd.reduce_on_plateau(rate),
    ],
)
def test_a_state_of_another_kind_is_told_by_its_type(make):
    optimizer, params = make(0.5), jnp.ones((4, 3))
    kind = type(optimizer.init(params)).__name__
    with pytest.raises(TypeError, match=rf"expected the {kind} that this optimizer's init made; got tuple"):
        optimizer.update(params, (optimizer.init(params), ()), params)
