"""The log on disk: no run shortens another's, and none is doubled or lost."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import jgd
from jgd.train.loop._log import JsonlLog

OPTIMIZER = jgd.sgd(0.1)
STEP = jgd.make_step(lambda w, batch: jnp.mean((w - batch) ** 2), OPTIMIZER)
DATA = [np.float32([1, 3]), np.float32([2, 2]), np.float32([0, 4])]


def start():
    return jgd.TrainState.create(jnp.array(5.0), OPTIMIZER)


def fit(state, **options):
    return jgd.fit(state, STEP, DATA, **({"epochs": 2, "progress": False} | options))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def steps(path):
    return [line["step"] for line in lines(path) if line["kind"] == "step"]


def test_a_new_run_in_a_used_folder_sets_the_old_log_aside(tmp_path, capsys):
    fit(start(), log_dir=tmp_path)
    first = (tmp_path / "history.jsonl").read_bytes()
    fit(start(), log_dir=tmp_path, epochs=1)
    second = (tmp_path / "history.jsonl").read_bytes()
    fit(start(), log_dir=tmp_path, epochs=3, progress=True)
    assert (tmp_path / "history-1.jsonl").read_bytes() == first
    assert (tmp_path / "history-2.jsonl").read_bytes() == second
    assert steps(tmp_path / "history.jsonl") == list(range(9))
    assert f"fit: the log of an earlier run is now {tmp_path / 'history-2.jsonl'}.\n" in capsys.readouterr().out


def test_a_run_that_follows_upon_the_log_goes_on_with_it(tmp_path):
    state, _ = fit(start(), log_dir=tmp_path)
    fit(state, log_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["history.jsonl"]
    assert steps(tmp_path / "history.jsonl") == list(range(12))


def test_a_state_from_before_the_end_of_the_log_does_not_shorten_it(tmp_path):
    state, _ = fit(start(), epochs=1)
    fit(start(), log_dir=tmp_path)
    fit(state, log_dir=tmp_path)  # from step 3, while the log ends with step 5
    assert steps(tmp_path / "history-1.jsonl") == list(range(6))
    assert steps(tmp_path / "history.jsonl") == list(range(3, 9))


def test_a_last_line_cut_short_by_a_kill_is_not_written_behind(tmp_path):
    state, _ = fit(start(), log_dir=tmp_path)
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"kind": "st')
    fit(state, log_dir=tmp_path)
    assert steps(tmp_path / "history.jsonl") == list(range(6, 12))
    assert (tmp_path / "history-1.jsonl").read_text().endswith('{"kind": "st')


@pytest.mark.parametrize("text", ["", "a diary\n", "[1]\n", '{"kind": "step"}\n', "\x00\n", "\n\n"])
def test_a_file_of_that_name_that_is_no_log_is_kept(tmp_path, text):
    (tmp_path / "history.jsonl").write_text(text)
    state, _ = fit(start())
    fit(state, log_dir=tmp_path, epochs=1)
    assert steps(tmp_path / "history.jsonl") == [6, 7, 8]
    assert not text or (tmp_path / "history-1.jsonl").read_text() == text


def test_a_rollback_leaves_the_log_that_another_run_has_begun_since(tmp_path):
    one = JsonlLog(tmp_path, resumed=None, step=0)
    for step in range(4):
        one.write("step", {"step": step})
    other = JsonlLog(tmp_path, resumed=None, step=0)
    other.write("step", {"step": 0})
    other.write("step", {"step": 1})
    one.cut_back(1, 0, events=False)
    one.write("step", {"step": 1})
    one.close()
    other.close()
    assert steps(tmp_path / "history.jsonl") == [0, 1]
    assert steps(tmp_path / "history-1.jsonl") == [0, 1, 2, 3, 1]


def test_a_resumed_run_leaves_the_log_of_another_run_alone(tmp_path):
    fit(start(), log_dir=tmp_path / "log", checkpoint_dir=tmp_path / "one")
    own = steps(tmp_path / "log/history.jsonl")
    other = jgd.TrainState.create(jnp.array(7.0), OPTIMIZER)
    fit(other, log_dir=tmp_path / "log", checkpoint_dir=tmp_path / "two", epochs=4)
    others = (tmp_path / "log/history.jsonl").read_bytes()
    _, history = fit(start(), log_dir=tmp_path / "log", checkpoint_dir=tmp_path / "one", epochs=3)
    assert len(history["loss"]) == 9
    assert steps(tmp_path / "log/history-1.jsonl") == own == list(range(6))
    assert (tmp_path / "log/history-2.jsonl").read_bytes() == others
    assert steps(tmp_path / "log/history.jsonl") == [6, 7, 8]


def test_a_rollback_takes_out_lines_of_its_own_run_alone(tmp_path):
    first = JsonlLog(tmp_path, resumed=None, step=0)
    for step in range(3):
        first.write("step", {"step": step})
    first.write("epoch", {"epoch": 0})
    first.close()
    second = JsonlLog(tmp_path, resumed=None, step=3)
    second.write("step", {"step": 3})
    second.cut_back(3, 0, events=False)
    second.close()
    assert [line.get("step") for line in lines(tmp_path / "history.jsonl")] == [0, 1, 2, None]


def test_calls_that_go_on_count_on_in_the_log(tmp_path):
    state, data = start(), jgd.ArrayLoader(np.arange(6, dtype=np.float32), 2, seed=0)
    for _ in range(3):
        state, history = jgd.fit(state, STEP, data, epochs=1, progress=False, log_dir=tmp_path)
    assert steps(tmp_path / "history.jsonl") == list(range(9))
    epochs = [line["epoch"] for line in lines(tmp_path / "history.jsonl") if line["kind"] == "epoch"]
    assert epochs == [0, 1, 2]
    assert set(history["epoch"].tolist()) == {2}


def test_the_folder_is_found_from_the_home_and_its_parents_are_made(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    fit(start(), log_dir="~/a/b")
    assert steps(tmp_path / "a/b/history.jsonl") == list(range(6))


@pytest.mark.parametrize(("given", "kind", "message"), [
    (3, TypeError, r"fit: log_dir must be .*; got a int"),
    ("", ValueError, r"fit: log_dir='' is not a path"),
    ("file", OSError, r"fit: log_dir: cannot make the folder .*file \(File exists\)\."),
    ("file/in", OSError, r"fit: log_dir: cannot make the folder .*file/in \(Not a directory\)\."),
    ("taken", OSError, r"fit: log_dir: cannot write .*history.jsonl \(Is a directory\)\."),
])  # fmt: skip
def test_a_folder_that_cannot_be(tmp_path, monkeypatch, given, kind, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "taken/history.jsonl").mkdir(parents=True)
    with pytest.raises(kind, match=message):
        fit(start(), log_dir=given)
