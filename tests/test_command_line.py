"""`python -m jgd`: what it accepts, what it says, and that it overwrites nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jgd
from jgd import _demo
from jgd.__main__ import main


@pytest.fixture
def no_training(monkeypatch):
    """The demo's checks run, and its training does not."""

    class TrainsError(Exception):
        pass

    def trains(seed):
        raise TrainsError

    monkeypatch.setattr(_demo, "load_digits", trains)
    return TrainsError


def test_the_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert (caught.value.code, capsys.readouterr().out) == (0, f"jgd {jgd.__version__}\n")


def test_help_has_every_default(capsys):
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    for option, default in (("NAME", "adamw"), ("N", "20"), ("N", "0"), ("DIR", "jgd-demo, or jgd-demo-2")):
        assert re.search(rf"{option} [^()]*\(default: {default}", text), (option, default, text)
    assert "0.002 for adamw" in text


def test_no_command_shows_what_there_is(capsys):
    assert main([]) == 2
    assert "demo" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "message"), [
    (["demo", "--epochs", "0"], "argument --epochs: expected a whole number from 1 to 1000000; got '0'"),
    (["demo", "--epochs", "²"], "argument --epochs: expected a whole number from 1 to 1000000; got '²'"),
    (["demo", "--epochs", "1e3"], "argument --epochs: expected a whole number from 1 to 1000000; got '1e3'"),
    (["demo", "--epochs", "9" * 5000], "argument --epochs: expected a whole number from 1 to 1000000; got '999"),
    (["demo", "--seed", "-1"], "argument --seed: expected a whole number from 0 to 4294967295; got '-1'"),
    (["demo", "--seed", "4294967296"], "argument --seed: expected a whole number from 0 to 4294967295; got"),
    (["demo", "--learning-rate", "fast"], "argument --learning-rate: invalid float value: 'fast'"),
    (["demo", "--optimizer", "sgdd"], "argument --optimizer: invalid choice: 'sgdd'"),
    (["demonstrate"], "invalid choice: 'demonstrate'"),
    (["demo", "extra"], "unrecognized arguments: extra"),
])  # fmt: skip
def test_arguments_that_cannot_be(capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "message"), [
    (["--learning-rate", "nan"], "jgd: demo: learning_rate must be finite; got nan."),
    (["--learning-rate=-1"], "jgd: demo: learning_rate must be at least 0; got -1.0."),
    (["--out", "file"], "jgd: demo: --out: cannot make the folder FOLDER/file (File exists).\n"),
    (["--out", "file/in"], "jgd: demo: --out: cannot make the folder FOLDER/file/in (Not a directory).\n"),
    (["--out", "~nobody-of-that-name/x"], "jgd: demo: --out='~nobody-of-that-name/x': that user has no home folder.\n"),
])  # fmt: skip
def test_what_cannot_be_is_one_sentence(tmp_path, monkeypatch, capsys, no_training, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("in the way")
    assert main(["demo", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(message.replace("FOLDER", str(tmp_path)))
    assert captured.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_the_system_does_not_let_one_make(capsys, no_training):
    if not Path("/proc").is_dir():
        pytest.skip("no /proc here")
    assert main(["demo", "--out", "/proc/nope"]) == 1
    assert capsys.readouterr().err == (
        "jgd: demo: --out: cannot make the folder /proc/nope (No such file or directory).\n"
    )


@pytest.mark.parametrize("name", _demo.MADE)
def test_nothing_in_the_folder_is_overwritten(tmp_path, capsys, no_training, name):
    (tmp_path / name).write_text("a thesis")
    (tmp_path / "other").write_text("not in the way")
    assert main(["demo", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"jgd: demo: --out: the folder {tmp_path} holds {name} already, which would be overwritten."
        " Nothing was changed; give another folder, or move that away.\n"
    )
    assert (tmp_path / name).read_text() == "a thesis"
    (tmp_path / name).unlink()
    with pytest.raises(no_training):
        main(["demo", "--out", str(tmp_path)])


def test_by_default_each_demo_has_a_folder_of_its_own(tmp_path, monkeypatch, no_training):
    monkeypatch.chdir(tmp_path)
    for _ in range(3):
        with pytest.raises(no_training):
            main(["demo"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jgd-demo", "jgd-demo-2", "jgd-demo-3"]


@pytest.mark.parametrize(("error", "status", "text"), [
    (KeyboardInterrupt(), 130, ""),
    (RuntimeError("Unable to initialize backend 'cuda'"), 1, "jgd: Unable to initialize backend 'cuda'\n"),
    (jgd.CheckpointError("could not write", Path(), ""), 1, "jgd: could not write\n"),
])  # fmt: skip
def test_what_goes_wrong_is_told_without_a_traceback(monkeypatch, capsys, error, status, text):
    def fails():
        raise error

    monkeypatch.setattr("jgd._doctor.report", fails)
    assert main(["doctor"]) == status
    assert capsys.readouterr().err == text


@pytest.mark.slow  # trains in a process of its own
def test_the_demo_into_a_pipe(tmp_path):
    command = [sys.executable, "-m", "jgd", "demo", "--epochs", "2", "--out", str(tmp_path / "out")]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(jgd.__file__).parents[1])}
    done = subprocess.run(command, env=env, capture_output=True, check=True)
    assert done.stderr == b""
    assert b"\r" not in done.stdout
    lines = done.stdout.decode().splitlines()
    epochs = [line for line in lines if line.startswith("epoch")]
    for number, line in enumerate(epochs):
        times = r"\d+\.\d s  [\d.]+ steps/s( \(with compilation\))?"
        pattern = rf"epoch {number} \({number + 1} of 2\)  loss .*  test_accuracy \d\.\d{{4}}  {times}"
        assert re.fullmatch(pattern, line), line
        assert "nonfinite" not in line
    assert len(epochs) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(_demo.MADE)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    again = subprocess.run(command, env=env, capture_output=True, text=True)
    assert again.returncode == 1
    assert "holds history.jsonl, loss.png, checkpoint already" in again.stderr
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
