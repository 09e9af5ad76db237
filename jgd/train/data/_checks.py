"""Checks of data before the first step: that it is batches, which the step can divide."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

import jax
import numpy as np

from jgd.core import PyTree, check_takes
from jgd.train.data._array_loader import ArrayLoader
from jgd.train.data._poisson_loader import PoissonLoader
from jgd.train.data._position import Data
from jgd.train.step._stacked import check_batch

_LOADER = "jgd.ArrayLoader({}, batch_size)"


def check_data(data: Data) -> None:
    """Refuses data that cannot be iterated as batches, arrays of examples above all.

    Raises:
        TypeError: It cannot.
    """
    if isinstance(data, Mapping):
        raise _no_batches("a dict, whose entries would be taken for batches", "the_dict")
    if _is_array(data):
        shape = tuple(data.shape)
        raise _no_batches(f"an array of shape {shape}, whose rows would be taken for batches", "the_array")
    if not callable(data) and not isinstance(data, Iterable) and not hasattr(data, "__getitem__"):
        raise TypeError(f"fit: data must be batches or a function of the epoch; got a {type(data).__name__}.")
    if isinstance(data, ArrayLoader):
        check_batch("fit", data.arrays)
    if callable(data):
        _check_function(data)
    if isinstance(data, str | bytes):
        raise TypeError(f"fit: data must be batches; got the text {data!r}.")
    if isinstance(data, list | tuple) and len(data) > 1 and all(map(_is_array, data)):
        ranks = {len(array.shape) for array in data}
        kind = type(data).__name__
        if len(ranks) > 1:
            shapes = ", ".join(str(tuple(array.shape)) for array in data[:4])
            raise _no_batches(
                f"a {kind} of arrays of shapes {shapes}, which cannot be batches of one loss", f"the_{kind}"
            )
        if isinstance(data, tuple) and ranks != {0}:
            raise _no_batches(
                "a tuple of arrays, each of which would be taken for a batch; batches go into a list", "the_tuple"
            )


def _check_function(data: Any) -> None:
    if isinstance(data, type):
        raise TypeError(f"fit: data must be batches or a function of the epoch; got the class {data.__name__}.")
    check_takes("fit", "data", data, "data(0), with the epoch", 0)


def check_divides(data: Data, parts: int) -> None:
    """Refuses data with a batch whose known size `accumulate` does not divide.

    Raises:
        ValueError: There is one.
    """
    if parts == 1:
        return
    for size, what in _sizes(data):
        if size % parts:
            advice = ""
            if isinstance(data, ArrayLoader):
                advice = (
                    " Give the loader another batch_size, or remainder='drop', or remainder='pad' with make_step's"
                    " loss_weight."
                )
            raise ValueError(f"fit: accumulate={parts} does not divide {what}, of {size} examples.{advice}")


def _sizes(data: Data) -> list[tuple[int, str]]:
    if isinstance(data, list):
        return [(size, f"batch {i}") for i, batch in enumerate(data) if (size := _length(batch)) is not None]
    if not isinstance(data, ArrayLoader):
        return []
    full = [(data.batch_size, "a batch")]
    rest = data.size % data.batch_size
    if data.remainder != "keep" or isinstance(data, PoissonLoader) or not rest:
        return full
    return [*(full if data.size > data.batch_size else []), (rest, "the last batch of an epoch")]


def _length(batch: PyTree) -> int | None:
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(batch) if hasattr(leaf, "shape")]
    return shapes[0][0] if shapes and shapes[0] else None


def _no_batches(kind: str, name: str) -> TypeError:
    return TypeError(
        f"fit: data must be batches; got {kind}. For batches of examples in memory pass {_LOADER.format(name)}."
    )


def _is_array(value: Any) -> TypeGuard[np.ndarray]:
    return hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, type)
