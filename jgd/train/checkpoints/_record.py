"""What a checkpoint holds beside its arrays."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from jgd.core import PyTree, has_eval_params
from jgd.train._counts import check_count
from jgd.train._state import TrainState
from jgd.train.checkpoints._leaves import table_of


def record_of(state: PyTree) -> dict[str, Any]:
    """What a checkpoint records of a state beside its arrays."""
    averages = isinstance(state, TrainState) and has_eval_params(state.opt_state)
    return {"leaves": table_of(state), "averages": averages}


def storable(
    step: int,
    metrics: Mapping[str, float] | None,
    extra: Mapping[str, Any] | None,
    history: Mapping[str, np.ndarray] | None,
) -> tuple[dict[str, float], dict[str, Any], dict[str, np.ndarray]]:
    """What is saved beside a state, as files hold it: metrics, extra and history.

    Raises:
        TypeError, ValueError: They cannot hold it.
    """
    check_count("Checkpoints.save", "step", step, 0)
    for name, value in (("metrics", metrics), ("extra", extra), ("history", history)):
        if value is not None and not isinstance(value, Mapping):
            raise TypeError(f"Checkpoints.save: {name} must be a dict, or None; got a {type(value).__name__}.")
    try:
        numbers = {name: float(value) for name, value in (metrics or {}).items()}
    except (TypeError, ValueError) as error:
        raise TypeError(f"Checkpoints.save: each of metrics must be a number; got {metrics!r}.") from error
    try:
        json.dumps(extra)
    except (TypeError, ValueError) as error:
        raise TypeError(f"Checkpoints.save: extra must be what JSON can hold ({error}).") from error
    arrays = {name: np.asarray(values) for name, values in (history or {}).items()}
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise TypeError(f"Checkpoints.save: history[{name!r}] must be an array of numbers; got {array!r}.")
    return numbers, dict(extra or {}), arrays
