"""How a run goes on from a checkpoint, and how it ends: by itself, by a signal or by an error."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jgd.train._state import TrainState
from jgd.train.data._position import Place
from jgd.train.guards._finite import NonFiniteError, SpikeError
from jgd.train.loop._history import History
from jgd.train.loop._interrupt import OnInterrupt
from jgd.train.loop._plateau import Watched
from jgd.train.loop._resume import describe_optimizers, optimizer_text
from jgd.train.loop._rollback import RollbackError
from jgd.train.loop._run import Run


def resume_run(run: Run, memory: Mapping[str, Any], path: Path, warnings: list[str]) -> None:
    """Restores what an earlier process remembered, and tells the user.

    Args:
        run: The run, at its start.
        memory: That of the `Snapshot` in the checkpoint.
        path: The checkpoint.
        warnings: What there is to say of its state.
    """
    if memory.get("monitor") == run.plateau.monitor:  # the best of another number says nothing of this one
        run.plateau.watched = Watched(*memory["watched"])
    run.left_out = {tuple(pair) for pair in memory["left_out"]}
    run.stopped = run.plateau.reason
    # A run that had arrived by a tolerance at least as strict has nothing left to do.
    tol = run.settings.tol
    if memory.get("stopped") == "converged" and tol is not None and memory["tol"] <= tol:
        run.stopped = run.stopped or "converged"
    run.log.cut_back(run.position, run.place.epoch, events=True)
    run.log.write("resumed", {"epoch": run.place.epoch, "step": run.position, "checkpoint": path.name})
    run.notices.tell(f"resumed from {run.where}, as saved in {path}")
    for text in [*warnings, *describe_optimizers(optimizer_text(run.step.optimizer), memory.get("optimizer", ""))]:
        run.notices.warn(text)
    _recall_best(run)
    if run.stopped or run.place.epoch >= run.settings.end:
        run.notices.warn(
            f"nothing is left to do: {_why_over(run)}. The state returned is that of the checkpoint. To train on,"
            " pass more epochs, another checkpoint_dir or resume=False."
        )


def _recall_best(run: Run) -> None:
    """Reads the best state that an earlier process has left."""
    watched = run.plateau.watched
    if run.best is None or watched.step < 0:
        return
    state = run.saver.recall(run.state, watched.step, {run.plateau.name: run.plateau.best})
    if state is not None:
        run.best.keep(watched.step, state, set())
        return
    run.plateau.watched = Watched()
    run.notices.warn(
        f"the best state before this, after step {watched.step}, is not among the checkpoints: restore_best"
        " returns the best from here on."
    )


def note_what_is_unused(run: Run, is_new: bool) -> None:
    """Tells the user at the start which options and checkpoints have no effect."""
    if is_new and (others := len(run.saver.paths())):
        run.notices.tell(f"a new run; the folder holds {others} checkpoints of other runs, which stay.")
    if not run.plateau.active and (run.plateau.monitor != "loss" or run.plateau.min_delta):
        run.notices.warn("monitor and min_delta have no effect without patience or restore_best.")


def _why_over(run: Run) -> str:
    if run.stopped == "converged":
        return f"the gradient norm had reached tol={run.settings.tol:g}"
    if run.stopped:
        return f"{run.plateau.name} had not improved for {run.plateau.patience} epochs ({run.stopped})"
    done, asked = (epoch - run.settings.first_epoch for epoch in (run.place.epoch, run.settings.end))
    return f"{done} epochs are done" + ("" if done == asked else f", and epochs={asked}")


def note_interrupt(run: Run, on_interrupt: OnInterrupt) -> None:
    """Tells the user after Ctrl-C or SIGTERM what was saved, and how to go on."""
    exit_text = run.interrupt.exit_text(on_interrupt)
    if run.stopped != "interrupted":
        if exit_text:
            run.notices.warn(f"{run.interrupt.name} came when the run was over; {exit_text}")
        return
    saved = "All is saved: the same call goes on from here"
    if not run.saver.active:
        saved = "The state so far is returned; nothing is saved, as there is no checkpoint_dir"
    elif not run.saver.is_saved(run.place):
        saved = "The newest checkpoint is older"
    end = f"; {exit_text}" if exit_text else "."
    run.notices.warn(f"interrupted by {run.interrupt.name} at {run.where}. {saved}{end}")


def rescue(run: Run, error: Exception) -> None:
    """After an error: saves what was trained before it, writes a line to the log, and adds a note to the error."""
    kept = "the state from before is in this error's .state"
    run.saver.wait()
    if not isinstance(error, NonFiniteError | SpikeError | RollbackError):
        try:
            run.fetch()
            run.saver.finish(run)
            kept = "what was trained so far is in this error's .state and .history"
            with contextlib.suppress(AttributeError):
                error.state, error.history = run.state, run.recorder.history("error")  # type: ignore[attr-defined]
        except Exception as second:  # the first error is the one to be seen
            kept = f"what was trained after the last checkpoint could not be saved ({second})"
    if paths := run.saver.paths():
        kept += f"; the newest checkpoint is {paths[-1]}"
    about = {"epoch": run.epoch, "step": run.position, "error": type(error).__name__, "message": str(error)}
    with contextlib.suppress(OSError):  # where the disk is full
        run.log.write("error", about)
    error.add_note(f"jgd.fit: in epoch {run.epoch}, counted from 0, after {run.position} steps; {kept}.")


def result(run: Run) -> tuple[TrainState, History]:
    """What `fit` returns."""
    history = run.recorder.history(run.stopped or "finished")
    state = run.state
    if run.best is not None:
        watched, name = run.plateau.watched, run.plateau.name
        history |= {"best_step": watched.step, "best_epoch": watched.epoch}
        if watched.step < 0:
            run.notices.warn(f"no epoch had a finite {name}: the state returned is the last, not the best.")
        elif watched.step != run.position:
            best = run.best.get(watched.step, state)
            assert best is not None
            state = best
            value = f"{name} {run.plateau.best:.6g}"
            run.notices.tell(f"the state returned is the best, of step {watched.step}, epoch {watched.epoch}: {value}")
    return state, history | ({"notices": run.notices.texts} if run.notices.texts else {})


def place_of_result(run: Run) -> Place:
    """Where the state returned stands in the data."""
    best = run.plateau.watched
    if run.best is not None and best.step not in (-1, run.position):
        return Place(best.epoch + 1)
    return Place(run.place.epoch, run.place.batch)
