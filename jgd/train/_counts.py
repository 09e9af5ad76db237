"""Counts among the settings of a run."""

from typing import Any

from jgd.core import is_integer


def check_count(owner: str, name: str, value: Any, least: int = 1, *, or_none: bool = False) -> None:
    """Refuses anything but a whole number of at least `least`.

    Raises:
        ValueError: It is something else; the message names the setting.
    """
    if or_none and value is None:
        return
    if not is_integer(value) or value < least:
        kinds = "None or a whole number" if or_none else "a whole number"
        raise ValueError(f"{owner}: {name} must be {kinds} of at least {least}; got {value!r}.")
