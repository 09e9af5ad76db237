"""What the loop of `fit` carries along: state, position, records; and what it does at each step."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from jgd.core import PyTree
from jgd.train._state import TrainState
from jgd.train.data._checks import check_batch
from jgd.train.data._position import Data, Place, Source
from jgd.train.guards._events import events_of
from jgd.train.guards._finite import ALL_FINITE, leaf_name
from jgd.train.loop._best import BestStates
from jgd.train.loop._epoch_scan import SECONDS, EpochScan
from jgd.train.loop._history import Recorder
from jgd.train.loop._interrupt import Interruptible
from jgd.train.loop._log import JsonlLog
from jgd.train.loop._notices import Notices
from jgd.train.loop._plateau import Plateau, Watched
from jgd.train.loop._progress import Progress
from jgd.train.loop._resume import rule_of
from jgd.train.loop._rollback import Rollback, StateKeeper
from jgd.train.loop._saving import Saver
from jgd.train.loop._summary import ALWAYS, EvalFn, evaluated, names_before_training
from jgd.train.step._make_step import Step, running_beside


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
    """A run at some place: it makes steps, fetches their numbers and acts on them."""

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
        self.running: Any = running_beside(state)
        self.stopped = ""
        self.summary: dict[str, float] = {}
        self.keeper: StateKeeper | None = None
        self.left_out: set[tuple[int, int]] = set()  # epoch and batch, counted from 1, that a rollback gave up
        self._batches: dict[int, tuple[Place, Callable[[], PyTree]]] = {}  # by step, since the last fetch
        self._stride, self._timed = 1, False
        self._said_of: set[str] = set()
        self._is_monitored = plateau.name in ALWAYS or f"epoch_{plateau.name}" in recorder.epochs

    @property
    def where(self) -> str:
        """The place, for a person; epochs counted from 0, as everywhere."""
        within = f", batch {self.place.batch}" if self.place.batch else ""
        return f"step {self.position}, epoch {self.place.epoch}{within}"

    def begin_rollback(self, rollback: Rollback) -> None:
        """Keeps the last good state from here on."""
        self.keeper = rollback.start(self.state, self._mark())

    def run_epoch(self, data: Data, loop: EpochScan | None) -> None:
        """Goes through the data from the place on to the end of its epoch, or until there is a reason to stop."""
        self.epoch = self.place.epoch
        source = Source(data, self.place, self.settings.prefetch, self._keeps_places)
        self.progress.start(self.epoch, source.length, self.place.batch)
        self.epoch_start = self.position - self.steps_of(self.place)
        if loop is not None:
            self._run_loop(loop)
            source = Source(data, self.place, self.settings.prefetch, self._keeps_places)
        if not self.stopped:
            is_checked = False
            for batch, place in source:
                is_checked = is_checked or check_batch(batch)
                if (place.epoch, place.batch) in self.left_out:
                    self.place = place
                    continue
                self._advance(batch, place)
                self._after_step()
                if self.stopped:
                    break
        if self.place.batch == 0:
            raise ValueError(_no_batches(self.epoch, source.batches))
        self.fetch()
        self._next = source.after()

    def steps_of(self, place: Place) -> int:
        """The steps of an epoch up to a place: batches that were left out made none."""
        return place.batch - sum(epoch == place.epoch and batch <= place.batch for epoch, batch in self.left_out)

    def end_epoch(self) -> bool:
        """The epoch in numbers, in `summary`; the place is the next epoch's start from here on.

        Returns:
            Whether the number that is watched is the best so far.
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
        self.place, self.summary = self._next, summary
        return is_best

    def _evaluated(self, eval_fn: EvalFn, own: set[str]) -> dict[str, float]:
        found = evaluated(eval_fn, self.state)
        taken = sorted(own & found.keys() - self._said_of)
        self._said_of |= set(taken)
        if taken:
            self.notices.warn(
                f"eval_fn returns {', '.join(map(repr, taken))}, which takes the place of the training's own in the"
                " epoch's summary; under another name, such as 'val_loss', both are kept."
            )
        return found

    def memory(self) -> dict[str, Any]:
        """What a later process must know beside the state and the history, as JSON holds it."""
        return {
            "place": list(self.place),
            "first_epoch": self.settings.first_epoch,
            "numbers": self.settings.numbers,
            "optimizer": rule_of(self.step.optimizer),
            "monitor": self.plateau.monitor,
            "watched": list(self.plateau.watched),
            "left_out": sorted(self.left_out),
            "stopped": self.stopped,
            "tol": self.settings.tol,
        }

    def close(self) -> None:
        """Lets go of the bar and the file."""
        self.progress.close()
        self.log.close()

    @property
    def _keeps_places(self) -> bool:
        return self.saver.active or self.keeper is not None

    @property
    def _keeps_batches(self) -> bool:
        return self.step.guard is not None or self.step.debug is not None or self.keeper is not None

    def _before_first(self, batch: PyTree) -> None:
        """Sees that there will be a number of the name that is to be watched."""
        if not self._is_monitored:
            name = self.plateau.name
            self.plateau.check(names_before_training(self.step, self.state, batch, self.eval_fn, name))
            self._is_monitored = True

    def _advance(self, batch: PyTree, place: Place) -> None:
        self._before_first(batch)
        self.state, metrics, bad_leaf, self.running = self.step.compiled(self.state, batch, self.running)
        self.recorder.add(self.position, place.epoch, metrics, bad_leaf)
        if self._keeps_batches:
            self._batches[self.position] = place, lambda: batch
        self.position += 1
        self.place = place
        self.progress.advance()

    def _run_loop(self, loop: EpochScan) -> None:
        """Steps in a compiled loop, as many at once as take a short time."""
        if self.place.batch < loop.batches and not self._is_monitored:
            self._before_first(loop.batch(self.epoch, self.place.batch))
        every = self.settings.fetch_every
        while self.place.batch < loop.batches and not self.stopped:
            first = self.place.batch
            skipped = [batch - 1 for epoch, batch in self.left_out if epoch == self.epoch and batch > first]
            if first in skipped:
                self.place = loop.place(self.epoch, first + 1)
                continue
            until_fetch = every - (self.position - self.epoch_start) % every
            ends = [self._stride, until_fetch, loop.batches - first, self.saver.steps_until(self.position)]
            count = min(ends + [batch - first for batch in skipped])
            began = time.perf_counter()
            result = loop(self.state, self.running, self.epoch, first, count)
            self.state, self.running = result.state, result.running
            self.recorder.add_many(self.position, self.epoch, count, result.scalars, result.bad_leaves, loop.names)
            if self._keeps_batches:
                for i in range(count):
                    place = loop.place(self.epoch, first + i + 1)
                    self._batches[self.position + i] = place, lambda i=first + i: loop.batch(self.epoch, i)
            self.position += count
            self.place = loop.place(self.epoch, first + count)
            self.progress.advance(count)
            jax.block_until_ready(result.bad_leaves)
            if self._timed:  # the first time it was compiled
                per_step = (time.perf_counter() - began) / count
                self._stride = max(1, min(every, int(SECONDS / per_step)))
            self._timed = True
            self._after_step()

    def _steps_of_bests(self) -> set[int]:
        """The bests that a rollback may come back to."""
        return set() if self.keeper is None else {watched.step for _, _, watched in self.keeper.positions()}

    def _mark(self) -> tuple[Place, int, Watched]:
        """What goes back with the state in a rollback."""
        return self.place, self.recorder.closed, self.plateau.watched

    def _after_step(self) -> None:
        if (self.position - self.epoch_start) % self.settings.fetch_every == 0:
            self.fetch()
        if self.keeper is not None:
            self.keeper.note(self.state, self.position, self._mark())
        self.saver.after_step(self)
        if self.interrupt.requested and not self.stopped:
            self.stopped = self.interrupt.requested

    def fetch(self) -> None:
        """Brings the numbers of the last steps over, and looks at them."""
        records = self.recorder.fetch()
        batches, self._batches = self._batches, {}
        for record, bad_leaf in records:
            leaf = {} if bad_leaf == ALL_FINITE else {"nonfinite_leaf": leaf_name(bad_leaf, self.state.params)}
            self.log.write("step", record | leaf)
            place, batch = batches.get(record["step"], (None, lambda: None))
            self._handle_events(record, bad_leaf, place, batch)
            if self.settings.tol is not None and record["grad_norm"] <= self.settings.tol and not self.stopped:
                self.stopped = "converged"
        if records:
            last = records[-1].scalars
            self.progress.show({name: float(last[name]) for name in ("loss", "grad_norm") if name in last})
        if self.keeper is not None:
            self.keeper.confirm(self.position)

    def _handle_events(
        self, record: dict[str, Any], bad_leaf: int, place: Place | None, batch: Callable[[], PyTree]
    ) -> None:
        """Writes down what happened in a step; where that ends the run, goes back to a good state or raises."""
        outcome = int(self.step.outcome(record, bad_leaf))
        stops = self.step.has_stopped(outcome)
        nothing = ALL_FINITE if self.step.guard is None else 0
        if outcome == nothing:
            return
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
            self._go_back(recovery, place)

    def _go_back(self, recovery: Any, trouble: Place) -> None:
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
