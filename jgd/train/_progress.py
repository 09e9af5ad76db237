"""What a run shows while it goes: a bar for the epoch, a line when it ends."""

from collections.abc import Mapping
from typing import Any

from jgd.core import require


class Progress:
    """A tqdm bar, or nothing.

    Args:
        shown: Whether to show it; tqdm is needed only then.
        epochs: How many epochs the run has.
    """

    def __init__(self, shown: bool, epochs: int):
        self._tqdm = (
            require("tqdm.auto", "train", "the progress bar of fit (progress=False does without)") if shown else None
        )
        self._epochs = epochs
        self._bar: Any = None

    def start(self, epoch: int, length: int | None) -> None:
        """A new bar for an epoch, counted from 0."""
        if self._tqdm is not None:
            label = f"epoch {epoch + 1}/{self._epochs}"
            self._bar = self._tqdm.tqdm(total=length, desc=label, unit="step", leave=False, dynamic_ncols=True)

    def advance(self, steps: int = 1) -> None:
        """Steps more."""
        if self._bar is not None:
            self._bar.update(steps)

    def show(self, record: Mapping[str, Any]) -> None:
        """Numbers beside the bar, as of the last time they were fetched from the device."""
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in record.items()}, refresh=False)

    def finish(self, epoch: int, summary: Mapping[str, float]) -> None:
        """Closes the bar, and leaves a line for the epoch."""
        if self._tqdm is not None and self._bar is not None:
            self.close()
            numbers = "  ".join(
                f"{name} {value}" if isinstance(value, int) else f"{name} {value:.4f}"
                for name, value in summary.items()
            )
            self._tqdm.tqdm.write(f"epoch {epoch + 1:>{len(str(self._epochs))}}/{self._epochs}  {numbers}")

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
