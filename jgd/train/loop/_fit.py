"""The training loop: data, progress, evaluation, logs, checkpoints, and when to stop."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jgd.train._state import TrainState
from jgd.train.checkpoints._folder import Checkpoints
from jgd.train.data._checks import check_data, check_divides
from jgd.train.data._marks import loader_left_at, place_of, remember
from jgd.train.data._position import Data, Place
from jgd.train.loop._ends import (
    note_interrupt,
    note_what_is_unused,
    place_of_result,
    rescue,
    result,
    resume_run,
)
from jgd.train.loop._epoch_scan import EpochScan, Scan, epoch_scan
from jgd.train.loop._history import History, Recorder
from jgd.train.loop._interrupt import Interruptible, OnInterrupt
from jgd.train.loop._log import JsonlLog
from jgd.train.loop._notices import Notices
from jgd.train.loop._options import check_options, check_run
from jgd.train.loop._plateau import BestStates, Plateau
from jgd.train.loop._progress import Progress
from jgd.train.loop._resume import Resume, Start, start_of
from jgd.train.loop._rollback import Rollback
from jgd.train.loop._run import RolledBackError, Run, Settings
from jgd.train.loop._saving import Saver
from jgd.train.loop._summary import EvalFn
from jgd.train.step._make_step import Step

Callback = Callable[[TrainState, Mapping[str, float]], Any]


def fit(
    state: TrainState,
    step: Step,
    data: Data,
    *,
    epochs: int,
    eval_fn: EvalFn | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint_dir: str | Path | Checkpoints | None = None,
    resume: Resume = True,
    log_dir: str | Path | None = None,
    progress: bool = True,
    fetch_every: int = 50,
    prefetch: int = 0,
    scan: Scan = "auto",
    rollback: Rollback | None = None,
    tol: float | None = None,
    patience: int | None = None,
    min_delta: float = 0.0,
    monitor: str = "loss",
    restore_best: bool = False,
    on_interrupt: OnInterrupt = "auto",
) -> tuple[TrainState, History]:
    """Trains for some epochs, or until a stopping criterion is met.

    The loop does not wait for the device at each step: it hands over steps, and fetches their numbers every
    `fetch_every` of them. A step that is not finite is therefore noticed a little later, but the steps after it have
    not changed the state.

    Args:
        state: The state to start from. Its memory is reused if `step` donates; go on with the one returned.
        step: What `make_step` returned.
        data: Batches: an iterable that can be gone through once an epoch (a list, a loader), or a function of the
            epoch, counted from 0, that returns one. An `ArrayLoader` gives each epoch an order of its own; with other
            data the function does that. A state that an earlier call has returned goes on where that call ended, if
            it is given with the same data: epochs and their orders go on, and so do their numbers. Any other state
            begins at epoch 0, or where `loader.seek` was told to go. A loader is left where the run ends.
        epochs: How many times to go through the data in this call, at least 1; with checkpoints, in the whole run.
        eval_fn: `eval_fn(state) -> {name: scalar}`, called after each epoch.
        callbacks: Each called as `callback(state, summary)` after each epoch; `summary` holds `epoch`, `step` (so many
            were made), the epoch's means of `loss` and of the scalars of `aux`, and what `eval_fn` returned. One that
            returns True ends the run.
        checkpoint_dir: A folder for checkpoints, or `Checkpoints(folder, ...)` to say when they are written and which
            are kept. A checkpoint holds all that is needed to go on as if nothing had happened: the state, the
            position in the data, the history. It is written while training goes on; one that cannot be written is
            warned of and logged, and training goes on. None for none.
        resume: Whether to go on from the newest whole checkpoint, if there is one. True or `"state"`: with all that it
            holds, its hyperparameters above all; `"hyperparams"`: with the hyperparameters of the state given. The run
            says from where it goes on, which hyperparameters, guard's limits or seed somebody has changed since and
            which are used, and if nothing is left to do. The history returned and the log are those of the whole run,
            and `epochs` and `patience` count from its start. Data that says nothing of its position is drawn and
            dropped up to there. A schedule is code: that of the step counts.
        log_dir: A folder for `history.jsonl`: a line a step, a line an epoch and a line for each event: steps left
            out, spikes, rollbacks, a resumption, an error. A resumed run goes on with its log, and a run whose first
            step follows upon the log's last goes on with that. Any other begins a new one, and the earlier run's is
            kept as `history-1.jsonl`, `history-2.jsonl` and so on, the oldest being the first. None for none.
        progress: Whether to show a bar, in a terminal or a notebook, and a line an epoch: its number as in the
            history, the numbers of its summary, its time with evaluation, and the steps a second without.
        fetch_every: How many steps lie between two fetches of their numbers.
        prefetch: How many batches are drawn and placed on the device before the step asks for them. 0 for none: the
            device works while the host draws the next batch in any case; 2 helps where drawing takes uneven times.
        scan: Whether steps over an `ArrayLoader` run in one compiled loop, `fetch_every` at a time or fewer, with the
            arrays on the device. `"auto"`: where the arrays take at most 1 GiB and a quarter of the device's memory,
            the state is on one device, and on a CPU the step has no convolution, which XLA runs slowly within a loop.
        rollback: `Rollback(...)` to go back to the last good state where a step would end the run. None for an error.
        tol: End the run once the gradient norm of a step is at most this, at least 0. None for no such test. It is
            noticed when the numbers of that step are fetched, so some steps may follow. A decay in the optimizer is no
            part of the gradient: for a penalty that counts, put it into the loss.
        patience: End it after so many epochs in a row, at least 1, without an improvement of `monitor`. None for no
            such test.
        min_delta: An improvement is better than the best so far by more than this, at least 0; as in Keras and
            Lightning. A value that is NaN or infinite is none.
        monitor: A name in the epoch's summary; smaller is better. Put a minus before it where larger is. To know the
            names before the first step, `eval_fn` is called once more, if it must be.
        restore_best: Whether to return the state after the epoch in which `monitor` was best, `min_delta` counted. It
            waits in the host's memory, and among the checkpoints, so that a resumed run knows it.
        on_interrupt: What follows Ctrl-C and SIGTERM once the step at hand is done and all is saved. `"auto"`: after
            Ctrl-C `fit` returns; SIGTERM, to which it listens where there are checkpoints, ends the program with exit
            status 143 by `SystemExit`, but where the program has a handler of its own, that is called. `"exit"`: Ctrl-C
            raises `KeyboardInterrupt` as well, which is status 130 to a shell. `"return"`: `fit` returns after both.
            The second signal acts at once.

    Returns:
        `(state, history)`. `history` maps names to plain arrays: `step`, `epoch` and the scalar metrics of the
        step, one entry a step; `epoch_<name>` for each number of the epoch's summary, one entry an epoch; with
        `restore_best` also `best_step` and `best_epoch`, -1 if there is none; and `stopped`, why the run ended:

        - `"finished"`: all epochs are done;
        - `"converged"`: the gradient is as small as `tol`;
        - `"early_stopping"`: `patience` is at its end; `"nan_metric"`: it is, and `monitor` is not a finite number;
        - `"callback"`: a callback returned True;
        - `"interrupted"`: by Ctrl-C or SIGTERM; see `on_interrupt`.

        Where there was something to tell, `notices` lists it; it was also printed, if progress is shown, logged as a
        line of kind `"notice"`, and given to the logger `"jgd"`. The means of an epoch are over the steps that were
        made: without those that were skipped.

    Raises:
        ValueError: An invalid option, data without batches, an unknown `monitor`, a checkpoint that does not
            fit the state (the message names every leaf that differs) or the data.
        CheckpointError: The folder cannot be written to, or all its checkpoints are damaged; before the first step.
        RollbackError: There was one rollback too many.
        TypeError: `step` was not made by `make_step`; an option, the data or a batch of another kind.
        SystemExit, KeyboardInterrupt: See `on_interrupt`. They carry `.state` and `.history`.
        NonFiniteError: A step is not finite, and `step` raises then; its `.state` is the state before that step.
        Exception: What data, `eval_fn` or a callback raises, after what was trained so far is saved. A note says where
            the run was; the state and history are in the error's `.state` and `.history`.
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
    check_run(state, step)
    check_options(step, locals())
    check_data(data)
    check_divides(data, step.options.accumulate)

    saver = Saver(checkpoint_dir)
    restored = saver.start(state, resume is not False)
    start = start_of(state, restored, resume) if saver.active else Start(state, {}, [])
    memory = restored.record["extra"] if restored else {}
    place = Place(*memory["place"]) if restored else place_of(state, data)
    first_epoch = memory.get("first_epoch", 0) if restored else place.epoch
    end = first_epoch + int(epochs)
    bar = Progress(progress, end)
    log = JsonlLog(log_dir, resumed=restored.history if restored else None, step=int(state.step))
    run = Run(
        step,
        start.state,
        Settings(int(fetch_every), tol, int(prefetch), first_epoch, end, start.numbers),
        place=place,
        recorder=Recorder(restored.history if restored else None),
        plateau=Plateau(patience, min_delta, monitor, restore_best),
        progress=bar,
        log=log,
        saver=saver,
        interrupt=Interruptible(terminable=saver.active or on_interrupt == "return"),
        eval_fn=eval_fn,
        best=BestStates() if restore_best else None,
        notices=Notices(bar, progress, log),
    )
    with contextlib.closing(run), loader_left_at(lambda: run.place, data):
        if restored:
            resume_run(run, memory, restored.path, start.warnings)
        note_what_is_unused(run, is_new=restored is None)
        if log.set_aside is not None:
            run.notices.tell(f"the log of an earlier run is now {log.set_aside}.")
        try:
            scanned = epoch_scan(scan, step, data, run.state, run.settings.fetch_every)
            if rollback is not None:
                run.begin_rollback(rollback)
            with run.interrupt:
                _train(run, data, scanned, callbacks)
                saver.finish(run, run.summary)
        except KeyboardInterrupt:
            if run.interrupt.requested:  # the second time it is pressed
                raise
            run.interrupt.was_raised()
            run.stopped = "interrupted"
            saver.finish(run)
        except Exception as error:
            rescue(run, error)
            raise
        note_interrupt(run, on_interrupt)
        state, history = result(run)
    remember(state, data, place_of_result(run))
    run.interrupt.deliver(on_interrupt, state, history)
    return state, history


def _train(run: Run, data: Data, scanned: EpochScan | None, callbacks: Sequence[Callback]) -> None:
    """Runs epochs until there is a reason to stop."""
    while run.place.epoch < run.settings.end and not run.stopped:
        try:
            run.run_epoch(data, scanned)
        except RolledBackError:
            continue
        if run.stopped == "interrupted":  # within an epoch, which is then not at its end
            return
        is_best = run.end_epoch()
        run.saver.after_epoch(run, run.summary, is_best and run.best is not None)
        position = {"epoch": run.epoch, "step": run.position}
        returned = [callback(run.state, position | run.summary) for callback in callbacks]
        if any(isinstance(value, bool | np.bool_) and value for value in returned):
            run.stopped = run.stopped or "callback"
        run.stopped = run.stopped or run.plateau.reason
        if run.place.epoch < run.settings.end and run.interrupt.requested:
            run.stopped = run.stopped or "interrupted"
