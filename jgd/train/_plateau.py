"""Knowing when a number has stopped falling."""

from collections.abc import Mapping


class Plateau:
    """Whether a number has stopped falling.

    Args:
        patience: After how many epochs without a fall; None for never.
        min_delta: What counts as a fall.
        monitor: The number's name, with a minus before it where larger is better.
    """

    def __init__(self, patience: int | None, min_delta: float, monitor: str):
        self.patience, self.min_delta = patience, min_delta
        self.sign = -1.0 if monitor.startswith("-") else 1.0
        self.name = monitor.removeprefix("-")
        self.best, self.waited = float("inf"), 0

    @property
    def over(self) -> bool:
        """Whether patience is at its end."""
        return self.patience is not None and self.waited >= self.patience

    def reached(self, summary: Mapping[str, float]) -> bool:
        """Takes the next epoch's numbers."""
        if self.patience is None:
            return False
        if self.name not in summary:
            raise ValueError(f"fit: monitor={self.name!r} is not among the epoch's numbers: {', '.join(summary)}.")
        value = self.sign * summary[self.name]
        self.waited = 0 if value < self.best - self.min_delta else self.waited + 1
        self.best = min(self.best, value)
        return self.over

    def state(self) -> tuple[float, int]:
        """What it remembers."""
        return self.best, self.waited

    def restore(self, state: tuple[float, int]) -> None:
        """Goes on from what `state` returned."""
        self.best, self.waited = state
