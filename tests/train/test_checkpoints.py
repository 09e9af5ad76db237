"""A folder of checkpoints: which are kept, which is read; damage, a full disk, a wrong folder."""

import errno
import os
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest

import jgd
from jgd.train.checkpoints import _folder
from jgd.train.checkpoints._files import CheckpointError
from jgd.train.checkpoints._folder import Checkpoints

OPTIMIZER = jgd.adam(0.1)


def state_at(step):
    state = jgd.TrainState.create({"w": np.arange(4, dtype=np.float32) + np.float32(step)}, OPTIMIZER)
    return state._replace(step=jnp.asarray(np.int32(step)))


def saved(folder, steps=(1, 2, 3), **options):
    checkpoints = Checkpoints(folder, **options)
    for step in steps:
        checkpoints.save(state_at(step), step, metrics={"accuracy": [0.0, 0.1, 0.9, 0.5, float("nan")][step]})
    checkpoints.wait()
    return checkpoints


def steps_in(checkpoints):
    return [int(path.name.split("-")[-1]) for path in checkpoints.paths()]


@pytest.mark.parametrize(("options", "kept"), [
    ({"max_to_keep": 1}, [4]),
    ({"max_to_keep": 2}, [3, 4]),
    ({"max_to_keep": None}, [1, 2, 3, 4]),
    ({"max_to_keep": 1, "best": "accuracy"}, [1, 4]),
    ({"max_to_keep": 1, "best": "-accuracy"}, [2, 4]),  # the NaN of step 4 is not the best
])  # fmt: skip
def test_the_newest_and_the_best_are_kept(tmp_path, options, kept):
    assert steps_in(saved(tmp_path, (1, 2, 3, 4), **options)) == kept
    assert not list(tmp_path.glob(".*"))


def test_the_best_is_read_where_it_is_asked_for(tmp_path):
    checkpoints = saved(tmp_path, max_to_keep=1, best="-accuracy")
    assert checkpoints.restore(state_at(0), best=True).record["step"] == 2
    assert checkpoints.restore(state_at(0)).record["step"] == 3
    with pytest.raises(ValueError, match=r"best='accuracy' is not among the metrics: loss"):
        checkpoints.save(state_at(4), 4, metrics={"loss": 1.0})


def test_what_was_saved_with_it_comes_back(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new" / "folder")
    assert checkpoints.restore(state_at(0)) is None
    history = {"loss": np.float32([1, 2]), "low": np.asarray(jnp.array([1, 2], jnp.bfloat16)), "none": np.zeros(0)}
    checkpoints.save(state_at(7), 7, extra={"place": [1, 2, {"epoch": 1}]}, history=history)
    found = checkpoints.restore(state_at(0))
    jax.tree.map(np.testing.assert_array_equal, found.state, state_at(7))
    assert found.record["extra"] == {"place": [1, 2, {"epoch": 1}]}
    assert found.record["versions"]["jax"] == jax.__version__
    for name, values in history.items():
        assert found.history[name].dtype == values.dtype
        np.testing.assert_array_equal(found.history[name], values)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def largest(folder):
    return max((path for path in (folder / "state").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize(("which", "damage", "reason"), [
    (largest, flip, "has changed since it was written"),
    (largest, cut, "bytes;"),
    (lambda folder: folder / "record.json", flip, "record.json has changed"),
    (lambda folder: folder / "history.npz", lambda path: path.unlink(), "history.npz is missing"),
    (lambda folder: folder / "manifest.json", lambda path: path.unlink(), "manifest.json cannot be read"),
    (lambda folder: folder / "manifest.json", cut, "manifest.json cannot be read"),
    (lambda folder: folder / "manifest.json", flip, "(file|manifest)"),
])  # fmt: skip
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, which, damage, reason):
    checkpoints = saved(tmp_path)
    damage(which(checkpoints.paths()[-1]))
    with pytest.warns(RuntimeWarning, match=rf"000001-step-2, as .* damaged \(000002-step-3: .*{reason}"):
        found = checkpoints.restore(state_at(0))
    np.testing.assert_array_equal(found.state.params["w"], state_at(2).params["w"])
    with pytest.raises(CheckpointError, match=reason):
        jgd.restore_checkpoint(checkpoints.paths()[-1], state_at(0))
    checkpoints.save(state_at(4), 4)  # the damaged one makes room
    checkpoints.wait()
    assert steps_in(checkpoints) == [1, 2, 4]


def test_every_flipped_byte_is_seen(tmp_path):
    (path,) = saved(tmp_path, [1]).paths()
    rng = np.random.default_rng(0)
    for file in sorted(path.rglob("*")):
        if file.is_file():
            content = file.read_bytes()
            for position in rng.integers(0, len(content), 3):
                changed = bytearray(content)
                changed[position] ^= 1 << rng.integers(8)
                file.write_bytes(changed)
                with pytest.raises(CheckpointError, match="is damaged"):
                    jgd.restore_checkpoint(path, state_at(0))
            file.write_bytes(content)
    jgd.restore_checkpoint(path, state_at(0))


def test_nothing_but_damage_is_an_error_and_no_fresh_start(tmp_path):
    checkpoints = saved(tmp_path, [1, 2])
    for path in checkpoints.paths():
        cut(largest(path))
    with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged \(000001-step-2: .*000000-step-1: "):
        checkpoints.restore(state_at(0))


def test_a_checkpoint_of_a_later_version(tmp_path, monkeypatch):
    monkeypatch.setattr("jgd.train.checkpoints._files.FORMAT", 2)
    checkpoints = saved(tmp_path, [1])
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"it is of format 2, and this version of jgd reads up to 1"):
        checkpoints.restore(state_at(0))


def test_one_that_does_not_fit_is_an_error_and_not_passed_over(tmp_path):
    with pytest.raises(ValueError, match=r"leaf params.w has shape \(4,\); the state expects \(3,\)"):
        saved(tmp_path).restore(jgd.TrainState.create({"w": jnp.ones(3)}, OPTIMIZER))


@pytest.fixture(params=["arrays", "history"])
def full_disk(monkeypatch, request):
    """The disk is full when the checkpoint's arrays are to be written, or its third file."""

    def fill():
        def no_room(*args, **options):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        where = {"arrays": (orbax.checkpoint.PyTreeCheckpointer, "save"), "history": (np, "savez")}
        monkeypatch.setattr(*where[request.param], no_room)

    return fill


def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path, full_disk, monkeypatch):
    checkpoints = saved(tmp_path)
    full_disk()
    checkpoints.save(state_at(4), 4)
    with pytest.raises(CheckpointError, match=r"could not write .*000003-step-4: OSError: .*No space left") as caught:
        checkpoints.wait()
    assert caught.value.path.name == "000003-step-4"
    assert steps_in(checkpoints) == [1, 2, 3]
    assert not list(tmp_path.glob(".*"))  # what was begun gives its room back
    assert checkpoints.restore(state_at(0)).record["step"] == 3
    checkpoints.wait()  # told once
    monkeypatch.undo()
    checkpoints.save(state_at(5), 5)
    checkpoints.wait()
    assert steps_in(checkpoints) == [2, 3, 5]


def test_checkpoints_of_an_earlier_run_are_neither_removed_nor_the_best(tmp_path):
    saved(tmp_path, [1, 2, 3])
    later = saved(tmp_path, [1, 3, 4], max_to_keep=1, best="-accuracy")  # resumes nothing
    assert steps_in(later) == [1, 2, 3, 3, 4]  # of the later run its newest, and the best with an accuracy of 0.5
    assert later.best_path().name == "000004-step-3"
    resumed = Checkpoints(tmp_path, max_to_keep=1)
    assert resumed.restore(state_at(0)).record["step"] == 4
    resumed.save(state_at(4), 5)
    resumed.wait()
    assert steps_in(resumed) == [1, 2, 3, 5]


def test_a_checkpoint_with_files_of_the_users_is_not_removed(tmp_path):
    checkpoints = saved(tmp_path, [1])
    (checkpoints.paths()[0] / "notes.txt").write_text("the good one")
    for step in (2, 3, 4, 4):
        checkpoints.save(state_at(step), step)
    checkpoints.wait()
    assert steps_in(checkpoints) == [1, 3, 4, 4]
    assert (checkpoints.paths()[0] / "notes.txt").read_text() == "the good one"


def test_a_folder_that_is_itself_a_checkpoint_takes_no_others(tmp_path):
    jgd.save_checkpoint(tmp_path / "one", state_at(1))
    before = sorted(path.name for path in (tmp_path / "one").iterdir())
    with pytest.raises(CheckpointError, match=r"cannot write checkpoints to .*one: it is itself a checkpoint"):
        Checkpoints(tmp_path / "one").open()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == before


def test_a_folder_that_one_may_not_write_to_is_told_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"cannot write checkpoints to .*file"):
        Checkpoints(tmp_path / "file").open()

    def read_only(**options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.NamedTemporaryFile", read_only)
    with pytest.raises(CheckpointError, match=r"cannot write checkpoints to .*Read-only file system"):
        Checkpoints(tmp_path).open()


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    checkpoints = saved(tmp_path)
    own = [path.name for path in checkpoints.paths()]
    others = [".best.replaced-1", ".best.partial-1", ".notes.removed", ".probe", "000009-step-9.txt"]
    for name in (".000003-step-4.partial-123", ".000000-step-1.removed"):
        (tmp_path / name / "state").mkdir(parents=True)
    for name in others[:3]:
        (tmp_path / name).mkdir()
    for name in others[3:]:
        (tmp_path / name).write_text("not ours")
    checkpoints.open()
    assert steps_in(checkpoints) == [1, 2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(own + others)
    assert (tmp_path / ".probe").read_text() == "not ours"


def test_a_save_neither_waits_for_the_disk_nor_sees_later_steps(tmp_path, monkeypatch):
    let_go, write = threading.Event(), _folder.write
    monkeypatch.setattr(_folder, "write", lambda *args: (let_go.wait(10), write(*args)))
    checkpoints, state = Checkpoints(tmp_path), state_at(1)._replace(model_state=np.zeros(3))
    step = jgd.make_step(lambda params, batch: jnp.sum(params["w"] ** 2), OPTIMIZER)
    before = np.array(state.params["w"])
    checkpoints.save(state, 1)
    assert checkpoints.busy
    state.model_state[:] = 1
    state = state._replace(model_state=None)
    for _ in range(3):
        state, _ = step(state, 0.0)  # the memory of the state that is being saved is used again
    assert steps_in(checkpoints) == []
    let_go.set()
    checkpoints.wait()
    found = checkpoints.restore(state_at(0)._replace(model_state=np.zeros(3))).state
    np.testing.assert_array_equal(found.params["w"], before)
    np.testing.assert_array_equal(found.model_state, np.zeros(3))


def test_when_a_save_is_due(tmp_path):
    by_steps = Checkpoints(tmp_path, every_steps=3)
    assert [step for step in range(1, 10) if by_steps.due(step)] == [3, 6, 9]
    by_time = Checkpoints(tmp_path, every_seconds=0.05)
    by_time.open()
    assert not by_time.due(1)
    time.sleep(0.06)
    assert by_time.due(2)
    by_time.save(state_at(2), 2)
    assert not by_time.due(3)


@pytest.mark.parametrize(
    "options",
    [
        {"every_steps": 0},
        {"every_epochs": 1.5},
        {"max_to_keep": 0},
        {"every_seconds": 0},
        {"every_seconds": "a"},
        {"every_seconds": True},
        {"best": 3},
        {"folder": 3},
        {"folder": None},
    ],
)
def test_options_that_cannot_be(tmp_path, options):
    with pytest.raises((TypeError, ValueError), match=rf"Checkpoints: {next(iter(options))} must be .*; got"):
        Checkpoints(**({"folder": tmp_path} | options))


@pytest.mark.parametrize(("options", "message"), [
    ({"state": None}, r"Checkpoints.save: state must be a TrainState or another tree of arrays; got None"),
    ({"state": {"a": "b"}}, r"Checkpoints.save: state: the leaf at \['a'\] is 'b', not an array"),
    ({"step": "one"}, r"Checkpoints.save: step must be a whole number of at least 0; got 'one'"),
    ({"step": -1}, r"Checkpoints.save: step must be a whole number of at least 0; got -1"),
    ({"metrics": 3}, r"Checkpoints.save: metrics must be a dict, or None; got a int"),
    ({"metrics": {"a": "b"}}, r"Checkpoints.save: each of metrics must be a number"),
    ({"extra": {"a": object()}}, r"Checkpoints.save: extra must be what JSON can hold"),
    ({"history": {"a": object()}}, r"Checkpoints.save: history\['a'\] must be an array of numbers"),
])  # fmt: skip
def test_what_cannot_be_saved_is_told_at_once(tmp_path, options, message):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises((TypeError, ValueError), match=message):
        checkpoints.save(**({"state": state_at(1), "step": 1} | options))
    assert list(tmp_path.iterdir()) == []


def test_metrics_may_be_arrays(tmp_path):
    checkpoints = Checkpoints(tmp_path, best="loss")
    checkpoints.save(state_at(1), np.int64(1), metrics={"loss": jnp.ones(())})
    assert checkpoints.restore(state_at(0)).record["metrics"] == {"loss": 1.0}


@pytest.mark.slow  # in a process of its own; in the fast tier see test_a_full_disk_is_told_and_nothing_is_lost
def test_a_write_that_the_system_refuses_is_told_and_nothing_is_lost(tmp_path):
    code = f"""
import resource, signal, jax, jgd
from jgd.train.checkpoints._folder import Checkpoints
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
states = [jgd.TrainState.create(jax.random.normal(jax.random.key(0), (n,)), jgd.sgd(0.1)) for n in (10, 100_000)]
checkpoints = Checkpoints({str(tmp_path)!r})
checkpoints.save(states[0], 1)
checkpoints.save(states[1], 2)
try:
    checkpoints.wait()
except RuntimeError as error:
    print(error)
print([path.name for path in checkpoints.folder.iterdir()], checkpoints.restore(states[0]).record["step"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    message, after = done.stdout.splitlines()
    assert "could not write the checkpoint" in message
    assert "File too large" in message
    assert after == "['000000-step-1'] 1"
