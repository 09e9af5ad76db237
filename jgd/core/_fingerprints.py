"""When two things that were made anew do the same: two optimizers that differ in arrays alone need one program.

Libraries that compile for an optimizer compare what it is made of: optimistix takes closures apart for that.
A function made anew is equal to no other for Python; here it is, where its code and all that it closes over are.
"""

import dataclasses
import functools
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

_PLAIN = (str, bytes, int, float, complex, bool, type(None), type, np.dtype, np.generic)


class _Itself:
    """What is equal to nothing else; it is kept, so that its place in memory is not another's one day."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def fingerprint(value: Any, inside: tuple[int, ...] = ()) -> Any:
    """Something to hash and to compare: equal for functions, rules and containers that do the same.

    Functions are taken apart into their code and what they close over, as are methods, dataclasses, partial functions,
    tuples, lists and dicts. Plain numbers, texts and NumPy's arrays of numbers are what they hold; arrays of JAX, and
    all else, are equal to nothing but themselves.
    """
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return np.ndarray, value.dtype, value.shape, value.tobytes()
    if id(value) in inside:  # a function that closes over itself
        return "above", inside.index(id(value))
    inside = (*inside, id(value))

    def part(item: Any) -> Any:
        return fingerprint(item, inside)

    if isinstance(value, Cached):
        return Cached, part(value.make)
    if isinstance(value, types.FunctionType):
        closure = tuple(map(_content, value.__closure__ or ()))
        defaults = part(value.__defaults__), part(value.__kwdefaults__)
        return value.__module__, value.__qualname__, value.__code__, defaults, tuple(map(part, closure))
    if isinstance(value, types.MethodType):
        return types.MethodType, part(value.__func__), part(value.__self__)
    if isinstance(value, functools.partial):
        return functools.partial, part(value.func), part(value.args), part(value.keywords)
    if isinstance(value, tuple | list):
        return type(value), tuple(map(part, value))
    if isinstance(value, Mapping):
        return type(value), tuple((part(key), part(item)) for key, item in value.items())
    if dataclasses.is_dataclass(value):
        return type(value), tuple(part(getattr(value, field.name)) for field in dataclasses.fields(value))
    return _Itself(value)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return "empty"


class Cached:
    """`functools.cache`, equal to another of a function that does the same."""

    def __init__(self, make: Callable[..., Any]):
        self.make = make
        self._results: dict[Any, Any] = {}

    def __call__(self, *args: Any) -> Any:
        """What the function gives, called once for each of its arguments."""
        if args not in self._results:
            self._results[args] = self.make(*args)
        return self._results[args]

    @functools.cached_property
    def _fingerprint(self) -> Any:
        return fingerprint(self)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Cached) and self._fingerprint == other._fingerprint)

    def __hash__(self) -> int:
        return hash(self._fingerprint)
