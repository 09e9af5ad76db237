"""What `save_checkpoint` may replace, and what is there when it is stopped on the way."""

import errno
import os
import shutil

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest

import jgd
from jgd.train.checkpoints import _in_place
from jgd.train.checkpoints._files import CheckpointError, verify
from jgd.train.checkpoints._in_place import standing_for

OPTIMIZER = jgd.sgd(0.1)


def state_at(step):
    return jgd.TrainState.create({"w": np.arange(3, dtype=np.float32)}, OPTIMIZER)._replace(step=jnp.int32(step))


def step_in(path):
    return int(jgd.restore_checkpoint(path, state_at(0)).step)


def tree(folder):
    """All that a folder holds, with its contents."""
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(params=["swap", "renames"])
def way(monkeypatch, request):
    """With the system's swap of two names, and without."""
    if request.param == "renames":
        monkeypatch.setattr(_in_place, "swap", lambda one, other: False)
    return request.param


def thesis(folder):
    folder.mkdir()
    (folder / "thesis.tex").write_text("ten years")


def run(folder):
    checkpoints = jgd.Checkpoints(folder)
    checkpoints.save(state_at(1), 1)
    checkpoints.wait()


def orbax_folder(folder):
    orbax.checkpoint.PyTreeCheckpointer().save(folder, {"w": np.ones(2)})


def one_with_notes(folder):
    jgd.save_checkpoint(folder, state_at(1))
    (folder / "notes.txt").write_text("the good one")


def one_with_notes_within(folder):
    jgd.save_checkpoint(folder, state_at(1))
    (folder / "state/notes.txt").write_text("the good one")


def one_that_is_damaged(folder):
    jgd.save_checkpoint(folder, state_at(1))
    (folder / "manifest.json").write_text("{")


def web_app(folder):
    folder.mkdir()
    (folder / "manifest.json").write_text('{"files": {}}')
    (folder / "record.json").write_text('{"format": 1}')
    (folder / "index.html").write_text("<html>")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(("make", "message"), [
    (thesis, r"the folder .*place is not a checkpoint, and is left as it is, .* it holds thesis.tex. Give a name"),
    (run, r"is not a checkpoint, .* it holds the checkpoints of a run, 000000-step-1\."),
    (orbax_folder, r"is not a checkpoint, .* it holds .*_METADATA"),
    (one_with_notes, r"it also holds other files: notes.txt"),
    (one_with_notes_within, r"it also holds other files: state/notes.txt"),
    (one_that_is_damaged, r"does not hold an intact checkpoint of jgd, and is left as it is"),
    (web_app, r"it also holds other files: index.html"),
    (lambda place: place.write_text("in the way"), r"place is a file, and is left as it is; expected a folder"),
    (lambda place: place.symlink_to(place), r"place"),
])  # fmt: skip
def test_what_is_no_checkpoint_is_left_alone(tmp_path, make, message, overwrite):
    make(tmp_path / "place")
    before = tree(tmp_path)
    with pytest.raises(OSError, match=message):
        jgd.save_checkpoint(tmp_path / "place", state_at(2), overwrite=overwrite)
    assert tree(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_checkpoint_of_a_run_is_not_replaced(tmp_path):
    run(tmp_path)
    with pytest.raises(FileExistsError, match="since a run has written it"):
        jgd.save_checkpoint(tmp_path / "000000-step-1", state_at(2), overwrite=True)
    assert step_in(tmp_path) == 1


@pytest.mark.parametrize("path", ["", ".", "..", "inner/.."])
def test_the_working_folder_is_not_replaced(tmp_path, monkeypatch, path):
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner" if path != "inner/.." else tmp_path)
    with pytest.raises((FileExistsError, ValueError), match=r"working folder|is not a path"):
        jgd.save_checkpoint(path, state_at(1), overwrite=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["inner"]


def test_a_checkpoint_is_replaced_where_that_is_asked_for(tmp_path, way):
    path = jgd.save_checkpoint(tmp_path / "one", state_at(1))
    with pytest.raises(FileExistsError, match=r"there is a checkpoint at .* already. Pass overwrite=True to replace"):
        jgd.save_checkpoint(path, state_at(2))
    assert step_in(path) == 1
    jgd.save_checkpoint(path, state_at(2), overwrite=True)
    assert step_in(path) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_all_ways_to_name_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert jgd.save_checkpoint("~/a", state_at(1)) == tmp_path / "a"
    assert jgd.save_checkpoint("b", state_at(2)) == tmp_path / "b"
    assert jgd.save_checkpoint(tmp_path / "c/d/e", state_at(3)) == tmp_path / "c/d/e"
    (tmp_path / "f").mkdir()
    jgd.save_checkpoint("f", state_at(4))  # an empty folder has nothing to lose
    (tmp_path / "g").symlink_to("h")
    jgd.save_checkpoint("g", state_at(5))
    jgd.save_checkpoint("g", state_at(6), overwrite=True)
    assert (tmp_path / "g").is_symlink()
    assert [step_in(name) for name in ("~/a", "b", "c/d/e", "f", "g", "h")] == [1, 2, 3, 4, 6, 6]
    assert jgd.Checkpoints("~/i").folder == tmp_path / "i"


@pytest.mark.parametrize(("path", "state", "message"), [
    (3, "state", r"save_checkpoint: path must be a path, as text or pathlib.Path; got a int"),
    (b"x", "state", r"save_checkpoint: path must be a path, .*; got a bytes"),
    ("a\0b", "state", r"save_checkpoint: path='a\\x00b' is not a path"),
    ("~nobody-of-that-name/x", "state", r"save_checkpoint: path='~nobody-of-that-name/x': that user has no home"),
    ("x", OPTIMIZER, r"save_checkpoint: state: the leaf at .init is a function, not an array"),
    ("x", None, r"save_checkpoint: state must be a TrainState or another tree of arrays; got None"),
    ("x", "text", r"save_checkpoint: state: the leaf at the root is 'text', not an array"),
    ("n" * 300, "state", r"save_checkpoint: cannot look at .*\(File name too long\)|could not write the checkpoint"),
])  # fmt: skip
def test_arguments_that_cannot_be(tmp_path, monkeypatch, path, state, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((TypeError, ValueError, OSError, CheckpointError), match=message):
        jgd.save_checkpoint(path, state_at(1) if state == "state" else state)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", [1, "yes", None, np.ones(2)], ids=str)
def test_flags_are_true_or_false(tmp_path, flag):
    with pytest.raises(TypeError, match=r"save_checkpoint: overwrite must be True or False; got"):
        jgd.save_checkpoint(tmp_path / "one", state_at(1), overwrite=flag)
    with pytest.raises(TypeError, match=r"Checkpoints.restore: best must be True or False; got"):
        jgd.Checkpoints(tmp_path).restore(state_at(1), best=flag)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_appears_while_it_is_being_written_is_left_alone(tmp_path, monkeypatch, overwrite):
    place, save = tmp_path / "one", np.savez
    monkeypatch.setattr(np, "savez", lambda *args, **arrays: (thesis(place), save(*args, **arrays)))
    with pytest.raises(CheckpointError, match=r"not empty|intact checkpoint of jgd"):
        jgd.save_checkpoint(place, state_at(1), overwrite=overwrite)
    assert (place / "thesis.tex").read_text() == "ten years"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


@pytest.mark.parametrize("name", ["[a]/one", "a/[one]", "lr=[0.1, 1e-2]/*?{b}"])
def test_names_that_look_like_patterns(tmp_path, name):
    assert step_in(jgd.save_checkpoint(tmp_path / name, state_at(1))) == 1
    assert jgd.restore_params(tmp_path / name, state_at(0).params)["w"].tolist() == [0.0, 1.0, 2.0]
    run(tmp_path / "run" / name)
    assert step_in(tmp_path / "run" / name) == 1


def test_a_kill_at_any_moment_leaves_the_old_or_the_new_one(tmp_path, way, monkeypatch):
    """The folder is copied before and after each operation on it: what a kill would leave."""
    work, path = tmp_path / "work", tmp_path / "work/one"
    jgd.save_checkpoint(path, state_at(1))
    old, snapshots = (path / "manifest.json").read_bytes(), []

    def look():
        snapshots.append(tmp_path / str(len(snapshots)))
        shutil.copytree(work, snapshots[-1])

    def watched(function):
        def call(*args, **options):
            look()
            result = function(*args, **options)
            look()
            return result

        return call

    for owner, name in ((os, "rename"), (os, "unlink"), (os, "rmdir"), (_in_place, "swap"), (_in_place, "flush")):
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    jgd.save_checkpoint(path, state_at(2), overwrite=True)
    monkeypatch.undo()
    new = (path / "manifest.json").read_bytes()
    assert old != new
    found, under_its_name = [], []
    for snapshot in snapshots:
        folder = standing_for(snapshot / "one")
        verify(folder)
        found.append((folder / "manifest.json").read_bytes())
        under_its_name.append((snapshot / "one").exists())
    first_new = found.index(new)
    assert found == [old] * first_new + [new] * (len(found) - first_new)
    assert len(found) > 10
    assert 0 < first_new < len(found)
    assert all(under_its_name) is (way == "swap")
    if way == "renames":  # between the two, the old one is read, and the next save goes on from it
        between = snapshots[under_its_name.index(False)] / "one"
        assert step_in(between) == 1
        with pytest.raises(FileExistsError, match="there is a checkpoint"):
            jgd.save_checkpoint(between, state_at(3))
        assert step_in(between) == 1
        assert between.exists()


@pytest.mark.parametrize(
    "kind", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()], ids=["error", "ctrl-c"]
)
@pytest.mark.parametrize("where", ["first rename", "second rename", "swap", "flush"])
def test_a_replacement_that_fails_leaves_what_was_there(tmp_path, monkeypatch, where, kind):
    path = jgd.save_checkpoint(tmp_path / "one", state_at(1))

    def fails(*args):
        raise kind

    if "rename" in where:
        monkeypatch.setattr(_in_place, "swap", lambda one, other: False)
        rename, refused = os.rename, ".replaced-" if where == "first rename" else ".partial-"

        def one_fails(old, new):
            if refused in str(new if where == "first rename" else old) and not fallen:
                fallen.append(1)
                raise kind
            rename(old, new)

        fallen = []
        monkeypatch.setattr(os, "rename", one_fails)
    elif where == "swap":
        monkeypatch.setattr(_in_place, "swap", fails)
    else:
        flush = _in_place.flush
        monkeypatch.setattr(_in_place, "flush", lambda path: fails() if path == tmp_path else flush(path))
    with pytest.raises((CheckpointError, KeyboardInterrupt), match=r"Input/output error.* is untouched|^$"):
        jgd.save_checkpoint(path, state_at(2), overwrite=True)
    monkeypatch.undo()
    assert step_in(path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = jgd.save_checkpoint(tmp_path / "one", state_at(1))

    def no_room(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", no_room)
    with pytest.raises(CheckpointError, match=r"No space left.* What was written before is untouched"):
        jgd.save_checkpoint(path, state_at(2), overwrite=True)
    assert step_in(path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_what_a_killed_process_left_long_ago_is_cleared_away(tmp_path):
    path = jgd.save_checkpoint(tmp_path / "one", state_at(1))
    for name in (".one.partial-old", ".one.partial-new", ".two.partial-old"):
        (tmp_path / name).mkdir()
        if name.endswith("old"):
            os.utime(tmp_path / name, (0, 0))
    jgd.save_checkpoint(path, state_at(2), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".one.partial-new", ".two.partial-old", "one"]
