"""Guards: limits to skipping, spikes, rollback. Each injected fault ends with the right state and a record."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jgd
from jgd.train.guards._events import events_of
from jgd.train.guards._finite import SpikeError
from jgd.train.guards._guard import Guard
from jgd.train.guards._spikes import Spikes, detect_spikes
from jgd.train.loop._rollback import Rollback, RollbackError, at_step

OPTIMIZER = jgd.adam(0.01)


def loss_fn(p, batch):
    """Gradients that are not finite in `b` alone, if `batch["b"]` is not."""
    return jnp.mean(batch["scale"] * (p["a"] - batch["y"]) ** 2) + jnp.sum(p["b"] * batch["b"])


def batch(scale=1.0, b=0.1, y=0.5, ids=(0, 1)):
    return {"scale": np.float32(scale), "b": np.float32(b), "y": np.full(2, y, np.float32), "id": np.int32(ids)}


step_of = functools.cache(functools.partial(jgd.make_step, loss_fn))


def params():
    return {"a": np.ones((), np.float32), "b": np.ones(2, np.float32)}


def make(guard, on_nonfinite="skip", optimizer=OPTIMIZER, **options):
    """A step and its first state. A guard's numbers lie in the state: guards of the same parts have one program."""
    of_parts = guard
    if isinstance(guard, Guard):
        spikes = guard.spikes
        if spikes is not None:
            spikes = Spikes(spikes.on_spike, statistic=spikes.statistic, window=spikes.window, watch=spikes.watch)
        of_parts = dataclasses.replace(Guard(max_skips=0 if guard.has_limits else None), spikes=spikes)
    step = step_of(optimizer, on_nonfinite=on_nonfinite, guard=of_parts, **options)
    return step, jgd.TrainState.create(params(), optimizer, guard=guard)


def small_window(**given):
    return Guard(spikes=Spikes(**({"window": 8, "max_in_a_row": 3, "cooldown": 2} | given)))


def train(step, state, count, **given):
    for _ in range(count):
        state, metrics = step(state, batch(**given))
    return state, metrics


def host(tree):
    return jax.tree.map(np.array, tree)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def stack(batches):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)


# Limits


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_limit_in_a_row_ends_the_run_and_nothing_bad_is_ever_applied(bad):
    step, state = make(Guard(max_consecutive_skips=2))
    state, _ = train(step, state, 2)
    before = host(state)
    for count in (1, 2):
        state, metrics = step(state, batch(b=bad, ids=(5, 6)))
        assert int(metrics["consecutive_skips"]) == count
        (event,) = events_of(metrics, step=1 + count, params=state.params, batch=batch(ids=(5, 6)))
        assert (event["kind"], event["action"], event["leaf"], event["ids"]) == ("nonfinite", "skip", "['b']", [5, 6])
    with pytest.raises(
        jgd.NonFiniteError, match=r"step 4: the gradient at \['b'\].*step 3 in a row, 3 in all"
    ) as caught:
        step(state, batch(b=bad))
    state = caught.value.state
    assert_equal((before.params, before.opt_state), (state.params, state.opt_state))
    assert (int(state.step), int(state.guard.consecutive_skips)) == (4, 2)
    state, metrics = step(state, batch())  # a good batch goes on from there, and the row is over
    assert (int(metrics["consecutive_skips"]), int(metrics["skips"])) == (0, 2)


def test_where_optax_applies_the_bad_update_after_its_limit():
    optimizer = optax.apply_if_finite(optax.sgd(0.1), max_consecutive_errors=2)
    state, update = optimizer.init(np.float32(1)), jax.jit(optimizer.update)
    applied = []
    for _ in range(3):
        updates, state = update(np.float32("nan"), state, np.float32(1))
        applied.append(float(updates))
    np.testing.assert_array_equal(applied, [0, 0, np.nan])


def test_a_limit_of_the_whole_run():
    step, state = make(Guard(max_skips=2))
    for _ in range(2):
        state, _ = step(state, batch(b=jnp.nan))
        state, metrics = step(state, batch())
    with pytest.raises(jgd.NonFiniteError, match="step 1 in a row, 3 in all"):
        step(state, batch(b=jnp.nan))
    assert int(metrics["skips"]) == 2


def test_a_scan_stops_at_the_limit_and_stays_there():
    step, state = make(Guard(max_consecutive_skips=1))
    expected, _ = train(*make(Guard(max_consecutive_skips=1)), 2)
    batches = [batch(), batch(), batch(b=jnp.inf), batch(b=jnp.inf), batch(), batch()]
    with pytest.raises(jgd.NonFiniteError, match=r"step 3: the gradient at \['b'\]") as caught:
        jgd.scan_steps(step)(state, stack(batches))
    assert_equal(caught.value.state.params, expected.params)
    assert int(caught.value.state.step) == 3


def test_the_records_of_a_limit():
    step, state = make(Guard(max_consecutive_skips=0))
    _, metrics, _, running = step.compiled(state, batch(b=jnp.nan), jnp.array(True))
    assert not running
    events = events_of(jax.device_get(metrics), step=0, params={"a": 0, "b": 0}, batch=batch())
    assert [(event["kind"], event["action"]) for event in events] == [("nonfinite", "stop"), ("limit", "stop")]
    assert events[1]["consecutive_skips"] == 1


def test_changing_a_number_recompiles_nothing():
    traces = []

    def counted(p, b):
        traces.append(1)
        return loss_fn(p, b)

    guard = Guard(max_skips=1, spikes=Spikes(window=8))
    step = jgd.make_step(counted, OPTIMIZER, on_nonfinite="skip", guard=guard)
    state = jgd.TrainState.create(params(), OPTIMIZER, guard=guard)
    state, _ = step(state, batch(b=jnp.nan))
    state = Guard(max_skips=None, spikes=Spikes(window=8, threshold=3.0)).retune(state)
    for _ in range(3):
        state, metrics = step(state, batch(b=jnp.nan))
    assert (len(traces), int(metrics["skips"])) == (1, 4)
    assert float(state.guard.spikes.settings["threshold"]) == 3


# Spikes


@pytest.mark.parametrize(
    ("statistic", "donate"),
    [
        ("mean", True),
        ("median", False),
        pytest.param("mean", False, marks=pytest.mark.slow),
        pytest.param("median", True, marks=pytest.mark.slow),
    ],
)
def test_a_spike_moves_nothing_and_is_recorded(statistic, donate):
    step, state = make(small_window(statistic=statistic), "raise", donate=donate)
    state, _ = train(step, state, 6)
    before = host(state)
    state, metrics = step(state, batch(scale=100.0, ids=(8, 9)))
    assert_equal((before.params, before.opt_state), (state.params, state.opt_state))
    assert (int(state.step), int(metrics["spikes"]), float(metrics["update_norm"])) == (7, 1, 0)
    assert_equal(before.guard.spikes.windows, state.guard.spikes.windows)  # it is no part of what is normal
    events = events_of(metrics, step=6, params=state.params, batch=batch(ids=(8, 9)))
    assert [event["number"] for event in events] == ["loss", "grad_norm"]
    assert all(event["value"] > event["threshold"] > 0 for event in events)
    assert events[0]["ids"] == [8, 9]
    state, metrics = step(state, batch())
    assert (int(metrics["event"]), int(state.opt_state.count)) == (0, 7)


def look_at(spikes, state, values):
    """The threshold for what comes after the values."""
    looking = jax.jit(lambda state, value: detect_spikes(spikes, state, {"loss": value}, jnp.array(True)))
    for value in values:
        state = looking(state, jnp.float32(value)).state
    return looking(state, jnp.float32(0)).thresholds["loss"]


def test_the_threshold_is_that_of_numpy_over_a_circular_window():
    values = np.random.default_rng(0).normal(10, 1, size=13).astype(np.float32)
    for statistic in ("mean", "median"):
        spikes = Spikes(window=8, watch=("loss",), statistic=statistic, threshold=50.0)
        found = look_at(spikes, spikes.init(), values)
        last = values[-8:].astype(np.float64)
        mad = 1.4826 * np.median(np.abs(last - np.median(last)))
        expected = last.mean() + 50 * last.std() if statistic == "mean" else np.median(last) + 50 * mad
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_it_is_not_armed_before_half_a_window():
    step, state = make(small_window(), "raise")
    state, _ = train(step, state, 3)
    state, metrics = step(state, batch(scale=100.0))
    assert (int(metrics["spikes"]), np.isnan(metrics["loss_threshold"])) == (0, True)


def test_a_level_shift_cannot_skip_forever():
    step, state = make(small_window(), "raise")
    state, _ = train(step, state, 6)
    events = []
    for t in range(6, 26):
        state, metrics = step(state, batch(scale=100.0))
        events += events_of(metrics, step=t)
    assert [event["step"] for event in events if event["kind"] == "spike" and event["number"] == "loss"] == [6, 7, 8]
    assert [event["step"] for event in events if event["kind"] == "level_shift"] == [8]
    assert int(state.opt_state.count) == 6 + 17
    state, metrics = step(state, batch(scale=1e5))  # and armed again, at the new level
    assert int(metrics["spikes"]) == 4


def test_the_cooldown_follows_a_level_shift():
    spikes = Spikes(window=8, watch=("loss",), max_in_a_row=2, cooldown=6)
    shifted = [*[1.0] * 5, 100.0, 100.0]
    for after, is_armed in ((5, False), (6, True)):  # half a window was seen after 4
        threshold = look_at(spikes, spikes.init(), [*shifted, *[100.0] * after])
        assert np.isfinite(threshold) == is_armed


@pytest.mark.parametrize("scheduled", [False, True])
def test_a_spike_lowers_the_rate_down_to_a_floor(scheduled):
    optimizer = jgd.adam((lambda count: 0.01 + 0 * count) if scheduled else 0.01)
    name = "learning_rate_scale" if scheduled else "learning_rate"
    guard = small_window(on_spike="lower_rate", factor=0.25, min_factor=0.1)
    step, state = make(guard, "raise", optimizer)
    state, _ = train(step, state, 6)
    before = host(state)
    one = float(before.opt_state.hyperparams[name])
    for factor in (0.25, 0.1):
        state, metrics = step(state, batch(scale=100.0))
        np.testing.assert_allclose(state.opt_state.hyperparams[name], factor * one, rtol=1e-6)
        np.testing.assert_allclose(metrics["rate_factor"], factor, rtol=1e-6)
        assert [event["kind"] for event in events_of(metrics, step=0)] == ["spike", "spike", "rate_lowered"]
    assert_equal((before.params, before.opt_state.slots), (state.params, state.opt_state.slots))
    state, metrics = step(state, batch(scale=100.0))
    np.testing.assert_allclose(metrics["rate_factor"], 0.1, rtol=1e-6)
    state, metrics = step(state, batch())
    np.testing.assert_allclose(metrics["learning_rate"], 0.1 * 0.01, rtol=1e-6)
    assert float(metrics["update_norm"]) > 0


def test_a_rate_that_cannot_be_lowered_is_refused():
    step, state = make(small_window(on_spike="lower_rate"), "raise", optax.adam(0.01))
    with pytest.raises(ValueError, match="the optimizer has none in its state"):
        step(state, batch())
    scheduled = optax.inject_hyperparams(optax.adam)(optax.constant_schedule(0.01))
    step, state = make(small_window(on_spike="lower_rate"), "raise", scheduled)
    with pytest.raises(ValueError, match=r"follows a schedule of optax\.inject_hyperparams"):
        step(state, batch())


@pytest.mark.parametrize(
    ("watch", "first"),
    [("grad_norm", "grad_norm"), pytest.param(("loss", "grad_norm"), "loss", marks=pytest.mark.slow)],
)
def test_a_spike_that_asks_for_a_rollback_raises_where_no_one_rolls_back(watch, first):
    guard = small_window(on_spike="rollback", watch=watch)
    step, state = make(guard, "raise")
    state, _ = train(step, state, 6)
    before = host(state)
    with pytest.raises(SpikeError, match=rf"step 6: {first} is .*, a spike above") as caught:
        step(state, batch(scale=100.0))
    assert_equal(before, caught.value.state)
    batches = stack([batch()] * 6 + [batch(scale=100.0)] + [batch()] * 2)
    with pytest.raises(SpikeError, match="step 6"):
        jgd.scan_steps(step)(make(guard, "raise")[1], batches)


@pytest.mark.parametrize("mapped", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_scan_with_a_guard_equals_a_loop_and_so_does_vmap(mapped):
    batches = [batch(scale=100.0 if t == 7 else 1.0, b=jnp.nan if t == 3 else 0.1, y=0.1 * t) for t in range(10)]
    step, state = make(small_window())
    kinds = []
    for t, one in enumerate(batches):
        state, metrics = step(state, one)
        kinds += [(t, event["kind"]) for event in events_of(metrics, step=t)]
    assert kinds == [(3, "nonfinite"), (7, "spike"), (7, "spike")]
    run, found = jgd.scan_steps(step), make(small_window())[1]
    if mapped:
        pair = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), found)
        pair, _ = jax.vmap(run, in_axes=(0, None))(pair, stack(batches))
        found = jax.tree.map(lambda leaf: np.asarray(leaf)[1], pair)
    else:
        found, _ = run(found, stack(batches))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, state)


def test_norms_may_be_left_out():
    step, state = make(small_window(), "raise", norms=False)
    state, _ = train(step, state, 6)
    _, metrics = step(state, batch(scale=100.0))
    assert (int(metrics["spikes"]), "update_norm" in metrics) == (1, False)


# Rollback


def loop(step, state, batches, rollback, can_rewind):
    """A loop such as `fit`: it looks at the numbers every three steps only."""
    keeper, events, waiting = rollback.start(state, 0), [], []
    running, position, skip = np.array(True), 0, set()
    while position < len(batches) or waiting:
        if position < len(batches):
            if position in skip:
                state = at_step(state, position + 1)
            else:
                state, metrics, bad, running = step.compiled(state, batches[position], running)
                waiting.append((position, metrics, bad))
            position += 1
            keeper.note(state, position, position)
        if len(waiting) < 3 and position < len(batches):
            continue
        for t, metrics, bad in waiting:
            found = events_of(metrics, step=t, params=state.params, batch=batches[t], bad_leaf=int(bad))
            events += found
            recovery = keeper.recover(found)
            if recovery is not None:
                events.append(recovery.event)
                running, state = np.array(True), recovery.state
                skip |= set(recovery.event["skip"])
                if can_rewind:
                    position = recovery.position
                else:
                    state = at_step(state, position)
                break
            keeper.confirm(t + 1)
        waiting = []
    return state, events


@pytest.mark.parametrize("keep", ["host", "device"])
@pytest.mark.parametrize("fault", ["spike", "nonfinite"])
def test_a_rollback_ends_as_a_run_that_never_saw_the_bad_batch(keep, fault):
    batches = [batch(y=0.05 * t) for t in range(15)]
    batches[8] = batch(scale=1000.0) if fault == "spike" else batch(b=jnp.inf, ids=(3, 4))
    guard = small_window(on_spike="rollback", watch="grad_norm")
    step, state = make(guard, "raise")
    state, events = loop(step, state, batches, Rollback(every=3, factor=0.5, keep=keep), can_rewind=True)
    assert [event["kind"] for event in events] == [fault, "rollback"]
    assert (events[1]["step"], events[1]["skip"], events[1]["attempt"]) == (8, [8], 1)
    assert events[1]["to_step"] == 6

    by_hand, expected = make(guard, "raise")
    for t, one in enumerate(batches):
        if t == events[1]["to_step"]:
            opt_state = jgd.set_hyperparams(expected.opt_state, learning_rate=0.005)
            expected = expected._replace(opt_state=opt_state)
        expected = at_step(expected, t + 1) if t == 8 else by_hand(expected, one)[0]
    assert_equal(state, expected)


def test_data_that_cannot_go_back_goes_on():
    batches = [batch(y=0.05 * t) for t in range(12)]
    batches[6] = batch(b=jnp.nan)
    step, state = make(None, "raise")
    state, events = loop(step, state, batches, Rollback(every=2, factor=1.0), can_rewind=False)
    assert [event["kind"] for event in events] == ["nonfinite", "rollback"]
    assert (int(state.step), int(state.opt_state.count)) == (12, events[1]["to_step"] + 3)  # the steps 9 to 11


def test_the_number_of_rollbacks_is_bounded_and_the_rate_falls_each_time():
    batches = [batch()] * 4 + [batch(b=jnp.nan)] * 8
    step, state = make(None, "raise")
    with pytest.raises(RollbackError, match=r"rolled back 2 times.*met trouble again: nonfinite at step 6") as caught:
        loop(step, state, batches, Rollback(every=3, retries=2, factor=0.5), can_rewind=True)
    np.testing.assert_allclose(jgd.get_hyperparams(caught.value.state)["learning_rate"], 0.0025, rtol=1e-6)
    assert np.all(np.isfinite(caught.value.state.params["b"]))


def test_a_rollback_needs_a_rate_to_lower_unless_its_factor_is_one():
    _, state = make(None, "raise", optax.sgd(0.1))
    with pytest.raises(ValueError, match="the optimizer has none in its state"):
        Rollback().start(state)
    Rollback(factor=1.0).start(state)


def test_a_key_survives_a_rollback():
    state = jgd.TrainState.create(jnp.ones(2), OPTIMIZER, key=3)
    back = Rollback(factor=1.0).start(state).recover([{"kind": "spike", "step": 0}])
    assert_equal(jax.random.key_data(back.state.key), jax.random.key_data(jax.random.key(3)))


# Gradients of another make


def per_example(loss):
    def run(params, one, key):
        assert key is None
        value, grads = jax.value_and_grad(loss)(params, one)
        return value, jax.tree.map(lambda g: 2 * g, grads), {"clipped": jnp.array(0.25)}

    return run


def test_other_gradients_can_be_put_in():
    step = jgd.make_step(loss_fn, jgd.sgd(0.1), gradient=per_example)
    state = jgd.TrainState.create(params(), jgd.sgd(0.1))
    state, metrics = step(state, batch())
    np.testing.assert_allclose(state.params["a"], 1 - 0.1 * 2 * 1.0, rtol=1e-6)
    assert float(metrics["clipped"]) == 0.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 2}, "does not go with accumulate > 1"),
        ({"has_aux": True}, "does not go with has_aux=True"),
        ({"guard": Guard(loss_scale=jgd.train.guards._loss_scale.LossScale())}, "does not go with a loss scale"),
    ],
)
def test_what_other_gradients_do_not_go_with(options, message):
    with pytest.raises(ValueError, match=message):
        jgd.make_step(loss_fn, OPTIMIZER, gradient=per_example, **options)


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (lambda loss: 3, TypeError, r"must return a function; got a int"),
        (lambda loss: lambda p, b, key: (0.0, p), TypeError, r"\(loss, grads, metrics dict\); got a tuple of 2"),
        (lambda loss: lambda p, b, key: (0.0, p["a"], {}), ValueError, "must be a tree like the params"),
        (
            lambda loss: lambda p, b, key: (0.0, p, {"loss": 1.0}),
            ValueError,
            r"names that the step's own have: \['loss'",
        ),
    ],
)
def test_other_gradients_that_cannot_be(made, error, message):
    state = jgd.TrainState.create(params(), OPTIMIZER)
    with pytest.raises(error, match=message):
        jgd.make_step(loss_fn, OPTIMIZER, gradient=made)(state, batch())


# Errors


def test_a_guard_must_be_given_to_both():
    step, guarded = make(Guard())
    plain_step, plain = make(None)
    with pytest.raises(ValueError, match="the step has a guard and the state has none"):
        step(plain, batch())
    with pytest.raises(ValueError, match="the state has a guard and the step has none"):
        plain_step(guarded, batch())
    with pytest.raises(ValueError, match="the state's guard is another than the step's"):
        step(make(small_window())[1], batch())
    assert not plain.step.is_deleted()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: make(Guard(), "ignore"), ValueError, "never lets a bad update through"),
        (lambda: make(Guard(max_skips=1), "raise"), ValueError, r"on_nonfinite='raise' skips none"),
        (lambda: make(3), TypeError, r"make_step: guard must be a jgd\.Guard or None; got 3"),
        (lambda: Guard(max_skips=-1), ValueError, "max_skips must be None or a whole number of at least 0; got -1"),
        (lambda: Guard(spikes=True), TypeError, r"spikes must be a jgd\.Spikes or None; got True"),
        (lambda: Spikes(on_spike="stop"), ValueError, "on_spike must be one of 'skip', 'lower_rate', 'rollback'"),
        (lambda: Spikes(watch=("accuracy",)), ValueError, r"watch must name some of loss, grad_norm"),
        (lambda: Spikes(window=3), ValueError, "window must be a whole number of at least 4; got 3"),
        (lambda: Spikes(factor=1.0), ValueError, "0 < factor < 1"),
        (lambda: Rollback(retries=0), ValueError, "retries must be a whole number of at least 1; got 0"),
        (lambda: Rollback(factor=2), ValueError, r"factor must lie in \(0, 1\]; got 2"),
    ],
)
def test_options_that_cannot_be(call, error, message):
    with pytest.raises(error, match=message):
        call()
