"""The loop: what it returns, records and shows, when it stops, and what it does not do."""

import json
import os
import re
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgd

OPTIMIZER = jgd.sgd(0.1, momentum=0.5)


def loss_fn(w, batch):
    return jnp.mean((w - batch) ** 2), {"bias": jnp.mean(w - batch), "each": w - batch}


STEP = jgd.make_step(loss_fn, OPTIMIZER, has_aux=True)
DATA = [jnp.array([1.0, 3.0]), jnp.array([2.0, 2.0]), jnp.array([0.0, 4.0])]


def start():
    return jgd.TrainState.create(jnp.array(5.0), OPTIMIZER)


def fit(data=DATA, **options):
    return jgd.fit(start(), STEP, data, **({"epochs": 2, "progress": False} | options))


def test_the_result_equals_a_loop_by_hand():
    state, history = fit()
    by_hand, losses = start(), []
    for batch in DATA * 2:
        by_hand, metrics = STEP(by_hand, batch)
        losses.append(metrics["loss"])
    np.testing.assert_array_equal(state.params, by_hand.params)
    np.testing.assert_array_equal(history["loss"], losses)


def test_the_history_holds_plain_arrays():
    _, history = fit(eval_fn=lambda state: {"distance": jnp.abs(state.params - 2)})
    assert history["step"].tolist() == list(range(6))
    assert history["epoch"].tolist() == [0, 0, 0, 1, 1, 1]
    for name in ("loss", "grad_norm", "update_norm", "param_norm", "learning_rate", "finite", "bias"):
        assert type(history[name]) is np.ndarray
        assert history[name].shape == (6,)
    assert history["epoch_distance"].shape == history["epoch_loss"].shape == (2,)
    np.testing.assert_allclose(history["epoch_loss"][1], np.mean(history["loss"][3:]), rtol=1e-6)
    np.testing.assert_allclose(history["epoch_bias"][0], np.mean(history["bias"][:3]), rtol=1e-6)
    assert history["stopped"] == "finished"
    assert "each" not in history


@pytest.mark.parametrize("scan", [False, True])
def test_a_scalar_of_aux_may_have_any_name(scan):
    step = jgd.make_step(
        lambda w, batch: (jnp.mean((w - batch) ** 2), {"bad": w, "bad_leaf": 2 * w}), OPTIMIZER, has_aux=True
    )
    loader = jgd.ArrayLoader(np.zeros(4, np.float32), 2)
    _, history = jgd.fit(start(), step, loader, epochs=1, scan=scan, progress=False)
    assert history["bad"][0] == 5.0
    assert history["bad_leaf"][0] == 10.0


def test_the_log_is_json_line_by_line(tmp_path):
    fit(log_dir=tmp_path, eval_fn=lambda state: {"nothing": jnp.nan})
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["step"] * 3 + ["epoch"] + ["step"] * 3 + ["epoch"]
    assert lines[0]["step"] == 0
    assert lines[0]["finite"] is True
    assert lines[3]["nothing"] is None
    assert lines[3]["step"] == 3


def test_it_fetches_now_and_then_and_not_each_step(monkeypatch):
    calls, fetch = [], jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda tree: calls.append(1) or fetch(tree))
    fit(DATA * 10, epochs=1, fetch_every=10)
    assert len(calls) <= 5  # after 10, 20 and 30 steps, at the end of the epoch and at the end of the run


def test_it_stops_when_the_gradient_is_small():
    state, history = fit([jnp.array([2.0])], epochs=500, tol=1e-4)
    assert history["stopped"] == "converged"
    assert history["grad_norm"][-1] <= 1e-4 < history["grad_norm"][-2]
    assert len(history["epoch_loss"]) == len(history["loss"])
    assert float(state.params) == pytest.approx(2.0, abs=1e-3)


def test_it_stops_when_a_number_no_longer_falls():
    _, history = fit(epochs=500, patience=3)
    assert history["stopped"] == "early_stopping"
    assert len(history["epoch_loss"]) < 100
    falling = iter(np.linspace(1.0, 0.6, 11))
    _, history = fit(epochs=11, patience=2, min_delta=0.1, monitor="score", eval_fn=lambda _: {"score": next(falling)})
    assert len(history["epoch_loss"]) == 3  # none falls by as much as counts
    rising = iter(range(100))
    _, history = fit(epochs=50, patience=2, monitor="-score", eval_fn=lambda state: {"score": next(rising)})
    assert history["stopped"] == "finished"


def test_a_callback_sees_each_epoch_and_may_end_the_run():
    seen = []

    def callback(state, summary):
        seen.append((summary["epoch"], summary["step"], float(state.params)))
        return summary["epoch"] == 1

    _, history = fit(epochs=10, callbacks=[callback])
    assert [row[:2] for row in seen] == [(0, 3), (1, 6)]
    assert history["stopped"] == "callback"


def test_data_may_be_a_function_of_the_epoch():
    asked = []
    fit(lambda epoch: asked.append(epoch) or DATA[: epoch + 1], epochs=3)
    assert asked == [0, 1, 2]


@pytest.mark.parametrize(("data", "message"), [
    ([], r"fit: the data held no batch in epoch 0; expected at least one"),
    (iter(DATA), r"fit: no batch in epoch 1: the data is an iterator, which can be gone through once"),
    (lambda epoch: DATA if epoch == 0 else [], r"fit: the data held no batch in epoch 1"),
])  # fmt: skip
def test_data_without_batches(data, message):
    with pytest.raises(ValueError, match=message):
        fit(data)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"epochs": 1.5}, {"epochs": True}, {"fetch_every": 0}])
def test_a_count_that_cannot_be(options):
    with pytest.raises(ValueError, match=r"fit: \w+ must be a whole number of at least 1; got"):
        fit(**options)


def test_a_step_from_elsewhere():
    with pytest.raises(TypeError, match=r"fit: expected the step that make_step returned; got a function"):
        jgd.fit(start(), lambda state, batch: (state, {}), DATA, epochs=1)


def test_a_line_for_each_epoch(capsys):
    fit(progress=True)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [line.split("  ")[0] for line in lines] == ["epoch 0 (1 of 2)", "epoch 1 (2 of 2)"]
    assert re.search(r"  loss \d\.\d{4}  .* s  .* steps?", lines[0])


def test_ctrl_c_ends_the_run_after_the_step_at_hand():
    before = signal.getsignal(signal.SIGINT)

    def data(epoch):
        for i, batch in enumerate(DATA * 3):
            if (epoch, i) == (1, 4):
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    state, history = fit(data, epochs=5)
    assert history["stopped"] == "interrupted"
    assert len(history["loss"]) == int(state.step) == 9 + 5
    assert np.isfinite(float(state.params))
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_that_the_data_raises_ends_the_run_too():
    def data(epoch):
        yield DATA[0]
        raise KeyboardInterrupt

    state, history = fit(data)
    assert (history["stopped"], len(history["loss"]), int(state.step)) == ("interrupted", 1, 1)


def test_a_second_ctrl_c_raises():
    def data(epoch):
        yield DATA[0]
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        yield DATA[1]

    with pytest.raises(KeyboardInterrupt):
        fit(data)


@pytest.mark.parametrize(("module", "options", "message"), [
    ("tqdm.auto", {"progress": True}, r"progress bar of fit .* needs tqdm, .*pip install 'jgd\[train\]'"),
    ("orbax.checkpoint", {"checkpoint_dir": "x"}, r"a checkpoint needs orbax, .*pip install 'jgd\[train\]'"),
])  # fmt: skip
def test_a_missing_extra_is_named(monkeypatch, tmp_path, module, options, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=message):
        fit(**options)


def test_a_resumed_run_equals_one_that_was_not_interrupted(tmp_path):
    def data(epoch):
        order = np.random.default_rng(epoch).permutation(3)
        return [DATA[i] for i in order]

    whole, whole_history = fit(data, epochs=4)
    fit(data, epochs=2, checkpoint_dir=tmp_path, log_dir=tmp_path / "log")
    assert sorted(path.name for path in tmp_path.glob("*-step-*")) == ["000000-step-3", "000001-step-6"]
    resumed, history = fit(data, epochs=4, checkpoint_dir=tmp_path, log_dir=tmp_path / "log")
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    for name, values in whole_history.items():  # the history is that of the whole run
        np.testing.assert_array_equal(history[name], values)
    lines = [json.loads(line) for line in (tmp_path / "log/history.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines].count("step") == 4 * 3
    assert [line["kind"] for line in lines].count("epoch") == 4
    _, fresh = fit(data, epochs=1, checkpoint_dir=tmp_path, resume=False)
    assert fresh["step"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint_dir": 3}, "checkpoint_dir must be None, a folder or a jgd.Checkpoints; got a int"),
        ({"rollback": True}, "rollback must be None or a jgd.Rollback; got a bool"),
    ],
)
def test_an_option_of_another_type(options, message):
    with pytest.raises(TypeError, match=message):
        fit(**options)
