"""What a person is told of a run that goes on, is over, or was interrupted; and what a job scheduler sees."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jgd

DATA = [np.float32([1, 3]), np.float32([2, 2]), np.float32([0, 4])]


def loss_fn(w, batch):
    return jnp.mean((w - batch) ** 2)


def keyed_loss_fn(w, batch, key):
    return jnp.mean((w - batch) ** 2)


ADAM = jgd.adam(0.1)
STEP = jgd.make_step(loss_fn, ADAM)
KEYED_STEP = jgd.make_step(keyed_loss_fn, ADAM)


def start(rate=0.1, **options):
    return jgd.set_hyperparams(jgd.TrainState.create(np.float32(5), ADAM, **options), learning_rate=rate)


def fit(folder, state=None, step=STEP, data=DATA, **options):
    state = start() if state is None else state
    return jgd.fit(state, step, data, **({"epochs": 2, "progress": False, "checkpoint_dir": folder} | options))


def rate_of(state):
    return round(float(jgd.get_hyperparams(state)["learning_rate"]), 6)


def warned(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_resumption_is_told_of_where_it_is_seen(tmp_path, capsys, caplog):
    caplog.set_level(logging.INFO, "jgd")
    fit(tmp_path, epochs=1)
    assert not caplog.records
    _, history = fit(tmp_path, epochs=2, log_dir=tmp_path / "log")
    (text,) = history["notices"]
    assert text == f"resumed from step 3, epoch 1, as saved in {tmp_path / '000000-step-3'}"
    assert [record.getMessage() for record in caplog.records] == [f"fit: {text}"]
    assert capsys.readouterr().out == ""
    lines = [json.loads(line) for line in (tmp_path / "log/history.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines if line["kind"] == "notice"] == [text]
    fit(tmp_path, epochs=3, progress=True)
    assert capsys.readouterr().out.splitlines()[0].startswith("fit: resumed from step 6, epoch 2, as saved in ")
    assert warned(caplog) == []
    fit(tmp_path, start(0.5), epochs=4, progress=True)  # what was printed is not printed once more by the logger
    assert "fit: the checkpoint's hyperparameters are used" in capsys.readouterr().out
    assert warned(caplog) == []


def test_a_place_within_an_epoch_is_told_of(tmp_path):
    def data(epoch):
        yield DATA[0]
        yield DATA[1]
        raise KeyboardInterrupt

    fit(tmp_path, data=data)
    assert fit(tmp_path)[1]["notices"][0].startswith("resumed from step 2, epoch 0, batch 2, as saved in ")


def test_a_changed_learning_rate_is_told_of_and_may_be_chosen(tmp_path, caplog):
    fit(tmp_path, epochs=1)
    state, history = fit(tmp_path, start(0.5))
    assert rate_of(state) == 0.1
    (text,) = [text for text in history["notices"] if "hyperparameters" in text]
    assert text == (
        "the checkpoint's hyperparameters are used, not those of the state given: learning_rate 0.1, not 0.5."
        " resume='hyperparams' takes those given."
    )
    assert f"fit: {text}" in warned(caplog)
    assert any("hyperparameters" in text for text in fit(tmp_path, start(0.5), epochs=3)[1]["notices"])  # each time

    state, history = fit(tmp_path, start(0.5), epochs=4, resume="hyperparams")
    assert rate_of(state) == 0.5
    assert "hyperparameters are those of the state given: learning_rate 0.5, was 0.1." in history["notices"]
    by_hand = start()
    for i in range(12):
        by_hand, _ = STEP(by_hand if i != 9 else jgd.set_hyperparams(by_hand, learning_rate=0.5), DATA[i % 3])
    assert float(by_hand.params) == float(state.params)
    state, history = fit(tmp_path, start(0.5), epochs=5)  # it is now the run's own
    assert (rate_of(state), [text for text in history["notices"] if "hyperparameters" in text]) == (0.5, [])
    state, history = fit(tmp_path, start(0.5), epochs=1, resume=False)
    assert int(state.step) == 3
    (text,) = history["notices"]
    assert text == "a new run; the folder holds 3 checkpoints of other runs, which stay."


def test_what_the_run_itself_has_changed_is_no_difference(tmp_path):
    spoiled = [DATA[0], np.float32([np.inf, 1]), DATA[2]]
    state, _ = fit(tmp_path, data=spoiled, epochs=1, rollback=jgd.Rollback(every=1))
    assert rate_of(state) == 0.05
    _, history = fit(tmp_path, data=spoiled, epochs=1)
    assert not any("hyperparameters" in text for text in history["notices"])


def test_a_schedule_is_code_and_no_difference_where_it_was_followed(tmp_path):
    optimizer = jgd.adam(jgd.schedules.cosine_decay_schedule(0.1, 9))
    step = jgd.make_step(loss_fn, optimizer)
    make = lambda: jgd.TrainState.create(np.float32(5), optimizer)  # noqa: E731
    fit(tmp_path, make(), step, epochs=1)
    _, history = fit(tmp_path, make(), step)
    assert len(history["notices"]) == 1
    scaled = jgd.set_hyperparams(make(), learning_rate_scale=2.0)
    state, history = fit(tmp_path, scaled, step, epochs=3, resume="hyperparams")
    assert "hyperparameters are those of the state given: learning_rate_scale 2, was 1." in history["notices"]
    assert float(jgd.get_hyperparams(state)["learning_rate_scale"]) == 2


def test_a_schedule_of_optax_is_none_either(tmp_path):
    def run(rate, epochs, **options):
        optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=optax.exponential_decay(rate, 10, 0.5), b1=rate)
        state = jgd.TrainState.create(np.float32(5), optimizer)
        step = jgd.make_step(loss_fn, optimizer)
        return fit(tmp_path, state, step, epochs=epochs, **options)[1].get("notices", [])

    run(0.1, 1)
    (text,) = run(0.5, 2)[1:]
    assert text.startswith("the checkpoint's hyperparameters are used, not those of the state given: b1 0.1, not 0.5. ")
    (text,) = run(0.5, 3, resume="hyperparams")[1:]
    assert text == "hyperparameters are those of the state given: b1 0.5, was 0.1."


def test_another_optimizer_whose_state_fits_is_told_of(tmp_path):
    def run(optimizer, epochs):
        state = jgd.TrainState.create(np.float32(5), optimizer)
        return fit(tmp_path, state, jgd.make_step(loss_fn, optimizer), epochs=epochs)[1].get("notices", [])

    assert run(jgd.adam(0.1), 1) == []
    (text,) = run(jgd.nadam(0.1), 2)[1:]
    assert text.startswith(
        "the optimizer is jgd.nadam(learning_rate=..., b1=..., b2=..., eps=..., eps_root=...), and was"
    )
    assert text.endswith(
        "and was jgd.adam(learning_rate=..., b1=..., b2=..., eps=..., eps_root=...): it goes on with the"
        " state that the other one has left."
    )
    assert len(run(jgd.nadam(0.1), 3)) == 1
    with pytest.raises(ValueError, match="does not fit the state given") as caught:
        run(jgd.lion(0.1), 4)
    assert "another checkpoint_dir, or with resume=False" in caught.value.__notes__[0]


def test_another_seed_is_told_of(tmp_path):
    fit(tmp_path, start(key=1), KEYED_STEP, epochs=1)
    _, history = fit(tmp_path, start(key=2), KEYED_STEP)
    assert "the checkpoint's random key is used, not that of the state given." in history["notices"]
    assert len(fit(tmp_path, start(key=1), KEYED_STEP, epochs=3)[1]["notices"]) == 1


def test_a_guards_numbers_are_settings_too(tmp_path):
    def run(most, **options):
        guard = jgd.Guard(max_skips=most)
        step = jgd.make_step(loss_fn, ADAM, on_nonfinite="skip", guard=guard)
        return fit(tmp_path, jgd.TrainState.create(np.float32(5), ADAM, guard=guard), step, **options)

    run(3, epochs=1)
    state, history = run(5)
    assert int(state.guard.settings["max_skips"]) == 3
    assert any("guard.settings.max_skips 3, not 5" in text for text in history["notices"])
    state, _ = run(5, epochs=3, resume="hyperparams")
    assert int(state.guard.settings["max_skips"]) == 5
    assert int(state.step) == 9


def test_a_state_that_was_trained_elsewhere_is_not_dropped_in_silence(tmp_path):
    fit(tmp_path, epochs=1)
    state, _ = jgd.fit(start(), STEP, DATA, epochs=5, progress=False)
    _, history = fit(tmp_path, state)
    assert any("the state given, of step 15, is not used" in text for text in history["notices"])


@pytest.mark.parametrize(("options", "again", "reason"), [
    ({"epochs": 2}, {}, "2 epochs are done."),
    ({"epochs": 2}, {"epochs": 1}, "2 epochs are done, and epochs=1."),
    ({"epochs": 9, "patience": 1, "min_delta": 1e9}, {}, r"loss had not improved for 1 epochs (early_stopping)."),
    ({"epochs": 9, "tol": 1e9}, {"tol": 2e9}, "the gradient norm had reached tol=2e+09."),
])  # fmt: skip
def test_a_run_that_was_over_says_so(tmp_path, caplog, options, again, reason):
    state, history = fit(tmp_path, **options)
    over, history_again = fit(tmp_path, **options | again)
    assert f"nothing is left to do: {reason} The state returned is that of the checkpoint." in warned(caplog)[-1]
    jax.tree.map(np.testing.assert_array_equal, over, state)
    assert history_again["stopped"] == history["stopped"]


def test_a_stricter_tolerance_goes_on(tmp_path):
    fit(tmp_path, epochs=9, tol=1e9)
    assert fit(tmp_path, epochs=2, tol=1e-9)[1]["stopped"] == "finished"


def test_patience_begins_anew_with_another_monitor(tmp_path):
    scores = {"eval_fn": lambda state: {"score": 1e6}}  # worse than any loss
    fit(tmp_path, epochs=3, patience=9, **scores)
    _, history = fit(tmp_path, epochs=6, patience=3, monitor="score", **scores)
    assert (history["stopped"], len(history["epoch_score"])) == ("finished", 6)


@pytest.mark.parametrize("resume", ["yes", 1, None, "State"])
def test_a_way_to_go_on_that_there_is_not(tmp_path, resume):
    with pytest.raises(ValueError, match=r"fit: resume must be True, False, 'state' or 'hyperparams'; got"):
        fit(tmp_path, resume=resume)


def interrupting(number):
    def data(epoch):
        for i, batch in enumerate(DATA):
            if (epoch, i) == (1, 1):
                os.kill(os.getpid(), number)
            yield batch

    return data


def test_an_interruption_is_told_of(tmp_path, caplog):
    _, history = fit(None, data=interrupting(signal.SIGINT))
    assert history["stopped"] == "interrupted"
    assert history["notices"] == [
        "interrupted by Ctrl-C at step 5, epoch 1, batch 2. The state so far is returned; nothing is saved, as there is"
        " no checkpoint_dir."
    ]
    assert warned(caplog) == [f"fit: {history['notices'][0]}"]
    _, history = fit(tmp_path, data=interrupting(signal.SIGINT))
    assert history["notices"][0].endswith("batch 2. All is saved: the same call goes on from here.")


def test_how_an_interruption_ends(tmp_path):
    def stop(number, how):
        return fit(tmp_path, data=interrupting(number), on_interrupt=how, resume=False)[1]["stopped"]

    assert stop(signal.SIGINT, "auto") == stop(signal.SIGINT, "return") == stop(signal.SIGTERM, "return")
    with pytest.raises(KeyboardInterrupt) as interrupt:
        stop(signal.SIGINT, "exit")
    with pytest.raises(SystemExit) as caught:
        stop(signal.SIGTERM, "exit")
    assert caught.value.code == 143
    assert int(interrupt.value.state.step) == int(caught.value.state.step) == 5
    assert interrupt.value.history["stopped"] == "interrupted"
    with pytest.raises(ValueError, match="on_interrupt must be one of 'auto', 'return', 'exit'; got 'stop'"):
        stop(signal.SIGINT, "stop")


def test_a_programs_own_handler_of_sigterm_is_called_once_all_is_saved(tmp_path):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(len(jgd.Checkpoints(tmp_path).paths())))
    try:
        _, history = fit(tmp_path, data=interrupting(signal.SIGTERM))
        assert (history["stopped"], seen) == ("interrupted", [2])
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert fit(tmp_path, data=interrupting(signal.SIGTERM), resume=False)[1]["stopped"] == "finished"
    finally:
        signal.signal(signal.SIGTERM, before)


PROGRAM = """
import os, signal, sys
import numpy as np, jax.numpy as jnp, jgd
number, how, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
def data(epoch):
    for i in range(3):
        if (epoch, i) == (1, 1) and number:
            os.kill(os.getpid(), number)
        yield np.float32([1, 3])
adam = jgd.adam(0.1)
step = jgd.make_step(lambda w, batch: jnp.mean((w - batch) ** 2), adam)
state = jgd.TrainState.create(np.float32(5), adam)
options = {"progress": False, "checkpoint_dir": folder, "on_interrupt": how}
state, history = jgd.fit(state, step, data, epochs=2, **options)
print(history["stopped"], int(state.step))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "how", "status", "out"), [
    (signal.SIGTERM, "auto", 143, ""),
    (signal.SIGTERM, "return", 0, "interrupted 5\n"),
    (signal.SIGINT, "auto", 0, "interrupted 5\n"),
    (signal.SIGINT, "exit", -signal.SIGINT, ""),
])  # fmt: skip
def test_what_a_job_scheduler_sees(tmp_path, number, how, status, out):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(jgd.__file__).parents[1])}
    command = [sys.executable, "-c", PROGRAM, str(int(number)), how, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (status, out), done.stderr
    assert f"fit: interrupted by {'Ctrl-C' if number == signal.SIGINT else 'SIGTERM'} at step 5" in done.stderr
    assert jgd.Checkpoints(tmp_path).paths()[-1].name.endswith("-step-5")
