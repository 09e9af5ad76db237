"""The loop around the step: data, progress, evaluation, records, and knowing when to stop."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np

from jgd.core import PyTree
from jgd.train._checkpoint import restore_checkpoint, save_checkpoint
from jgd.train._finite import ALL_FINITE, NonFiniteError, leaf_name
from jgd.train._history import History, Recorder
from jgd.train._interrupt import Interruptible
from jgd.train._log import JsonlLog
from jgd.train._progress import Progress
from jgd.train._state import TrainState
from jgd.train._step import ALIVE, Step, check_state

Data = Iterable[PyTree] | Callable[[int], Iterable[PyTree]]
Callback = Callable[[TrainState, Mapping[str, float]], Any]


def fit(
    state: TrainState,
    step: Step,
    data: Data,
    *,
    epochs: int,
    eval_fn: Callable[[TrainState], Mapping[str, Any]] | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint_dir: str | Path | None = None,
    resume: bool = True,
    log_dir: str | Path | None = None,
    progress: bool = True,
    fetch_every: int = 50,
    tol: float | None = None,
    patience: int | None = None,
    min_delta: float = 0.0,
    monitor: str = "loss",
) -> tuple[TrainState, History]:
    """Trains for some epochs, or until there is nothing more to gain.

    The loop does not wait for the device at each step: it hands over steps, and fetches their numbers every
    `fetch_every` of them. A bad step is therefore noticed a little later, but what came after it has not touched the
    state.

    Args:
        state: The state to start from. Its memory is reused if `step` donates; go on with the one returned.
        step: What `make_step` returned.
        data: Batches: an iterable that can be gone through once an epoch (a list, a loader), or a function of the
            epoch, counted from 0, that returns one; the function is how each epoch gets an order of its own.
        epochs: How many times to go through the data, at least 1.
        eval_fn: `eval_fn(state) -> {name: scalar}`, called after each epoch.
        callbacks: Each called as `callback(state, summary)` after each epoch; `summary` holds `epoch`, `step` (so many
            were made), the epoch's means of `loss` and of the scalars of `aux`, and what `eval_fn` returned. One that
            returns True ends the run.
        checkpoint_dir: A folder that holds the state as of the last finished epoch, and its number. None for none.
        resume: Whether to start from what `checkpoint_dir` holds, if it holds something.
        log_dir: A folder for `history.jsonl`: a line a step and a line an epoch. None for none.
        progress: Whether to show a bar and a line an epoch.
        fetch_every: How many steps go by between two fetches of their numbers.
        tol: End the run once the gradient norm of a step is at most this. None for no such test. It is noticed when
            the numbers of that step are fetched, so some steps may follow. A decay in the optimizer is no part of the
            gradient: for a penalty that counts, put it into the loss.
        patience: End it after so many epochs in which `monitor` has not fallen by more than `min_delta`. None for
            no such test.
        min_delta: See `patience`.
        monitor: A name in the epoch's summary; smaller is better. Put a minus before it where larger is.

    Returns:
        `(state, history)`. `history` maps names to plain arrays: `step`, `epoch` and the scalar metrics of the
        step, one entry a step; `epoch_<name>` for each number of the epoch's summary, one entry an epoch; and
        `stopped`, the text `"epochs"`, `"converged"` (`tol`, `patience`), `"callback"` or `"interrupted"`.
        Ctrl-C ends the run after the step at hand and returns what there is; pressed again, it raises.

    Raises:
        ValueError: An option that cannot be, data without batches, an unknown `monitor`.
        TypeError: `step` was not made by `make_step`.
        NonFiniteError: If `step` raises on such; its `.state` is the state before the bad step.
        ImportError: tqdm (for `progress`) or orbax (for `checkpoint_dir`) is not installed: extra `train`.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.gradient_descent(0.1)
        >>> step = jgd.make_step(lambda w, batch: jnp.mean((w - batch) ** 2), optimizer)
        >>> state = jgd.TrainState.create(jnp.array(5.0), optimizer)
        >>> state, history = jgd.fit(state, step, [jnp.array([2.0])], epochs=1000, tol=1e-4, progress=False)
        >>> print(state.params.round(3), history["stopped"], len(history["loss"]) < 60)
        2.0 converged True
    """
    if not isinstance(step, Step):
        raise TypeError(f"fit: expected the step that make_step returned; got a {type(step).__name__}.")
    for name, value in (("epochs", epochs), ("fetch_every", fetch_every)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"fit: {name} must be a whole number of at least 1; got {value!r}.")
    if tol is not None and not step.norms:
        raise ValueError("fit: tol is compared with the gradient norm, which this step leaves out (norms=False).")
    check_state(state)

    state, first_epoch = _resume(state, checkpoint_dir if resume else None)
    run = _Run(step, state, fetch_every, tol, Progress(progress, epochs), JsonlLog(log_dir, append=first_epoch > 0))
    plateau = _Plateau(patience, min_delta, monitor)
    interrupt = Interruptible()
    try:
        with interrupt:
            for epoch in range(first_epoch, epochs):
                run.epoch(epoch, data, interrupt)
                if run.stopped == "interrupted":
                    break
                summary = run.summarise(epoch, eval_fn)
                if checkpoint_dir is not None:
                    _save(checkpoint_dir, run.state, epoch)
                place = {"epoch": epoch, "step": run.position}
                if True in [callback(run.state, place | summary) for callback in callbacks]:
                    run.stopped = run.stopped or "callback"
                if plateau.reached(summary):
                    run.stopped = run.stopped or "converged"
                if run.stopped:
                    break
    except KeyboardInterrupt:
        if interrupt.requested:  # the second time it is pressed
            raise
        run.stopped = "interrupted"
    finally:
        run.close()
    return run.state, run.recorder.history(run.stopped or "epochs")


class _Run:
    """What the loop carries along."""

    def __init__(
        self, step: Step, state: TrainState, fetch_every: int, tol: float | None, progress: Progress, log: JsonlLog
    ):
        self.step, self.state, self.fetch_every, self.tol = step, state, fetch_every, tol
        self.progress, self.log, self.recorder = progress, log, Recorder()
        self.position = int(state.step)  # counted here, since the state's own counter would have to be fetched
        self.first_position = self.epoch_start = self.position
        self.alive: Any = ALIVE
        self.stopped = ""

    def epoch(self, epoch: int, data: Data, interrupt: Interruptible) -> None:
        """Goes through the data once, or until there is a reason to stop."""
        batches = data(epoch) if callable(data) else data
        self.progress.start(epoch, len(batches) if isinstance(batches, Sized) else None)
        self.epoch_start = self.position
        for batch in batches:
            self._advance(epoch, batch)
            if (self.position - self.epoch_start) % self.fetch_every == 0:
                self._fetch()
            if interrupt.requested and not self.stopped:
                self.stopped = "interrupted"
            if self.stopped:
                break
        if self.position == self.epoch_start:
            raise ValueError(_no_batches(epoch, batches))
        self._fetch()

    def _advance(self, epoch: int, batch: PyTree) -> None:
        self.state, metrics, bad, self.alive = self.step.compiled(self.state, batch, self.alive)
        self.recorder.add(self.position, epoch, metrics, bad)
        self.position += 1
        self.progress.advance()

    def _fetch(self) -> None:
        """Brings the numbers of the last steps over, and looks at them."""
        records = self.recorder.fetch()
        for record in records:
            bad = int(record.pop("bad"))
            leaf = {} if bad == ALL_FINITE else {"nonfinite_leaf": leaf_name(bad, self.state.params)}
            self.log.write("step", record | leaf)
            if leaf and self.step.on_nonfinite == "raise":
                raise NonFiniteError(record["step"], leaf["nonfinite_leaf"], float(record["loss"]), self.state)
            if self.tol is not None and record["grad_norm"] <= self.tol and not self.stopped:
                self.stopped = "converged"
        if records:
            shown = [name for name in ("loss", "grad_norm") if name in records[-1]]
            self.progress.show({name: float(records[-1][name]) for name in shown})

    def summarise(self, epoch: int, eval_fn: Callable[[TrainState], Mapping[str, Any]] | None) -> dict[str, float]:
        """The epoch in numbers."""
        start = self.epoch_start - self.first_position
        summary = self.recorder.means(start)
        summary["nonfinite"] = int(np.sum(~np.asarray(self.recorder.steps["finite"][start:])))
        if eval_fn is not None:
            summary |= {name: float(value) for name, value in eval_fn(self.state).items()}
        self.recorder.close_epoch(summary)
        self.log.write("epoch", {"epoch": epoch, "step": self.position} | summary)
        self.progress.finish(epoch, summary)
        return summary

    def close(self) -> None:
        """Lets go of the bar and the file."""
        self.progress.close()
        self.log.close()


class _Plateau:
    """Whether a number has stopped falling."""

    def __init__(self, patience: int | None, min_delta: float, monitor: str):
        self.patience, self.min_delta = patience, min_delta
        self.sign = -1.0 if monitor.startswith("-") else 1.0
        self.name = monitor.removeprefix("-")
        self.best, self.waited = float("inf"), 0

    def reached(self, summary: Mapping[str, float]) -> bool:
        """Takes the next epoch's numbers."""
        if self.patience is None:
            return False
        if self.name not in summary:
            raise ValueError(f"fit: monitor={self.name!r} is not among the epoch's numbers: {', '.join(summary)}.")
        value = self.sign * summary[self.name]
        self.waited = 0 if value < self.best - self.min_delta else self.waited + 1
        self.best = min(self.best, value)
        return self.waited >= self.patience


def _no_batches(epoch: int, batches: Any) -> str:
    if epoch and isinstance(batches, Iterator):
        return (
            f"fit: no batch in epoch {epoch}: the data is an iterator, which can be gone through once."
            " Pass a list, a loader, or a function of the epoch that returns an iterable."
        )
    return f"fit: the data held no batch in epoch {epoch}; expected at least one."


def _saved_epochs(checkpoint_dir: str | Path) -> list[int]:
    names = [path.name for path in Path(checkpoint_dir).glob("epoch_*")]
    return sorted(int(name.removeprefix("epoch_")) for name in names if name.removeprefix("epoch_").isdigit())


def _resume(state: TrainState, checkpoint_dir: str | Path | None) -> tuple[TrainState, int]:
    """The newest state in the folder and the epoch that follows it; the given state and 0 where there is none."""
    saved = [] if checkpoint_dir is None else _saved_epochs(checkpoint_dir)
    if checkpoint_dir is None or not saved:
        return state, 0
    return restore_checkpoint(Path(checkpoint_dir) / f"epoch_{saved[-1]}", like=state), saved[-1] + 1


def _save(checkpoint_dir: str | Path, state: TrainState, epoch: int) -> None:
    """Saves one epoch's state, and only then removes those before it."""
    save_checkpoint(Path(checkpoint_dir) / f"epoch_{epoch}", state)
    for old in _saved_epochs(checkpoint_dir):
        if old < epoch:
            shutil.rmtree(Path(checkpoint_dir) / f"epoch_{old}")
