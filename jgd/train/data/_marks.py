"""Where in the data `fit` left a state that it returned, for the next call to go on from.

The position belongs to the state, not to the loader: what a call of `fit` does depends on its arguments alone, whatever
else the loader was used for. A checkpoint holds the position as well; this is for calls within one process.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sized
from typing import Any, NamedTuple

import jax

from jgd.core import is_traced
from jgd.train._state import TrainState
from jgd.train.data._array_loader import ArrayLoader
from jgd.train.data._position import Data, Place


class _Mark(NamedTuple):
    step: "weakref.ref[Any]"
    data: tuple[Any, ...]
    place: Place


# By the identity of the array that counts the steps. `set_hyperparams` and the like hand it on as it is.
_marks: dict[int, _Mark] = {}


def place_of(state: TrainState, data: Data) -> Place:
    """Where a run from this state begins.

    Where the loader was told to go; else where `fit` left the state, if the data is the same; else at the start.
    """
    if isinstance(data, ArrayLoader) and data.sought is not None:
        return Place(*data.sought)
    mark = _marks.get(id(state.step))
    if mark is None or mark.step() is not state.step or mark.data != _identity(data):
        return Place()
    return mark.place


def remember(state: TrainState, data: Data, place: Place) -> None:
    """Notes the place of a state that is about to be returned.

    A batch within an epoch is found again only in data that gives the same ones twice.
    """
    if isinstance(data, Sized) and place.batch >= len(data):
        place = Place(place.epoch + 1)
    elif not (callable(data) or isinstance(data, list | tuple) or hasattr(data, "seek")):
        place = Place(place.epoch + (place.batch > 0))
    step, number = state.step, id(state.step)
    if isinstance(step, jax.Array) and not is_traced(step):
        _marks[number] = _Mark(weakref.ref(step, lambda _: _marks.pop(number, None)), _identity(data), place)


@contextlib.contextmanager
def loader_left_at(place: Callable[[], Place], data: Data) -> Iterator[None]:
    """Moves a loader to `place()` however the block ends: batches drawn ahead do not count."""
    try:
        yield
    finally:
        if isinstance(data, ArrayLoader):
            data.leave_at(place().epoch, place().batch)


def _identity(data: Any) -> tuple[Any, ...]:
    """The identity of data: a function is the same if its code and what it closes over are."""
    if isinstance(data, list | tuple):
        return (type(data), *map(id, data))
    function = getattr(data, "__func__", data)
    code = getattr(function, "__code__", None)
    if code is None:
        return (type(data), id(data))
    values: list[Any] = list(getattr(function, "__defaults__", None) or ())
    for cell in getattr(function, "__closure__", None) or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:  # not filled yet
            values.append(None)
    return (code, id(getattr(data, "__self__", None)), *map(id, values))
