"""When a run ends by itself, what it says it ended for, and the best state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgd
from jgd.train.loop._plateau import Plateau

OPTIMIZER = jgd.adam(0.1)
STEP = jgd.make_step(lambda w, batch: (jnp.mean((w - batch) ** 2), {"bias": jnp.mean(w)}), OPTIMIZER, has_aux=True)
SKIPPING = jgd.make_step(lambda w, batch: jnp.mean((w - batch) ** 2), OPTIMIZER, on_nonfinite="skip")
DATA = [np.float32([1, 3]), np.float32([2, 2])]
BAD = np.float32([1, np.nan])


def start():
    return jgd.TrainState.create(np.float32(5), OPTIMIZER)


def fit(data=DATA, step=STEP, **options):
    return jgd.fit(start(), step, data, **({"epochs": 3, "progress": False} | options))


def scores(*values):
    """An evaluation that gives these, an epoch each; and the loss of the last for ever."""
    rest = list(values)
    return lambda state: {"score": rest.pop(0) if len(rest) > 1 else rest[0]}


def ended(values, **options):
    """`(epochs made, reason)` for these numbers; by epoch, so that a resumed run sees them as well."""
    values = list(values)
    by_step = lambda state: {"score": values[max(0, int(state.step) // 2 - 1)]}  # noqa: E731
    options = {"epochs": len(values), "monitor": "score", "eval_fn": by_step} | options
    _, history = fit(**options)
    return len(history["epoch_score"]), history["stopped"]


def test_min_delta_is_a_fall_below_the_best():
    # Falls of 0.04, none by more than 0.1 from one to the next: the third is 0.12 below the best that counts.
    assert ended([1.0, 0.96, 0.92, 0.88, 0.84, 0.80], patience=3, min_delta=0.1) == (6, "finished")
    assert ended([1.0, 0.96, 0.92, 0.88, 0.84, 0.80], patience=2, min_delta=0.1) == (3, "early_stopping")
    # A fall by less than it does not count as the best, so that the next is judged by the best that did.
    plateau = Plateau(2, 0.5, "loss")
    assert [plateau.take({"loss": value}, i, i) for i, value in enumerate([4.0, 3.5, 3.4])] == [True, False, True]


@pytest.mark.parametrize(("values", "options", "expected"), [
    ([3, 2, 2, 2, 1], {"patience": 2}, (4, "early_stopping")),
    ([3, 2, 2, 1, 1], {"patience": 2}, (5, "finished")),
    ([1, 2, 2, 2, 2], {"patience": 2, "monitor": "-score"}, (4, "early_stopping")),
    ([np.nan] * 5, {"patience": 2}, (2, "nan_metric")),
    ([3, np.nan, np.nan, 1], {"patience": 2}, (3, "nan_metric")),
    ([3, np.nan, 2, np.nan, 1], {"patience": 2}, (5, "finished")),
    ([3, np.nan, 3, 1], {"patience": 2}, (3, "early_stopping")),
    ([np.inf, np.inf, 1], {"patience": 2}, (2, "nan_metric")),
    ([3, -np.inf, 2, 1], {"patience": 2}, (4, "finished")),
])  # fmt: skip
def test_a_stop_is_called_what_it_is(values, options, expected):
    assert ended(values, **options) == expected


def test_the_other_reasons():
    assert fit(tol=1e9)[1]["stopped"] == "converged"
    assert fit()[1]["stopped"] == "finished"
    assert fit(callbacks=[lambda state, summary: True])[1]["stopped"] == "callback"


@pytest.mark.parametrize("guard", [None, jgd.Guard()])
def test_a_skipped_batch_is_no_part_of_the_epochs_means(guard):
    step, state = SKIPPING, start()
    if guard is not None:
        loss = lambda w, batch: jnp.mean((w - batch) ** 2)  # noqa: E731
        step = jgd.make_step(loss, OPTIMIZER, on_nonfinite="skip", guard=guard)
        state = jgd.TrainState.create(np.float32(5), OPTIMIZER, guard=guard)
    _, history = jgd.fit(state, step, [*DATA, BAD], epochs=4, patience=2, progress=False)
    assert history["stopped"] == "finished"
    losses = history["loss"].reshape(4, 3)
    np.testing.assert_allclose(history["epoch_loss"], losses[:, :2].mean(1), rtol=1e-6)
    assert history["epoch_nonfinite"].tolist() == [1] * 4


def test_a_spike_that_was_skipped_is_no_part_of_them_either():
    guard = jgd.Guard(spikes=jgd.Spikes(window=4, cooldown=0))
    step = jgd.make_step(lambda w, batch: jnp.mean((w - batch) ** 2), OPTIMIZER, on_nonfinite="skip", guard=guard)
    state = jgd.TrainState.create(np.float32(5), OPTIMIZER, guard=guard)
    _, history = jgd.fit(state, step, [*DATA * 3, np.float32([1e4, 1e4])], epochs=1, progress=False)
    assert history["spikes"][-1] == 1
    np.testing.assert_allclose(history["epoch_loss"][0], history["loss"][:-1].mean(), rtol=1e-6)


def test_an_epoch_of_skipped_batches_has_no_mean():
    _, history = fit([BAD], SKIPPING, epochs=5, patience=3)
    assert (history["stopped"], len(history["epoch_loss"])) == ("nan_metric", 3)
    assert np.isnan(history["epoch_loss"]).all()


def test_a_bad_update_that_was_made_is_part_of_the_mean():
    step = jgd.make_step(lambda w, batch: jnp.mean((w - batch) ** 2), OPTIMIZER, on_nonfinite="ignore")
    assert np.isnan(fit([*DATA, BAD], step)[1]["epoch_loss"][0])


@pytest.mark.parametrize("data", [DATA, jgd.ArrayLoader(np.float32([1, 3, 2, 2]), 2)])
def test_a_monitor_that_there_will_not_be_is_an_error_before_the_first_step(data):
    calls = []
    evaluate = lambda state: calls.append(1) or {"score": 1.0}  # noqa: E731
    for options in ({"patience": 1}, {"restore_best": True}):
        with pytest.raises(ValueError, match=r"monitor='acc' is not among the epoch's numbers: loss, nonfinite, bias"):
            fit(data, monitor="acc", **options)
        with pytest.raises(ValueError, match=r"monitor='acc' is .*: loss, nonfinite, bias, score") as caught:
            fit(data, monitor="-acc", eval_fn=evaluate, **options)
        assert int(caught.value.state.step) == 0
    assert len(calls) == 2
    with pytest.raises(ValueError, match=r"monitor='acc' is not .*: loss, nonfinite, bias. These are the means of"):
        fit(data, monitor="acc")
    _, history = fit(data, monitor="-bias")
    assert history["notices"] == ["monitor and min_delta have no effect without patience or restore_best."]
    assert fit(data, monitor="bias", patience=9)[1]["stopped"] == "finished"
    assert fit(data, monitor="-score", patience=9, eval_fn=evaluate)[1]["stopped"] == "finished"


@pytest.mark.parametrize(("options", "message"), [
    ({"patience": 0}, "patience must be None or a whole number of at least 1; got 0"),
    ({"patience": -1}, "patience must be None or a whole number of at least 1; got -1"),
    ({"patience": 2.5}, "patience must be None or a whole number of at least 1; got 2.5"),
    ({"tol": -1}, "tol must be None or a finite number of at least 0; got -1"),
    ({"tol": float("nan")}, "tol must be None or a finite number of at least 0; got nan"),
    ({"tol": "small"}, "tol must be None or a finite number of at least 0; got 'small'"),
    ({"min_delta": -0.1}, "min_delta must be a finite number of at least 0; got -0.1"),
    ({"min_delta": None}, "min_delta must be a finite number of at least 0; got None"),
])  # fmt: skip
def test_numbers_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        fit(**options)


def by_epoch(state):
    """The best are epochs 2 and, by less than 0.5, 3; then worse."""
    return {"score": [9.0, 5.0, 2.0, 1.8, 4.0, 4.0][max(0, int(state.step) // 2 - 1)]}


OPTIONS = {"eval_fn": by_epoch, "monitor": "score", "restore_best": True, "min_delta": 0.5}


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert jax.tree.map(lambda leaf: leaf.dtype, a) == jax.tree.map(lambda leaf: leaf.dtype, b)


@pytest.mark.parametrize("data", [DATA, jgd.ArrayLoader(np.float32([1, 3, 2, 2]), 2)])
def test_the_best_state_is_that_of_its_epoch(data):
    seen = {}
    keep = lambda state, summary: seen.update({summary["epoch"]: jax.tree.map(np.array, state)})  # noqa: E731
    state, history = fit(data, epochs=6, callbacks=[keep], **OPTIONS)
    equal(state, seen[2])
    assert (history["best_epoch"], history["best_step"], len(history["loss"])) == (2, 6, 12)
    state, history = fit(data, epochs=6, patience=1, **OPTIONS)
    equal(state, seen[2])
    assert (history["stopped"], len(history["epoch_score"])) == ("early_stopping", 4)
    assert STEP(state, DATA[0])[0].step == 7  # it may be donated
    assert int(fit(data, epochs=3, **OPTIONS)[0].step) == 6  # the last is the best


def test_there_may_be_no_best():
    state, history = fit(eval_fn=lambda _: {"score": np.nan}, monitor="score", restore_best=True)
    assert (int(state.step), history["best_epoch"]) == (6, -1)


@pytest.mark.parametrize("at", [3, 4, 5])
def test_the_best_state_is_known_after_a_resume(tmp_path, at):
    whole, whole_history = fit(epochs=6, **OPTIONS)
    checkpoints = jgd.Checkpoints(tmp_path, max_to_keep=1, every_epochs=None)
    fit(epochs=at, checkpoint_dir=checkpoints, **OPTIONS)
    state, history = fit(epochs=6, checkpoint_dir=jgd.Checkpoints(tmp_path, max_to_keep=1), **OPTIONS)
    equal(state, whole)
    assert history["best_epoch"] == whole_history["best_epoch"] == 2
    assert {path.name.split("-")[-1] for path in jgd.Checkpoints(tmp_path).paths()} == {"6", "12"}
    last = jgd.Checkpoints(tmp_path).restore(start()).state  # to go on from, the last is saved
    assert int(last.step) == 12


def test_a_best_state_that_is_gone_is_told_of(tmp_path, caplog):
    fit(epochs=4, checkpoint_dir=jgd.Checkpoints(tmp_path, max_to_keep=1), **OPTIONS | {"restore_best": False})
    options = OPTIONS | {"patience": 9}
    fit(epochs=5, checkpoint_dir=jgd.Checkpoints(tmp_path / "b", max_to_keep=1), **options | {"restore_best": False})
    caplog.clear()
    state, history = fit(epochs=6, checkpoint_dir=tmp_path / "b", **options)
    assert "the best state before this, after step 6, is not among the checkpoints" in caplog.text
    assert (history["best_epoch"], int(state.step)) == (5, 12)


def test_a_rollback_brings_back_the_best_state_of_before():
    values, bad, seen = [np.full(2, value, np.float32) for value in (1, 2)], {5}, iter([0.0, 1.0, 0.5, 3.0, 4.0, 4.0])

    def data(epoch):
        for i, value in enumerate(values):
            yield value * np.float32(np.nan if 2 * epoch + i in bad else 1)
        if epoch == 2:
            bad.clear()

    # The run goes back from step 5 to step 3: the best of epoch 1, 0.5, is undone, and that of epoch 0 counts again.
    options = {"monitor": "score", "eval_fn": lambda _: {"score": next(seen)}, "restore_best": True}
    state, history = fit(data, epochs=4, rollback=jgd.Rollback(every=3, factor=1.0), **options)
    assert history["epoch_score"].tolist() == [1.0, 3.0, 4.0, 4.0]
    assert (history["best_epoch"], history["best_step"], int(state.step)) == (0, 2, 2)
    equal(state, fit(data, epochs=1)[0])
