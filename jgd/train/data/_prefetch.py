"""Batches placed on the device before the step asks for them."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np

from jgd.core import PyTree

Item = TypeVar("Item")


def to_device(batch: PyTree) -> PyTree:
    """The batch with its NumPy arrays on the default device; the transfer is started and not waited for."""
    return jax.tree.map(lambda leaf: jax.device_put(leaf) if isinstance(leaf, np.ndarray) else leaf, batch)


def prefetched(items: Iterable[Item], count: int) -> Iterator[Item]:
    """The same items, of which up to `count` are drawn before they are asked for.

    An error that drawing one meets is raised where that item would have come, after those drawn before it.
    """
    source = iter(items)
    drawn: deque[tuple[Any, Exception | None]] = deque()
    ended = False
    while True:
        while not ended and len(drawn) <= count:
            try:
                drawn.append((next(source), None))
            except StopIteration:
                ended = True
            except Exception as error:
                drawn.append((None, error))
                ended = True
        if not drawn:
            return
        item, error = drawn.popleft()
        if error is not None:
            raise error
        yield item
