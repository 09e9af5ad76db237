"""One epoch of a run: its steps, one by one or in a compiled loop, and what follows from their numbers."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from jgd.core import Array, PyTree
from jgd.train._state import TrainState
from jgd.train.data._position import Data, Place, Source
from jgd.train.guards._events import events_of
from jgd.train.guards._finite import ALL_FINITE, leaf_name
from jgd.train.loop._epoch_scan import SECONDS, EpochScan
from jgd.train.loop._history import Recorder, StopReason
from jgd.train.loop._interrupt import Interruptible
from jgd.train.loop._log import JsonlLog
from jgd.train.loop._notices import Notices
from jgd.train.loop._plateau import BestStates, Plateau, Watched
from jgd.train.loop._progress import Progress
from jgd.train.loop._resume import optimizer_text
from jgd.train.loop._rollback import Recovery, Rollback, StateKeeper
from jgd.train.loop._saving import Saver, Snapshot
from jgd.train.loop._summary import ALWAYS, EvalFn, evaluated, names_before_training
from jgd.train.step._make_step import Step, running_beside
from jgd.train.step._stacked import check_batch


class Settings(NamedTuple):
    """What `fit` was asked for, as far as the steps are concerned."""

    fetch_every: int
    tol: float | None
    prefetch: int
    first_epoch: int  # where the run began, which is not 0 where an earlier call of `fit` has trained the state
    end: int  # the epoch before which it ends
    numbers: dict[str, Any]  # the hyperparameters that it goes by, for a later process to compare


class RolledBackError(Exception):
    """The run stands at an earlier place; the data must be opened anew."""


class Run:
    """A training run at some place in its data: it makes steps, fetches their numbers and acts on them."""

    def __init__(
        self,
        step: Step,
        state: TrainState,
        settings: Settings,
        *,
        place: Place,
        recorder: Recorder,
        plateau: Plateau,
        progress: Progress,
        log: JsonlLog,
        saver: Saver,
        interrupt: Interruptible,
        eval_fn: EvalFn | None,
        best: BestStates | None,
        notices: Notices,
    ):
        self.step, self.state, self.settings, self.place = step, state, settings, place
        self.recorder, self.plateau, self.progress, self.log = recorder, plateau, progress, log
        self.saver, self.interrupt, self.eval_fn, self.best = saver, interrupt, eval_fn, best
        self.notices = notices
        self.position = int(state.step)  # counted here, since the state's own counter would have to be fetched
        self.epoch_start = self.position
        self.epoch = place.epoch
        self._next_place = place
        self.running: Array = running_beside(state)
        self.stopped: StopReason | None = None
        self.summary: dict[str, float] = {}
        self.keeper: StateKeeper | None = None
        self.left_out: set[tuple[int, int]] = set()  # epoch and batch, counted from 1, that a rollback gave up
        self._batches: dict[int, tuple[Place, Callable[[], PyTree]]] = {}  # by step, since the last fetch
        self._steps_at_once, self._is_compiled = 1, False
        self._replaced_names: set[str] = set()  # that eval_fn returns too, and that were warned of
        self._monitor_is_known = plateau.name in ALWAYS or f"epoch_{plateau.name}" in recorder.epochs

    @property
    def where(self) -> str:
        """The place, for a person; epochs counted from 0, as everywhere."""
        within = f", batch {self.place.batch}" if self.place.batch else ""
        return f"step {self.position}, epoch {self.place.epoch}{within}"

    def begin_rollback(self, rollback: Rollback) -> None:
        """Keeps the last good state from here on."""
        self.keeper = rollback.start(self.state, self._rollback_position())

    def run_epoch(self, data: Data, scan: EpochScan | None) -> None:
        """Trains from the place to the end of its epoch, or until there is a reason to stop."""
        self.epoch = self.place.epoch
        source = Source(data, self.place, self.settings.prefetch, self._keeps_places)
        self.progress.start(self.epoch, source.length, self.place.batch)
        self.epoch_start = self.position - self._steps_up_to(self.place)
        if scan is not None:
            self._scan_batches(scan)
            source = Source(data, self.place, self.settings.prefetch, self._keeps_places)
        if not self.stopped:
            self._step_through(source)
        if self.place.batch == 0:
            raise ValueError(_no_batches(self.epoch, source.batches))
        self.fetch()
        self._next_place = source.after()

    def end_epoch(self) -> bool:
        """Sums the epoch up in `summary`, and moves the place to the start of the next.

        Returns:
            Whether the number that is monitored is the best so far.
        """
        count = min(self.position - self.epoch_start, self.recorder.count)  # the rest was made in an earlier call
        summary = self.recorder.means(count, self.step.on_nonfinite != "ignore")
        summary["nonfinite"] = self.recorder.not_finite(count) if count else 0
        if self.eval_fn is not None:
            summary |= self._evaluated(self.eval_fn, set(summary))
        is_best = self.plateau.take(summary, self.position, self.epoch)
        if is_best and self.best is not None:
            self.best.keep(self.position, self.state, self._steps_of_bests())
        self.recorder.close_epoch(summary)
        self.log.write("epoch", {"epoch": self.epoch, "step": self.position} | summary)
        self.progress.finish(self.epoch, summary)
        self.place, self.summary = self._next_place, summary
        return is_best

    def fetch(self) -> None:
        """Fetches the numbers of the steps since the last time, writes them down and acts on them."""
        records = self.recorder.fetch()
        batches, self._batches = self._batches, {}
        for record, bad_leaf in records:
            leaf = {} if bad_leaf == ALL_FINITE else {"nonfinite_leaf": leaf_name(bad_leaf, self.state.params)}
            self.log.write("step", record | leaf)
            place, batch = batches.get(record["step"], (None, lambda: None))
            self._handle_events(record, bad_leaf, place, batch)
            if self.settings.tol is not None and record["grad_norm"] <= self.settings.tol:
                self.stopped = self.stopped or "converged"
        if records:
            last = records[-1].scalars
            self.progress.show({name: float(last[name]) for name in ("loss", "grad_norm") if name in last})
        if self.keeper is not None:
            self.keeper.confirm(self.position)

    def snapshot(self) -> Snapshot:
        """What a checkpoint holds of the run as it stands, its numbers fetched."""
        self.fetch()
        memory = {
            "place": list(self.place),
            "first_epoch": self.settings.first_epoch,
            "numbers": self.settings.numbers,
            "optimizer": optimizer_text(self.step.optimizer),
            "monitor": self.plateau.monitor,
            "watched": list(self.plateau.watched),
            "left_out": sorted(self.left_out),
            "stopped": self.stopped,
            "tol": self.settings.tol,
        }
        return Snapshot(self.state, memory, self.recorder.snapshot())

    def close(self) -> None:
        """Closes the bar and the log."""
        self.progress.close()
        self.log.close()

    def _step_through(self, source: Source) -> None:
        """Makes one step for each batch."""
        is_checked = False
        for batch, place in source:
            if not is_checked:
                check_batch("fit", batch)
                is_checked = True
            if (place.epoch, place.batch) in self.left_out:
                self.place = place
                continue
            self._check_monitor(batch)
            self.state, metrics, bad_leaf, self.running = self.step.compiled(self.state, batch, self.running)
            self.recorder.add(self.position, place.epoch, metrics, bad_leaf)
            if self._keeps_batches:
                self._batches[self.position] = place, lambda batch=batch: batch
            self._count_steps(1, place)
            self._after_steps()
            if self.stopped:
                break

    def _scan_batches(self, scan: EpochScan) -> None:
        """Makes steps in a compiled loop, as many at once as take a short time."""
        if self.place.batch < scan.batches and not self._monitor_is_known:
            self._check_monitor(scan.batch(self.epoch, self.place.batch))
        while self.place.batch < scan.batches and not self.stopped:
            first = self.place.batch
            left_out = [batch - 1 for epoch, batch in self.left_out if epoch == self.epoch and batch > first]
            if first in left_out:
                self.place = scan.place(self.epoch, first + 1)
                continue
            count = self._count_to_scan(first, [scan.batches, *left_out])
            started = time.perf_counter()
            result = scan(self.state, self.running, self.epoch, first, count)
            self.state, self.running = result.state, result.running
            self.recorder.add_many(self.position, self.epoch, count, result.scalars, result.bad_leaves, scan.names)
            if self._keeps_batches:
                for i in range(first, first + count):
                    place = scan.place(self.epoch, i + 1)
                    self._batches[self.position + i - first] = place, lambda i=i: scan.batch(self.epoch, i)
            self._count_steps(count, scan.place(self.epoch, first + count))
            jax.block_until_ready(result.bad_leaves)
            if self._is_compiled:  # the first time takes as long as compiling does
                per_step = (time.perf_counter() - started) / count
                self._steps_at_once = max(1, min(self.settings.fetch_every, int(SECONDS / per_step)))
            self._is_compiled = True
            self._after_steps()

    def _count_to_scan(self, first: int, ends: list[int]) -> int:
        """How many batches from `first` on go into one call of the compiled loop."""
        every = self.settings.fetch_every
        until_fetch = every - (self.position - self.epoch_start) % every
        until_end = min(ends) - first
        return int(min(self._steps_at_once, until_fetch, until_end, self.saver.steps_until(self.position)))

    def _count_steps(self, count: int, place: Place) -> None:
        self.position += count
        self.place = place
        self.progress.add_steps(count)

    def _after_steps(self) -> None:
        if (self.position - self.epoch_start) % self.settings.fetch_every == 0:
            self.fetch()
        if self.keeper is not None:
            self.keeper.note(self.state, self.position, self._rollback_position())
        self.saver.after_step(self)
        if self.interrupt.requested:
            self.stopped = self.stopped or "interrupted"

    def _steps_up_to(self, place: Place) -> int:
        """The steps of an epoch up to a place: batches that were left out made none."""
        return place.batch - sum(epoch == place.epoch and batch <= place.batch for epoch, batch in self.left_out)

    @property
    def _keeps_places(self) -> bool:
        return self.saver.active or self.keeper is not None

    @property
    def _keeps_batches(self) -> bool:
        return self.step.guard is not None or self.step.debug is not None or self.keeper is not None

    def _check_monitor(self, batch: PyTree) -> None:
        """Refuses, before the first step, a `monitor` that no number will have as its name."""
        if not self._monitor_is_known:
            name = self.plateau.name
            self.plateau.check(names_before_training(self.step, self.state, batch, self.eval_fn, name))
            self._monitor_is_known = True

    def _evaluated(self, eval_fn: EvalFn, names: set[str]) -> dict[str, float]:
        """What `eval_fn` returns; warns once where it replaces one of the epoch's own `names`."""
        numbers = evaluated(eval_fn, self.state)
        replaced = sorted(names & numbers.keys() - self._replaced_names)
        self._replaced_names |= set(replaced)
        if replaced:
            self.notices.warn(
                f"eval_fn returns {', '.join(map(repr, replaced))}, which takes the place of the training's own in the"
                " epoch's summary; under another name, such as 'val_loss', both are kept."
            )
        return numbers

    def _steps_of_bests(self) -> set[int]:
        """The bests that a rollback may come back to."""
        return set() if self.keeper is None else {watched.step for _, _, watched in self.keeper.positions()}

    def _rollback_position(self) -> tuple[Place, int, Watched]:
        """What goes back with the state in a rollback."""
        return self.place, self.recorder.closed, self.plateau.watched

    def _handle_events(
        self, record: dict[str, Any], bad_leaf: int, place: Place | None, batch: Callable[[], PyTree]
    ) -> None:
        """Writes down what happened in a step; where that ends the run, goes back to a good state or raises."""
        outcome = int(self.step.outcome(record, bad_leaf))
        if outcome == (ALL_FINITE if self.step.guard is None else 0):
            return
        stops = self.step.has_stopped(outcome)
        events = events_of(record, step=record["step"], params=self.state.params, batch=batch(), bad_leaf=bad_leaf)
        events = [{"action": "stop" if stops else self.step.on_nonfinite} | event for event in events]
        for event in events:
            self.log.write(event["kind"], {name: value for name, value in event.items() if name != "kind"})
        if not stops:
            return
        if self.keeper is None:
            error = self.step.error_of(record, bad_leaf, self.state, batch())
            if error is not None:
                raise error
            return
        recovery = self.keeper.recover(events)
        if recovery is not None and place is not None:
            self._roll_back(recovery, place)

    def _roll_back(self, recovery: Recovery, trouble: Place) -> None:
        self.state, (self.place, closed, self.plateau.watched), event = recovery
        self.left_out.add((trouble.epoch, trouble.batch))
        self.position, self.running = int(self.state.step), running_beside(self.state)
        self.recorder.cut_back(self.position, closed)
        self.log.cut_back(self.position, self.place.epoch, events=False)
        self.log.write("rollback", {name: value for name, value in event.items() if name != "kind"})
        raise RolledBackError


def _no_batches(epoch: int, batches: Any) -> str:
    if epoch and isinstance(batches, Iterator):
        return (
            f"fit: no batch in epoch {epoch}: the data is an iterator, which can be gone through once."
            " Pass a list, a loader, or a function of the epoch that returns an iterable."
        )
    return f"fit: the data held no batch in epoch {epoch}; expected at least one."
