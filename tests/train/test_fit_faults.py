"""What `fit` does where something fails: the right state, a line in the log, and nothing lost."""

import errno
import itertools
import json
import os
import signal
import time

import jax.numpy as jnp
import numpy as np
import pytest

import jgd
from jgd.train.checkpoints._files import CheckpointError
from jgd.train.checkpoints._folder import Checkpoints
from jgd.train.data._array_loader import ArrayLoader
from jgd.train.guards._guard import Guard
from jgd.train.loop._rollback import Rollback, RollbackError

OPTIMIZER = jgd.adam(0.1)
STEP = jgd.make_step(lambda w, batch: jnp.mean((w - batch) ** 2), OPTIMIZER)
DATA = [np.float32([1, 3]), np.float32([2, 2]), np.float32([0, 4])]
GUARD = Guard(max_skips=3)
GUARDED_STEP = jgd.make_step(
    lambda w, batch: jnp.mean((w["a"] - batch["x"]) ** 2), OPTIMIZER, on_nonfinite="skip", guard=GUARD
)


def start():
    return jgd.TrainState.create(np.float32(5), OPTIMIZER)


def fit(data=DATA, step=STEP, **options):
    return jgd.fit(start(), step, data, **({"epochs": 3, "progress": False} | options))


def lines(folder, kind):
    records = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == kind]


def params_after(steps):
    state = start()
    for i in range(steps):
        state, _ = STEP(state, DATA[i % 3])
    return float(state.params)


def failing(epoch):
    """Fails at the fifth step."""
    for i, batch in enumerate(DATA):
        if (epoch, i) == (1, 1):
            raise OSError("the disk with the data is gone")
        yield batch


def failing_callback(state, summary):
    if summary["epoch"] == 1:
        raise ZeroDivisionError("in a callback")


def failing_eval(state):
    return {"score": [1.0][int(state.step) // 3 - 1]}


@pytest.mark.parametrize(("options", "error", "steps", "epoch"), [
    ({"data": failing}, OSError, 4, 1),
    ({"data": failing, "prefetch": 2}, OSError, 4, 1),
    ({"callbacks": [failing_callback]}, ZeroDivisionError, 6, 1),
    ({"eval_fn": failing_eval}, IndexError, 6, 1),
])  # fmt: skip
def test_an_error_from_outside_keeps_what_was_trained_and_says_where(tmp_path, options, error, steps, epoch):
    with pytest.raises(error) as caught:
        fit(**options, checkpoint_dir=tmp_path, log_dir=tmp_path)
    found = caught.value
    assert float(found.state.params) == params_after(steps)
    assert len(found.history["loss"]) == steps
    assert f"in epoch {epoch}, counted from 0, after {steps} steps; what was trained so far" in found.__notes__[0]
    assert f"-step-{steps}" in found.__notes__[0]
    (line,) = lines(tmp_path, "error")
    assert (line["step"], line["epoch"], line["error"]) == (steps, epoch, error.__name__)
    assert len(lines(tmp_path, "step")) == steps
    state, history = fit(checkpoint_dir=tmp_path, log_dir=tmp_path)  # with the fault mended
    whole, whole_history = fit()
    assert float(state.params) == float(whole.params)
    np.testing.assert_array_equal(history["epoch_loss"], whole_history["epoch_loss"])
    assert [line["step"] for line in lines(tmp_path, "step")] == list(range(9))
    assert [line["step"] for line in lines(tmp_path, "resumed")] == [steps]
    assert len(lines(tmp_path, "error")) == 1


def test_an_error_without_checkpoints_carries_the_state():
    with pytest.raises(OSError, match="gone") as caught:
        fit(failing)
    assert float(caught.value.state.params) == params_after(4)


def test_sigterm_saves_at_the_next_step_boundary(tmp_path):
    before = signal.getsignal(signal.SIGTERM)

    def data(epoch):
        for i, batch in enumerate(DATA):
            if (epoch, i) == (1, 1):
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with pytest.raises(SystemExit) as caught:
        fit(data, checkpoint_dir=tmp_path)
    assert caught.value.code == 143
    assert (caught.value.history["stopped"], int(caught.value.state.step)) == ("interrupted", 5)
    assert Checkpoints(tmp_path).paths()[-1].name.endswith("-step-5")
    assert signal.getsignal(signal.SIGTERM) is before
    state, history = fit(checkpoint_dir=tmp_path)
    assert float(state.params) == params_after(9)
    assert history["stopped"] == "finished"


def test_a_full_disk_is_warned_of_and_training_goes_on(tmp_path, monkeypatch):
    calls, savez = [], np.savez

    def no_room(*args, **options):
        calls.append(1)
        if len(calls) in (2, 3):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        savez(*args, **options)

    monkeypatch.setattr(np, "savez", no_room)
    with pytest.warns(RuntimeWarning, match=r"goes on without a checkpoint: .*No space left") as caught:
        state, _ = fit(epochs=4, checkpoint_dir=tmp_path, log_dir=tmp_path)
    assert len(caught) == 2
    assert float(state.params) == params_after(12)
    assert [path.name.split("-")[-1] for path in Checkpoints(tmp_path).paths()] == ["3", "12"]
    assert len(lines(tmp_path, "checkpoint_failed")) == 2


def test_the_last_checkpoint_is_tried_again_where_it_failed(tmp_path, monkeypatch):
    calls, savez = [], np.savez

    def no_room(*args, **options):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        savez(*args, **options)

    monkeypatch.setattr(np, "savez", no_room)
    with pytest.warns(RuntimeWarning, match="No space left"):
        fit(checkpoint_dir=tmp_path)
    assert [path.name.split("-")[-1] for path in Checkpoints(tmp_path).paths()] == ["3", "6", "9"]


def test_a_folder_that_cannot_be_is_an_error_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("")
    drawn = []
    with pytest.raises(CheckpointError, match="cannot write checkpoints"):
        fit(lambda epoch: drawn.append(1) or DATA, checkpoint_dir=tmp_path / "file")
    assert not drawn


def test_a_damaged_newest_checkpoint_costs_an_epoch_and_nothing_else(tmp_path):
    fit(epochs=2, checkpoint_dir=tmp_path, log_dir=tmp_path)
    newest = Checkpoints(tmp_path).paths()[-1]
    (newest / "history.npz").write_bytes(b"")
    with pytest.warns(RuntimeWarning, match=r"step-3, as those after it are damaged .*history.npz has 0 bytes"):
        state, _ = fit(checkpoint_dir=tmp_path, log_dir=tmp_path)
    assert float(state.params) == params_after(9)
    assert [line["step"] for line in lines(tmp_path, "step")] == list(range(9))


def test_a_checkpoint_by_someone_else_is_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(start(), 0)
    checkpoints.wait()
    with pytest.raises(ValueError, match=r"was not saved by fit and says nothing of the position in the data"):
        fit(checkpoint_dir=tmp_path)


class Waiting(Checkpoints):
    """Checkpoints whose saves are never put off."""

    @property
    def busy(self):
        self.wait()
        return False


@pytest.mark.parametrize("scan", [True, False])
def test_saves_by_steps_and_by_time(tmp_path, scan):
    data = ArrayLoader(np.arange(21.0), 2, seed=0)
    checkpoints = Waiting(tmp_path / "steps", every_steps=4, every_epochs=None, max_to_keep=None)
    fit(data, checkpoint_dir=checkpoints, epochs=1, scan=scan)
    assert [path.name.split("-")[-1] for path in checkpoints.paths()] == ["4", "8", "11"]  # and where the run ends
    checkpoints = Waiting(tmp_path / "time", every_seconds=0.1, every_epochs=None, max_to_keep=None)
    fit((time.sleep(0.15) or batch for batch in DATA), checkpoint_dir=checkpoints, epochs=1)
    assert [path.name.split("-")[-1] for path in checkpoints.paths()] == ["1", "2", "3", "3"]


def test_a_run_that_had_converged_stays_so(tmp_path):
    options = {"epochs": 50, "patience": 2, "checkpoint_dir": tmp_path}
    state, history = fit([jnp.array([5.0])], **options)
    again, history_again = fit([jnp.array([5.0])], **options)
    assert history["stopped"] == history_again["stopped"] == "early_stopping"
    assert int(again.step) == int(state.step) < 50


def test_the_best_by_a_number_of_the_evaluation_is_kept(tmp_path):
    scores = iter([1.0, 5.0, 2.0, 3.0])
    checkpoints = Checkpoints(tmp_path, max_to_keep=1, best="-score")
    fit(checkpoint_dir=checkpoints, epochs=4, eval_fn=lambda state: {"score": next(scores)})
    assert checkpoints.best_path().name.endswith("-step-6")
    with pytest.raises(ValueError, match=r"best='accuracy' is not among the metrics: loss, nonfinite"):
        fit(checkpoint_dir=Checkpoints(tmp_path / "other", best="-accuracy"))


@pytest.mark.parametrize("kind", ["list", "loader", "scan"])
def test_a_rollback_leaves_out_the_batch_and_goes_on(tmp_path, kind):
    values = np.ones((9, 2), np.float32)
    values[4] = np.inf
    data = list(values[:, None]) if kind == "list" else ArrayLoader(values, 1, shuffle=False)
    options = {"scan": kind == "scan", "epochs": 1, "rollback": Rollback(every=2), "fetch_every": 3}
    state, history = fit(data, **options, checkpoint_dir=Checkpoints(tmp_path, every_steps=1), log_dir=tmp_path)
    assert int(state.step) == 8
    assert np.isfinite(history["loss"]).all()
    assert history["step"].tolist() == list(range(8))
    (event,) = lines(tmp_path, "rollback")
    assert event["skip"] == [4]
    (trouble,) = lines(tmp_path, "nonfinite")
    assert (trouble["step"], trouble["action"]) == (4, "stop")
    by_hand = start()
    for i, value in enumerate(np.delete(values, 4, 0)):
        if i == 4:
            by_hand = jgd.set_hyperparams(by_hand, learning_rate=0.05)
        by_hand, _ = STEP(by_hand, value[None])
    if event["to_step"] == 4:
        assert float(by_hand.params) == float(state.params)
    resumed, _ = fit(data, **(options | {"epochs": 2}), checkpoint_dir=tmp_path)
    assert int(resumed.step) == 16


@pytest.mark.parametrize("ends_at", [7, 9], ids=["before_it", "behind_it"])
def test_a_run_with_a_batch_left_out_resumes_within_the_epoch(tmp_path, ends_at):
    values = [np.full(2, value, np.float32) for value in (1, 2, 3, np.inf, 5, 6)]

    def data(ends_at=None):
        drawn = itertools.count(1)  # four, then from the start again: the run goes back by two steps

        def draw(epoch):
            for value in values:
                if next(drawn) == ends_at:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield value

        return draw

    options = {"epochs": 1, "rollback": Rollback(every=2), "fetch_every": 1}
    whole, whole_history = fit(data(), **options)
    fit(data(ends_at), **options, checkpoint_dir=tmp_path, on_interrupt="return")
    state, history = fit(data(), **options, checkpoint_dir=tmp_path)
    assert float(state.params) == float(whole.params)
    for name in ("step", "loss", "epoch_loss", "epoch_nonfinite"):
        np.testing.assert_array_equal(history[name], whole_history[name])


@pytest.mark.parametrize("scan", [True, False])
def test_what_a_guard_sees_is_in_the_log_and_its_memory_in_the_checkpoint(tmp_path, scan):
    arrays = {"x": np.ones(9, np.float32), "id": np.arange(100, 109)}
    arrays["x"][4] = np.nan

    def run(epochs):
        state = jgd.TrainState.create({"a": np.float32(0)}, OPTIMIZER, guard=GUARD)
        loader = ArrayLoader(arrays, 2, shuffle=False)
        options = {"checkpoint_dir": tmp_path, "log_dir": tmp_path, "progress": False, "scan": scan}
        return jgd.fit(state, GUARDED_STEP, loader, epochs=epochs, **options)

    run(1)
    state, _ = run(2)
    assert int(state.guard.skips) == 2
    events = [(line["step"], line["action"], line["leaf"], line["ids"]) for line in lines(tmp_path, "nonfinite")]
    assert events == [(2, "skip", "['a']", [104, 105]), (7, "skip", "['a']", [104, 105])]
    with pytest.raises(jgd.NonFiniteError, match="The guard allows no more"):
        run(5)
    assert [line["error"] for line in lines(tmp_path, "error")] == ["NonFiniteError"]


def test_rollbacks_are_bounded():
    with pytest.raises(RollbackError, match="rolled back 2 times"):
        fit([jnp.array([jnp.inf])] * 9, rollback=Rollback(retries=2))
