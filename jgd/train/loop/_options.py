"""Checks of the arguments of `fit`, before anything is done."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jgd.core import check_choice, check_takes
from jgd.train._counts import check_count
from jgd.train._state import TrainState
from jgd.train.checkpoints._folder import Checkpoints
from jgd.train.loop._interrupt import OnInterrupt
from jgd.train.loop._resume import check_resume
from jgd.train.loop._rollback import Rollback
from jgd.train.step._make_step import Step, check_state


def check_run(state: TrainState, step: Step) -> None:
    """Refuses anything but one state and one step.

    Raises:
        TypeError: One of them is of another type.
        ValueError: The state holds several runs.
        RuntimeError: The state was donated.
    """
    if not isinstance(step, Step):
        raise TypeError(f"fit: expected the step that make_step returned; got a {type(step).__name__}.")
    check_state(state, step.optimizer)
    if shape := np.shape(state.step):
        raise ValueError(
            f"fit: the state holds a batch of runs: its step has shape {shape}; expected (). fit trains one. For"
            " several at once map over the step, jax.vmap(step), or take one: jax.tree.map(lambda leaf: leaf[0],"
            " state)."
        )


def check_options(step: Step, options: Mapping[str, Any]) -> None:
    """Refuses an option of another type or outside its range.

    Raises:
        TypeError: One is of another type.
        ValueError: One is outside its range.
    """
    for name, least in (("epochs", 1), ("fetch_every", 1), ("prefetch", 0)):
        check_count("fit", name, options[name], least)
    check_count("fit", "patience", options["patience"], or_none=True)
    for name, or_none in (("tol", True), ("min_delta", False)):
        value = options[name]
        if not (or_none and value is None) and not (_is_number(value) and 0 <= value < math.inf):
            kinds = "None or a finite number" if or_none else "a finite number"
            raise ValueError(f"fit: {name} must be {kinds} of at least 0; got {value!r}.")
    for name in ("progress", "restore_best"):
        if not isinstance(options[name], bool | np.bool_):
            raise TypeError(f"fit: {name} must be True or False; got {options[name]!r}.")
    monitor = options["monitor"]
    if not isinstance(monitor, str) or not monitor.removeprefix("-"):
        raise TypeError(f"fit: monitor must be the name of a number, such as 'loss' or '-accuracy'; got {monitor!r}.")
    _check_kinds(options)
    check_resume(options["resume"])
    check_choice("fit", "on_interrupt", options["on_interrupt"], OnInterrupt)
    if options["tol"] is not None and not step.norms:
        raise ValueError("fit: tol is compared with the gradient norm, which this step leaves out (norms=False).")


def _check_kinds(options: Mapping[str, Any]) -> None:
    known: dict[str, tuple[tuple[type, ...], str]] = {
        "checkpoint_dir": ((str, Path, Checkpoints), "None, a folder or a jgd.Checkpoints"),
        "rollback": ((Rollback,), "None or a jgd.Rollback"),
    }
    for name, (kinds, words) in known.items():
        value = options[name]
        if value is not None and not isinstance(value, kinds):
            raise TypeError(f"fit: {name} must be {words}; got a {type(value).__name__}.")
    eval_fn, callbacks = options["eval_fn"], options["callbacks"]
    if eval_fn is not None and (not callable(eval_fn) or isinstance(eval_fn, type)):
        raise TypeError(f"fit: eval_fn must be None or a function of the state; got a {type(eval_fn).__name__}.")
    if not isinstance(callbacks, list | tuple) or not all(map(callable, callbacks)):
        got = f"a {type(callbacks).__name__}" + (" with other entries" if isinstance(callbacks, list | tuple) else "")
        raise TypeError(f"fit: callbacks must be a list of functions, callback(state, summary); got {got}.")
    for callback in callbacks:
        check_takes("fit", "a callback", callback, "callback(state, summary)", None, {})
    if eval_fn is not None:
        check_takes("fit", "eval_fn", eval_fn, "eval_fn(state)", None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
