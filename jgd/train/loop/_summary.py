"""The summary of an epoch: what `eval_fn` adds to it, and which names it will have."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jgd.core import PyTree
from jgd.train._state import TrainState
from jgd.train.loop._history import scalars_of
from jgd.train.step._make_step import RUNNING, Step

EvalFn = Callable[[TrainState], Mapping[str, Any]]

# Beside these an epoch has what is returned as aux and what `eval_fn` returns.
ALWAYS = ("loss", "nonfinite")
_OF_THE_LOOP = ("epoch", "step")


def evaluated(eval_fn: EvalFn, state: TrainState) -> dict[str, float]:
    """What `eval_fn` returned, as plain numbers.

    Raises:
        TypeError: It is no dict of names and real scalars.
        ValueError: A number is no scalar, or has a name that the loop itself uses.
    """
    returned = eval_fn(state)
    if not isinstance(returned, Mapping):
        raise TypeError(f"fit: eval_fn must return a dict of scalars by name; got a {type(returned).__name__}.")
    return {_name(name): _number(name, value) for name, value in returned.items()}


def names_before_training(
    step: Step, state: TrainState, batch: PyTree, eval_fn: EvalFn | None, wanted: str
) -> list[str]:
    """The names of an epoch's numbers, or enough of them to hold `wanted`.

    The step is traced, not run; `eval_fn` is called once, if `wanted` is not among what the step gives.
    """
    metrics = jax.eval_shape(step.traceable, state, batch, RUNNING)[1]
    scalars, of_step = scalars_of(metrics)
    names = [*ALWAYS, *(name for name in scalars if name not in of_step)]
    if wanted not in names and eval_fn is not None:
        names += evaluated(eval_fn, state)
    return names


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"fit: eval_fn must return a dict of scalars by name; got the name {name!r}.")
    if name in _OF_THE_LOOP:
        raise ValueError(f"fit: eval_fn returned a number under {name!r}, a name that the loop itself uses.")
    return name


def _number(name: str, value: Any) -> float:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        array = np.empty((), object)
    if array.ndim:
        raise ValueError(f"fit: eval_fn returned {name!r} of shape {array.shape}; expected a scalar.")
    if array.dtype.kind in "cOSUmM":
        kind = str(array.dtype) if array.dtype.kind == "c" else f"a {type(value).__name__}"
        raise TypeError(f"fit: eval_fn returned {name!r} as {kind}; expected a real number.")
    return float(array)
