"""Progress of a run: a bar for the epoch in a terminal or notebook, and a line when it ends."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from jgd.core import require


class Progress:
    """A tqdm bar and a line an epoch, or nothing.

    The bar is drawn in a terminal and in a notebook; into a file or a pipe go the lines alone, each at once.

    Args:
        shown: Whether to show anything; tqdm is needed only then.
        epochs: How many epochs the run has.
    """

    def __init__(self, shown: bool, epochs: int):
        tqdm = require("tqdm.auto", "train", "the progress bar of fit (progress=False needs none)") if shown else None
        self._tqdm = tqdm
        self._draws = tqdm is not None and (_is_for_notebooks(tqdm.tqdm) or _is_terminal(sys.stderr))
        self._epochs = epochs
        self._bar: Any = None
        self._started = self._fetched = 0.0
        self._steps = 0
        self._remark = " (with compilation)"  # of the first epoch

    def start(self, epoch: int, length: int | None, done: int = 0) -> None:
        """Starts a bar for an epoch, counted from 0, of which `done` batches are done."""
        self._started = self._fetched = time.perf_counter()
        self._steps = 0
        if self._tqdm is not None and self._draws:
            self._bar = self._tqdm.tqdm(
                total=length, initial=done, desc=self._name(epoch), unit="step", leave=False, dynamic_ncols=True
            )

    def add_steps(self, steps: int) -> None:
        """Moves the bar by so many steps."""
        self._steps += steps
        if self._bar is not None:
            self._bar.update(steps)

    def show(self, numbers: Mapping[str, float]) -> None:
        """Shows numbers beside the bar: the last that were fetched from the device."""
        self._fetched = time.perf_counter()
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in numbers.items()}, refresh=False)

    def finish(self, epoch: int, summary: Mapping[str, float]) -> None:
        """Closes the bar and prints a line for the epoch: its numbers, its time, its steps a second."""
        if self._tqdm is None:
            return
        self.close()
        numbers = [f"{name} {_short(value)}" for name, value in summary.items() if value or name != "nonfinite"]
        numbers.append(f"{time.perf_counter() - self._started:.1f} s")
        if self._steps and self._fetched > self._started:  # evaluation is in the time, and not in the rate
            numbers.append(_rate(self._steps / (self._fetched - self._started)) + self._remark)
        self._remark = ""
        self.say("  ".join([f"{self._name(epoch):<{len(self._name(self._epochs - 1))}}", *numbers]))

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        if self._tqdm is not None and self._draws:
            self._tqdm.tqdm.write(text)
        elif self._tqdm is not None:
            print(text, flush=True)

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _name(self, epoch: int) -> str:
        """The epoch's number in the history and the log, from 0, and how many of how many that makes."""
        return f"epoch {epoch} ({epoch + 1} of {self._epochs})"


def _is_for_notebooks(bar: type) -> bool:
    """Whether tqdm has found a notebook, where stderr is no terminal and bars are drawn all the same."""
    return any(base.__module__ == "tqdm.notebook" for base in bar.__mro__)


def _short(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.3e}"


def _rate(steps_a_second: float) -> str:
    if steps_a_second < 1:
        return f"{1 / steps_a_second:.3g} s/step"
    return f"{steps_a_second:.0f} steps/s" if steps_a_second >= 100 else f"{steps_a_second:.3g} steps/s"


def _is_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty()
