"""How a run is picked up from a checkpoint, and how it is handed back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jgd.train._state import TrainState
from jgd.train.data._position import Place
from jgd.train.loop._history import History
from jgd.train.loop._interrupt import OnInterrupt
from jgd.train.loop._plateau import Watched
from jgd.train.loop._resume import rule_of, told_of_rules
from jgd.train.loop._run import Run


def pick_up(run: Run, memory: Mapping[str, Any], path: Path, told: list[str]) -> None:
    """Goes on from what `memory` returned in an earlier process, and says so.

    Args:
        run: The run, at its start.
        memory: That.
        path: The checkpoint.
        told: What there is to say of its state.
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
    for text in [*told, *told_of_rules(rule_of(run.step.optimizer), memory.get("optimizer", ""))]:
        run.notices.warn(text)
    run.saver.recall_best(run)
    if run.stopped or run.place.epoch >= run.settings.end:
        run.notices.warn(
            f"nothing is left to do: {_why_over(run)}. The state returned is that of the checkpoint. To train on,"
            " ask for more epochs, another checkpoint_dir or resume=False."
        )


def say_what_has_no_effect(run: Run, is_new: bool) -> None:
    """At the start: options and checkpoints that are there and are not used."""
    if is_new and (others := run.saver.others()):
        run.notices.tell(f"begun anew; of the checkpoints in the folder, {others} are of other runs and stay.")
    if not run.plateau.active and (run.plateau.monitor != "loss" or run.plateau.min_delta):
        run.notices.warn("monitor and min_delta have no effect without patience or restore_best.")


def _why_over(run: Run) -> str:
    if run.stopped == "converged":
        return f"the gradient norm had come down to tol={run.settings.tol:g}"
    if run.stopped:
        return f"{run.plateau.name} had not got better for {run.plateau.patience} epochs ({run.stopped})"
    done, asked = (epoch - run.settings.first_epoch for epoch in (run.place.epoch, run.settings.end))
    return f"{done} epochs are done" + ("" if done == asked else f", and epochs={asked}")


def say_if_interrupted(run: Run, how: OnInterrupt) -> None:
    """After Ctrl-C or SIGTERM: what was done, and how to go on."""
    last = run.interrupt.ends_with(how)
    if run.stopped != "interrupted":
        if last:
            run.notices.warn(f"{run.interrupt.name} came when the run was over; {last}")
        return
    kept = "All is saved: the same call goes on from here"
    if not run.saver.active:
        kept = "The state so far is returned; nothing is saved, as there is no checkpoint_dir"
    elif not run.saver.is_saved(run):
        kept = "The newest checkpoint is older"
    run.notices.warn(f"interrupted by {run.interrupt.name} at {run.where}. {kept}{'; ' * bool(last)}{last or '.'}")


def result(run: Run) -> tuple[TrainState, History]:
    """What `fit` returns."""
    history = run.recorder.history(run.stopped or "finished")
    state = run.state
    if run.best is not None:
        watched, number = run.plateau.watched, run.plateau.name
        history |= {"best_step": watched.step, "best_epoch": watched.epoch}
        if watched.step < 0:
            run.notices.warn(f"no epoch had a finite {number}: the state returned is the last, not the best.")
        elif watched.step != run.position:
            found = run.best.get(watched.step, state)
            assert found is not None
            state = found
            value = f"{number} {run.plateau.best:.6g}"
            run.notices.tell(f"the state returned is the best, of step {watched.step}, epoch {watched.epoch}: {value}")
    return state, history | ({"notices": run.notices.texts} if run.notices.texts else {})


def place_of_result(run: Run) -> Place:
    """Where the state returned stands in the data."""
    best = run.plateau.watched
    if run.best is not None and best.step not in (-1, run.position):
        return Place(best.epoch + 1)
    return Place(run.place.epoch, run.place.batch)
