"""The numbers of a run, gathered without waiting for the device."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jgd.core import Array

#: Name to array: one entry a step for the metrics of the step, one an epoch for those that start with `epoch_`; and
#: under `stopped`, as text, why the run ended.
History = dict[str, Any]


class Recorder:
    """Keeps the metrics of each step on the device until someone asks for them."""

    def __init__(self) -> None:
        self._waiting: list[dict[str, Any]] = []
        self.steps: dict[str, list[Any]] = {}
        self.epochs: dict[str, list[Any]] = {}
        self._of_metrics = {"step", "epoch"}

    def add(self, step: int, epoch: int, metrics: Mapping[str, Any], bad: Array) -> None:
        """Takes the metrics of one step: the scalars among them, those in `aux` included."""
        aux = metrics.get("aux")
        own = {name: value for name, value in metrics.items() if name != "aux"}
        self._of_metrics |= own.keys()
        extra = {name: value for name, value in aux.items() if np.ndim(value) == 0} if isinstance(aux, dict) else {}
        self._waiting.append({"step": step, "epoch": epoch} | extra | own | {"bad": bad})

    def fetch(self) -> list[dict[str, Any]]:
        """Waits for the steps added since the last call, keeps their numbers, and returns them step by step."""
        records = jax.device_get(self._waiting)
        self._waiting = []
        for record in records:
            for name, value in record.items():
                if name != "bad":
                    self.steps.setdefault(name, []).append(value)
        return records

    def means(self, start: int) -> dict[str, float]:
        """The loss and the scalars of `aux`, averaged over the steps fetched from the `start`-th on."""
        names = ["loss", *(name for name in self.steps if name not in self._of_metrics)]
        return {name: float(np.mean(self.steps[name][start:])) for name in names}

    def close_epoch(self, summary: Mapping[str, float]) -> None:
        """Keeps the numbers of an epoch."""
        for name, value in summary.items():
            self.epochs.setdefault(f"epoch_{name}", []).append(value)

    def history(self, stopped: str) -> History:
        """All numbers as arrays, and why the run ended."""
        self.fetch()
        arrays = {name: np.asarray(values) for name, values in (self.steps | self.epochs).items()}
        return arrays | {"stopped": stopped}
