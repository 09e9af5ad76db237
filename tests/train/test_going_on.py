"""Calls of `fit` one after the other, on the state that the last one returned: together they are one longer run."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgd

OPTIMIZER = jgd.adam(0.1)
STEP = jgd.make_step(lambda w, batch: (jnp.mean((w - batch) ** 2), {"mean": jnp.mean(batch)}), OPTIMIZER, has_aux=True)
ARRAY = np.arange(10, dtype=np.float32)
LIST = [ARRAY[:4], ARRAY[4:]]


def start():
    return jgd.TrainState.create(np.float32(5), OPTIMIZER)


def fit(state, data, **options):
    return jgd.fit(state, STEP, data, **({"epochs": 1, "progress": False} | options))


def loader(**options):
    return jgd.ArrayLoader(ARRAY, 4, seed=3, **options)


def by_epoch(epoch):
    return [LIST[i] for i in np.random.default_rng(epoch).permutation(2)]


class Shuffled:
    """An iterable that orders itself anew each time, as a loader of another library."""

    def __iter__(self):
        yield from LIST


@pytest.mark.parametrize("options", [{"scan": True}, {"scan": False}, {"scan": False, "prefetch": 2}])
@pytest.mark.parametrize("make", [loader, lambda: by_epoch, lambda: lambda epoch: by_epoch(epoch), lambda: LIST])
def test_three_calls_of_an_epoch_are_one_of_three(make, options):
    data = make()
    options = options if isinstance(data, jgd.ArrayLoader) else options | {"scan": "auto"}
    whole, whole_history = fit(start(), make(), epochs=3, **options)
    state, histories = start(), []
    for _ in range(3):
        state, history = fit(state, data, **options)
        histories.append(history)
    jax.tree.map(np.testing.assert_array_equal, state, whole)
    for name in ("step", "epoch", "loss", "mean", "epoch_loss"):
        np.testing.assert_array_equal(np.concatenate([history[name] for history in histories]), whole_history[name])
    assert [history["epoch"][0] for history in histories] == [0, 1, 2]


def test_the_numbers_go_on_for_data_that_orders_itself_and_for_data_that_is_made_anew():
    one = Shuffled()
    for make in (lambda: one, lambda: lambda epoch: by_epoch(epoch), lambda: list(LIST)):
        state, epochs = start(), []
        for _ in range(2):
            state, history = fit(state, make())
            epochs.append(history["epoch"].tolist())
        assert epochs == [[0, 0], [1, 1]]


def test_callbacks_and_changed_hyperparameters_see_the_epoch_go_on():
    data, state, seen = loader(), start(), []
    for _ in range(2):
        state, _ = fit(state, data, epochs=2, callbacks=[lambda _, summary: seen.append(summary["epoch"])])
        state = jgd.set_hyperparams(state, learning_rate=0.01)
    assert seen == [0, 1, 2, 3]
    assert data.state()["epoch"] == 4
    assert next(iter(data)).tolist() == ARRAY[loader().indices(4, 0)].tolist()


def test_a_run_does_not_depend_on_what_the_loader_was_used_for_before():
    data = loader()
    first, _ = fit(start(), data, epochs=2)
    again, history = fit(start(), data, epochs=2)
    assert history["epoch"][0] == 0
    jax.tree.map(np.testing.assert_array_equal, first, again)
    list(data), next(iter(data))
    jax.tree.map(np.testing.assert_array_equal, fit(start(), data, epochs=2)[0], first)
    # Two runs in turn over one loader.
    a, b = start(), start()
    for _ in range(2):
        (a, _), (b, _) = fit(a, data), fit(b, data)
    jax.tree.map(np.testing.assert_array_equal, a, first)
    jax.tree.map(np.testing.assert_array_equal, b, first)
    other = loader()
    assert fit(a, other)[1]["epoch"][0] == 0  # other data begins at its start


def test_a_position_that_was_asked_for_is_where_it_begins():
    data = loader()
    data.seek(3, 1)
    state, history = fit(start(), data, epochs=2)
    assert history["epoch"].tolist() == [3, 3, 4, 4, 4]
    data.restore(data.state())
    assert fit(state, data)[1]["epoch"].tolist() == [5, 5, 5]
    assert fit(start(), data)[1]["epoch"].tolist() == [0, 0, 0]


class Interrupting(jgd.ArrayLoader):
    at = (-1, -1)

    def batch(self, epoch, batch):
        if (epoch, batch) == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        return super().batch(epoch, batch)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_call_after_an_interruption_goes_on_within_the_epoch(prefetch):
    whole, whole_history = fit(start(), loader(), epochs=3)
    data = Interrupting(ARRAY, 4, seed=3)
    data.at = (1, 1 + prefetch) if prefetch == 0 else (1, 2)
    state, history = fit(start(), data, epochs=3, prefetch=prefetch)
    made = len(history["loss"])
    assert 3 <= made < 6
    data.at = (-1, -1)
    rest, rest_history = fit(state, data, epochs=3 - len(history["epoch_loss"]), prefetch=prefetch)
    jax.tree.map(np.testing.assert_array_equal, rest, whole)
    np.testing.assert_array_equal(rest_history["loss"], whole_history["loss"][made:])
    assert rest_history["epoch_loss"][-1] == whole_history["epoch_loss"][-1]


def test_with_checkpoints_the_epochs_are_those_of_the_whole_run(tmp_path):
    data = loader()
    state, _ = fit(start(), data, epochs=2)
    whole, whole_history = fit(start(), loader(), epochs=4)
    fit(state, data, epochs=1, checkpoint_dir=tmp_path, log_dir=tmp_path)  # epoch 2
    resumed, history = fit(start(), loader(), epochs=2, checkpoint_dir=tmp_path, log_dir=tmp_path)  # and 3
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    np.testing.assert_array_equal(history["loss"], whole_history["loss"][6:])
    assert history["epoch"].tolist() == [2, 2, 2, 3, 3, 3]


def test_the_best_state_goes_on_from_its_own_epoch():
    scores = [3.0, 1.0, 2.0, 2.0]
    options = {"monitor": "score", "eval_fn": lambda state: {"score": scores[int(state.step) // 3 - 1]}}
    data = loader()
    state, _ = fit(start(), data, epochs=4, restore_best=True, **options)
    assert int(state.step) == 6
    assert fit(state, data)[1]["epoch"][0] == 2


def test_one_log_holds_them_all(tmp_path):
    state, data = start(), loader()
    for _ in range(2):
        state, _ = fit(state, data, log_dir=tmp_path)
    text = (tmp_path / "history.jsonl").read_text()
    assert (text.count('"kind": "step"'), text.count('"kind": "epoch"')) == (6, 2)
    assert '"epoch": 1' in text
