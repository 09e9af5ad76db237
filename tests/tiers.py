"""Which rows a test runs over in the fast tier; the others are `slow`."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def over(name: str, rows: Iterable[Any], fast: Callable[[Any], Any] = lambda _: True) -> pytest.MarkDecorator:
    """Parametrizes the argument `name` over rows, which have names; those that are not `fast` are marked slow."""
    marks = {True: (), False: (pytest.mark.slow,)}
    return pytest.mark.parametrize(name, [pytest.param(row, id=row.name, marks=marks[bool(fast(row))]) for row in rows])
