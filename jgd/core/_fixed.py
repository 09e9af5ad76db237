"""Arguments that decide what a program looks like, and so are Python's own numbers; and who calls a factory."""

import operator
import sys
from typing import Any

import optax

from jgd.core._numbers import check_integers
from jgd.core._types import is_traced


def fixed(owner: str, name: str, value: Any) -> Any:
    """The value, unless it is known only when the compiled program runs.

    Raises:
        TypeError: It is traced. `optax.inject_hyperparams` does that to every number that it is not told of.
    """
    if is_traced(value):
        raise TypeError(
            f"{owner}: {name} decides what the program looks like; expected a Python number, got a traced one. Under"
            f" optax.inject_hyperparams say so: optax.inject_hyperparams(jgd.{owner}, static_args=({name!r},))."
        )
    return value


def fixed_int(owner: str, name: str, value: Any, least: int | None = None) -> int:
    """The value as a Python integer; an array that holds one will do.

    Raises:
        TypeError: It is traced, or no integer.
        ValueError: It is below `least`, or no int32.
    """
    check_integers(owner, least, **{name: fixed(owner, name, value)})
    return operator.index(value)


def called_by_injection() -> bool:
    """Whether a factory is being called by `optax.inject_hyperparams`, which makes its optimizer anew at each update.

    Under `jit` the numbers that it hands over are traced, and tell by that; outside of it nothing else does.
    """
    module, frame = optax.inject_hyperparams.__module__, sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == module:
            return True
        frame = frame.f_back
    return False
