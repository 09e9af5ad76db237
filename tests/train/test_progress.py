"""What a run shows: in a terminal, in a notebook, and in a file."""

import io
import re
import sys

import pytest
import tqdm.auto

from jgd.train.loop._progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def show(epochs=2, summary=None):
    progress = Progress(True, epochs)
    for epoch in range(2):
        progress.start(epoch, 4, done=1)
        progress.add_steps(2)
        progress.add_steps(1)
        progress.show({"loss": 0.5})
        progress.finish(epoch, summary or {"loss": 0.5, "nonfinite": 0})
    progress.close()


def test_a_file_gets_plain_lines(capsys):
    show(epochs=12)
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.split("\n")
    assert len(lines) == 3
    for epoch, remark in enumerate([r" \(with compilation\)", ""]):
        pattern = rf"epoch {epoch} \({epoch + 1} of 12\) *  loss 0\.5000  0\.0 s  \d+ steps/s{remark}"
        assert re.fullmatch(pattern, lines[epoch]), lines[epoch]
    assert lines[0].index("loss") == len("epoch 11 (12 of 12)  ")


def test_a_line_is_in_the_file_at_once(monkeypatch):
    flushed = []
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys.stdout, "flush", lambda: flushed.append(sys.stdout.getvalue().count("\n")), raising=False)
    show()
    assert flushed == [1, 2]


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", Terminal())
    show()
    assert "epoch 1 (2 of 2):" in sys.stderr.getvalue()
    assert "\r" not in capsys.readouterr().out


def test_a_notebook_gets_a_bar_though_stderr_is_no_terminal(monkeypatch):
    drawn = []

    class Widget(tqdm.auto.tqdm):
        def __init__(self, *args, **options):
            drawn.append(options["desc"])
            super().__init__(*args, **options, file=io.StringIO())

    Widget.__module__ = "tqdm.notebook"
    monkeypatch.setattr(tqdm.auto, "tqdm", Widget)
    show()
    assert drawn == ["epoch 0 (1 of 2)", "epoch 1 (2 of 2)"]


@pytest.mark.parametrize(("summary", "text"), [
    ({"loss": 1e-6}, "loss 1.000e-06"),
    ({"loss": 123456.0}, "loss 1.235e+05"),
    ({"loss": float("nan")}, "loss nan"),
    ({"nonfinite": 3}, "nonfinite 3"),
])  # fmt: skip
def test_numbers_are_short_and_say_something(capsys, summary, text):
    show(summary=summary)
    assert f"  {text}  " in capsys.readouterr().out


def test_silence(capsys):
    progress = Progress(False, 1)
    progress.start(0, 3)
    progress.add_steps(1)
    progress.say("a word")
    progress.finish(0, {"loss": 1.0})
    assert capsys.readouterr() == ("", "")
