"""The numbers of a run, gathered without waiting for the device."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import numpy.typing as npt

from jgd.core import Array, PyTree
from jgd.train.guards._guard import LOSS_SPIKE, NORM_SPIKE

#: Why a run ended; see `fit`.
StopReason = Literal["finished", "converged", "early_stopping", "nan_metric", "callback", "interrupted", "error"]

#: Name to array: one entry a step for the metrics of the step, one an epoch for those that start with `epoch_`; and
#: under `stopped` a `StopReason`.
History = dict[str, Any]


class Column:
    """A growing array of numbers: cheap to append to, and to read as a whole."""

    def __init__(self, values: npt.ArrayLike = ()):
        self._array = np.asarray(values)
        self._new: list[Any] = []

    def __len__(self) -> int:
        """How many numbers there are."""
        return len(self._array) + len(self._new)

    def append(self, value: npt.ArrayLike) -> None:
        """Adds a number."""
        self._new.append(value)

    def array(self) -> np.ndarray:
        """All numbers."""
        if self._new:
            new = np.asarray(self._new)
            self._array = np.concatenate([self._array, new]) if self._array.size else new
            self._new = []
        return self._array


class StepRecord(NamedTuple):
    """What one step gave: its scalars by name, and the leaf that was not finite, as `first_bad_leaf` says it."""

    scalars: dict[str, Any]
    bad_leaf: int


class _Unfetched(NamedTuple):
    """The numbers of `count` steps from `step` on, on the device."""

    step: int
    epoch: int
    count: int | None  # None: one step, whose numbers are scalars
    scalars: dict[str, Any]
    bad_leaf: Array


class Recorder:
    """Keeps the metrics of each step on the device until they are fetched.

    Args:
        history: What `snapshot` returned, to go on from.
    """

    def __init__(self, history: Mapping[str, np.ndarray] | None = None) -> None:
        self._unfetched: list[_Unfetched] = []
        self.steps: dict[str, Column] = {}
        self.epochs: dict[str, Column] = {}
        self._of_metrics = {"step", "epoch"}
        for name, values in (history or {}).items():
            kind, _, plain = name.partition(":")
            (self.epochs if kind == "epoch" else self.steps)[plain] = Column(values)
            if kind == "metric":
                self._of_metrics.add(plain)
        self.closed = max(map(len, self.epochs.values()), default=0)  # epochs so far

    def add(self, step: int, epoch: int, metrics: Mapping[str, PyTree], bad_leaf: Array) -> None:
        """Records one step: the scalars among its metrics, those in `aux` included."""
        scalars, names = scalars_of(metrics)
        self._of_metrics |= names
        self._unfetched.append(_Unfetched(step, epoch, None, scalars, bad_leaf))

    def add_many(
        self, step: int, epoch: int, count: int, scalars: Mapping[str, Array], bad_leaves: Array, names: set[str]
    ) -> None:
        """Records `count` steps, whose numbers are the first `count` entries of arrays."""
        self._of_metrics |= names
        self._unfetched.append(_Unfetched(step, epoch, count, dict(scalars), bad_leaves))

    def fetch(self) -> list[StepRecord]:
        """Waits for the steps added since the last call, keeps their numbers, and returns them step by step."""
        unfetched, self._unfetched = self._unfetched, []
        records: list[StepRecord] = []
        for step, epoch, count, scalars, bad_leaf in jax.device_get(unfetched):
            if count is None:
                records.append(_record(step, epoch, scalars, bad_leaf))
            else:
                rows = ({name: values[i] for name, values in scalars.items()} for i in range(count))
                records += [_record(step + i, epoch, row, bad_leaf[i]) for i, row in enumerate(rows)]
        for record in records:
            for name, value in record.scalars.items():
                self.steps.setdefault(name, Column()).append(value)
        return records

    @property
    def count(self) -> int:
        """Steps fetched so far."""
        return len(self.steps["loss"]) if "loss" in self.steps else 0

    def means(self, count: int, skipped: bool) -> dict[str, float]:
        """The loss and the scalars of `aux`, averaged over the last `count` steps fetched.

        Args:
            count: How many steps.
            skipped: Whether steps with a loss or gradient that is not finite, and spikes, were left out: then the mean
                is without them, and NaN where no step remains.
        """
        names = ["loss", *(name for name in self.steps if name not in self._of_metrics)]
        trained = np.ones(count, bool)
        if skipped and count:
            trained = self.steps["finite"].array()[-count:].astype(bool)
        if skipped and count and "event" in self.steps:
            trained = trained & ((self.steps["event"].array()[-count:] & (LOSS_SPIKE | NORM_SPIKE)) == 0)
        if not trained.any():
            return dict.fromkeys(names, float("nan"))
        return {name: float(np.mean(self.steps[name].array()[-count:][trained])) for name in names}

    def not_finite(self, count: int) -> int:
        """How many of the last `count` steps fetched were not finite."""
        return int(np.sum(~self.steps["finite"].array()[-count:]))

    def cut_back(self, step: int, closed: int) -> None:
        """Drops the steps from `step` on, also those not fetched yet, and all but the first `closed` epochs."""
        self._unfetched = []
        _drop_last(self.steps, int(np.sum(self.steps["step"].array() >= step)) if self.steps else 0)
        _drop_last(self.epochs, self.closed - closed)
        self.closed = closed

    def close_epoch(self, summary: Mapping[str, float]) -> None:
        """Keeps the numbers of an epoch."""
        self.closed += 1
        for name, value in summary.items():
            self.epochs.setdefault(f"epoch_{name}", Column()).append(value)

    def snapshot(self) -> dict[str, np.ndarray]:
        """All numbers fetched so far, under names that `Recorder` can restore them by."""
        kinds = {name: "metric" if name in self._of_metrics else "aux" for name in self.steps}
        steps = {f"{kinds[name]}:{name}": column.array() for name, column in self.steps.items()}
        return steps | {f"epoch:{name}": column.array() for name, column in self.epochs.items()}

    def history(self, stopped: StopReason) -> History:
        """All numbers as arrays, and why the run ended."""
        self.fetch()
        arrays = {name: column.array() for name, column in (self.steps | self.epochs).items()}
        return arrays | {"stopped": stopped}


def _record(step: int, epoch: int, scalars: Mapping[str, Any], bad_leaf: Any) -> StepRecord:
    by_name = {"step": step, "epoch": epoch} | dict(scalars)
    return StepRecord(dict(sorted(by_name.items())), int(bad_leaf))


def _drop_last(columns: dict[str, Column], count: int) -> None:
    for name, column in columns.items():
        columns[name] = Column(column.array()[: max(0, len(column) - count)])


def scalars_of(metrics: Mapping[str, PyTree]) -> tuple[dict[str, Any], set[str]]:
    """The scalars of a step's metrics, those of `aux` first; and the names of those that are not from `aux`."""
    aux = metrics.get("aux")
    of_step = {name: value for name, value in metrics.items() if name != "aux"}
    of_aux = {name: value for name, value in aux.items() if np.ndim(value) == 0} if isinstance(aux, dict) else {}
    return of_aux | of_step, set(of_step)
