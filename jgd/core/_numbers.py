"""Checks of numbers that are not hyperparameters: what they are and where they lie."""

import operator
from typing import Any

import jax
import numpy as np

from jgd.core._types import is_traced


def is_integer(value: Any) -> bool:
    """Whether a value is an integer of Python, of NumPy or in a scalar array; no boolean, and no tracer."""
    if isinstance(value, bool | np.bool_):
        return False
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def check_integers(owner: str, least: int | None, **values: Any) -> None:
    """Refuses what is not an integer, is below `least`, or exceeds int32.

    Raises:
        TypeError, ValueError: The message names the argument.
    """
    for argument, value in values.items():
        if not is_integer(value):
            raise TypeError(f"{owner}: {argument} must be an integer; got {value!r}.")
        number = operator.index(value)
        if least is not None and number < least:
            raise ValueError(f"{owner}: {argument} must be at least {least}; got {number}.")
        if abs(number) >= 2**31:
            raise ValueError(f"{owner}: {argument} must be an int32, as counts are; got {number}.")


def check_numbers(owner: str, least: float | None = None, **values: Any) -> None:
    """Refuses what is not a finite real number, or below `least`; a traced value is let pass.

    Raises:
        TypeError, ValueError: The message names the argument.
    """
    for argument, value in values.items():
        if is_traced(value):
            continue
        is_number = isinstance(value, int | float | np.number | np.ndarray | jax.Array) and not isinstance(value, bool)
        if not is_number or np.ndim(value) > 0 or np.iscomplexobj(value):
            raise TypeError(f"{owner}: {argument} must be a number; got {value!r}.")
        if isinstance(value, int) and abs(value) >= 2**31:
            raise ValueError(f"{owner}: {argument} must be an int32, or a float; got {value}.")
        if not np.isfinite(value):
            raise ValueError(f"{owner}: {argument} must be finite; got {value}.")
        if least is not None and value < least:
            raise ValueError(f"{owner}: {argument} must be at least {least:g}; got {value}.")
