"""Iterating data of any kind from a position.

| data | how its position is saved and found again |
| --- | --- |
| it has `state()` and `restore(saved)`, as `ArrayLoader` | by these |
| its iterator has `get_state()` and `set_state(saved)`, as grain's | by these |
| any other iterable | by the number of batches; as many are drawn and dropped |
"""

import base64
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, NamedTuple

from jgd.core import PyTree
from jgd.train.data._prefetch import prefetched, to_device

Data = Iterable[PyTree] | Callable[[int], Iterable[PyTree]]


class Place(NamedTuple):
    """A position in a run.

    Attributes:
        epoch: From 0.
        batch: Batches of that epoch that were trained on.
        data: What the data said of its own position; None where it says nothing.
    """

    epoch: int = 0
    batch: int = 0
    data: Any = None


class Source:
    """An epoch's batches, from a place on.

    Args:
        data: Batches, or a function of the epoch that returns them.
        start: Where to begin.
        prefetch: How many batches are drawn and placed on the device ahead.
        save: Whether each batch comes with the data's own position after it.

    Attributes:
        batches: The epoch's data.
        length: How many batches an epoch has, where the data says so.
    """

    def __init__(self, data: Data, start: Place, prefetch: int, save: bool):
        self.batches: Iterable[PyTree] = data(start.epoch) if callable(data) else data
        if not isinstance(self.batches, Iterable) and not hasattr(self.batches, "__getitem__"):
            kind = type(self.batches).__name__
            raise TypeError(f"fit: data({start.epoch}) returned a {kind}; expected batches: an iterable of them.")
        self.length = len(self.batches) if isinstance(self.batches, Sized) else None
        self._start, self._prefetch, self._save = start, prefetch, save
        self._seeks = hasattr(self.batches, "seek")
        self._is_new = callable(data)  # then each epoch's data is the function's business

    def __iter__(self) -> Iterator[tuple[PyTree, Place]]:
        """Each batch, and the place of a run that has trained on it."""
        if self._prefetch == 0:
            return self._placed()
        return prefetched(((to_device(batch), place) for batch, place in self._placed()), self._prefetch)

    def after(self) -> Place:
        """The place where the next epoch begins, once this one is through."""
        loader: Any = self.batches
        keeps = self._save and _is_loader(loader) and not self._seeks and not self._is_new
        return Place(self._start.epoch + 1, 0, loader.state() if keeps else None)

    def _placed(self) -> Iterator[tuple[PyTree, Place]]:
        epoch, done, _ = self._start
        iterator, state_of = self._open()
        for batch in iterator:
            done += 1
            yield batch, Place(epoch, done, state_of() if self._save else None)

    def _open(self) -> tuple[Iterator[PyTree], Callable[[], Any]]:
        epoch, done, saved = self._start
        loader: Any = self.batches
        if _is_loader(loader):
            if saved is not None:
                loader.restore(saved)
            elif self._seeks:
                loader.seek(epoch, done)
            else:
                return self._skipped(iter(loader), done), loader.state
            return iter(loader), loader.state
        iterator: Any = iter(loader)
        if not (hasattr(iterator, "get_state") and hasattr(iterator, "set_state")):
            return self._skipped(iterator, done), lambda: None
        if saved is None:
            return self._skipped(iterator, done), lambda: _to_json(iterator.get_state())
        iterator.set_state(_from_json(saved))
        return iterator, lambda: _to_json(iterator.get_state())

    def _skipped(self, iterator: Iterator[PyTree], count: int) -> Iterator[PyTree]:
        """Draws the batches that were trained on before the checkpoint."""
        for i in range(count):
            if next(iterator, self) is self:
                raise ValueError(
                    f"fit: the checkpoint was saved after {count} batches of epoch {self._start.epoch}, and the data"
                    f" now holds {i} in it. Resume with the same data, or start anew with resume=False."
                )
        return iterator


def _is_loader(batches: Any) -> bool:
    return hasattr(batches, "state") and hasattr(batches, "restore")


def _to_json(state: Any) -> Any:
    return {"base64": base64.b64encode(state).decode()} if isinstance(state, bytes) else state


def _from_json(saved: Any) -> Any:
    return base64.b64decode(saved["base64"]) if isinstance(saved, dict) and saved.keys() == {"base64"} else saved
