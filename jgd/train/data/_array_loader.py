"""Batches of arrays in memory, in an order fixed by a seed, from a position that can be saved.

The order of epoch e is the sort order of 64-bit integers from Philox with the key (seed, e). Philox's integers are
fixed for ever, while NumPy may change what `permutation` returns from one version to the next.

References:
    J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011,
    https://doi.org/10.1145/2063384.2063405
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import jax
import numpy as np

from jgd.core import Array, PyTree, is_integer, path_text
from jgd.train._counts import check_count

Remainder = Literal["keep", "drop", "pad"]

LARGEST = 1 << 63  # epochs and batches are numbers of 64 bits to the generator


class ArrayLoader:
    """Batches of arrays that are in memory, each epoch in an order of its own.

    It stands at a position: an epoch and a batch within it. Going through it yields the batches from there to the end
    of the epoch, and leaves it at the start of the next. The order is a function of the seed and the epoch alone, so
    any position is reached at once, with no batch before it made. `jgd.fit` goes on where it left a state, whatever
    the loader was used for since, and leaves the loader there.

    Args:
        arrays: A tree of arrays with the examples as their first axis, N of them. They are kept as NumPy arrays.
        batch_size: Examples in a batch, B.
        seed: Which orders. Neither NumPy's nor JAX's random state is read or changed.
        shuffle: Whether to shuffle; otherwise the order is that of the arrays in every epoch.
        remainder: What becomes of the last N mod B examples of an epoch. `"keep"`: a smaller batch, for which a step
            compiles once more. `"drop"`: they are left out, others in each epoch. `"pad"`: every batch is a
            `jgd.gradients.Padded(batch, mask)` of B examples; the mask says which are real.

    Raises:
        ValueError: No arrays, no examples, arrays of different lengths (the message names them), an invalid option,
            or no batch left by `"drop"`.
        TypeError: `shuffle` is not a boolean.

    Examples:
        >>> import numpy as np, jgd
        >>> loader = jgd.ArrayLoader({"x": np.arange(5)}, 2, seed=1)
        >>> print(len(loader), [batch["x"].tolist() for batch in loader])
        3 [[3, 2], [0, 1], [4]]
        >>> loader.seek(0, 1)
        >>> print(loader.state()["batch"], [batch["x"].tolist() for batch in loader])
        1 [[0, 1], [4]]
    """

    def __init__(
        self,
        arrays: PyTree,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        remainder: Remainder = "keep",
    ):
        for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0)):
            check_count("ArrayLoader", name, value, least)
            if value >= 2**64:
                raise ValueError(f"ArrayLoader: {name} must be below 2**64; got {value}.")
        if not isinstance(remainder, str) or remainder not in get_args(Remainder):
            known = ", ".join(repr(name) for name in get_args(Remainder))
            raise ValueError(f"ArrayLoader: remainder must be one of {known}; got {remainder!r}.")
        if not isinstance(shuffle, bool | np.bool_):
            raise TypeError(f"ArrayLoader: shuffle must be True or False; got {shuffle!r}.")
        self.arrays = jax.tree.map(np.asarray, arrays)
        self.size = _common_length(self.arrays)
        self.batch_size, self.seed, self.shuffle, self.remainder = int(batch_size), int(seed), bool(shuffle), remainder
        if len(self) == 0:
            raise ValueError(
                f"ArrayLoader: remainder='drop' leaves no batch: {self.size} examples, batch_size {batch_size}."
            )
        self._epoch = self._batch = 0
        self._is_sought = False
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.size // self.batch_size if self.remainder == "drop" else -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[PyTree]:
        """The batches from the position to the end of its epoch."""
        epoch, self._is_sought = self._epoch, False
        while self._epoch == epoch and self._batch < len(self):
            batch = self.batch(epoch, self._batch)
            self._batch += 1  # before it is handed out: the position is that of the next batch
            yield batch
        if self._epoch == epoch:
            self._epoch, self._batch = epoch + 1, 0

    def order(self, epoch: int) -> np.ndarray:
        """The indices of the examples in the order of an epoch, int64 [N]."""
        self._check_place(epoch, 0)
        if not self.shuffle:
            return np.arange(self.size)
        if self._order[0] != epoch:
            bits = np.random.Philox(key=np.array([self.seed, epoch], np.uint64)).random_raw(self.size)
            self._order = epoch, np.argsort(bits, kind="stable")
        return self._order[1]

    def indices(self, epoch: int, batch: int) -> np.ndarray:
        """The indices of the examples of one batch, int64 [B] or fewer."""
        self._check_place(epoch, batch)
        return self.order(epoch)[batch * self.batch_size : (batch + 1) * self.batch_size]

    def batch(self, epoch: int, batch: int) -> PyTree:
        """One batch, wherever the loader stands; it does not move."""
        indices = self.indices(epoch, batch)
        if self.remainder != "pad":
            return jax.tree.map(lambda array: array[indices], self.arrays)
        missing = self.batch_size - len(indices)
        mask = np.arange(self.batch_size) < len(indices)
        indices = np.pad(indices, (0, missing), mode="edge")
        return padded(jax.tree.map(lambda array: array[indices], self.arrays), mask)

    def seek(self, epoch: int, batch: int = 0) -> None:
        """Goes to a position; `fit` begins there.

        Args:
            epoch: From 0.
            batch: From 0; the number of batches in an epoch is its end.

        Raises:
            TypeError: They are not whole numbers.
            ValueError: There is no such position.
        """
        self._check_place(epoch, batch)
        self._epoch, self._batch, self._is_sought = int(epoch), int(batch), True

    @property
    def sought(self) -> tuple[int, int] | None:
        """The position that `seek` or `restore` asked for, until the loader is iterated."""
        return (self._epoch, self._batch) if self._is_sought else None

    def leave_at(self, epoch: int, batch: int) -> None:
        """Moves to a position, as after iterating up to there."""
        is_over = batch >= len(self)
        self._epoch, self._batch, self._is_sought = epoch + is_over, 0 if is_over else batch, False

    def state(self) -> dict[str, Any]:
        """The position and what fixes the order, as JSON holds it."""
        return {"epoch": self._epoch, "batch": self._batch} | self._identity()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes to the position that `state` returned.

        Raises:
            TypeError: It is not a dict.
            ValueError: It is that of a loader with another order; the message says what differs.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"ArrayLoader: expected what state() returned, a dict; got a {type(state).__name__}.")
        wrong = {name: value for name, value in self._identity().items() if state.get(name) != value}
        if wrong:
            listed = ", ".join(f"{name} is {value!r} and was {state.get(name)!r}" for name, value in wrong.items())
            raise ValueError(f"ArrayLoader: the position saved is that of another order: {listed}.")
        self.seek(state["epoch"], state["batch"])

    def _check_place(self, epoch: Any, batch: Any, most: int | None = None) -> None:
        owner, most = type(self).__name__, len(self) if most is None else most
        if not (is_integer(epoch) and is_integer(batch)):
            raise TypeError(f"{owner}: epoch and batch must be whole numbers; got {epoch!r} and {batch!r}.")
        if not 0 <= epoch < LARGEST or not 0 <= batch <= most:
            raise ValueError(
                f"{owner}: no batch {batch} in epoch {epoch}; expected an epoch from 0 and a batch from 0 to {most}."
            )

    def _identity(self) -> dict[str, Any]:
        names = ("size", "batch_size", "seed", "shuffle", "remainder")
        return {name: getattr(self, name) for name in names}


def padded(batch: PyTree, mask: Array | np.ndarray) -> PyTree:
    """A `Padded` batch."""
    from jgd.gradients import Padded  # used by few

    return Padded(batch, mask)


def _common_length(arrays: PyTree) -> int:
    leaves = jax.tree_util.tree_flatten_with_path(arrays)[0]
    lengths = {path_text(path): leaf.shape[:1] for path, leaf in leaves}
    if not lengths or () in lengths.values() or len(set(lengths.values())) > 1:
        shown = ", ".join(f"{path} {length[0] if length else 'none'}" for path, length in lengths.items())
        raise ValueError(
            f"ArrayLoader: every array must have the examples as its first axis; got lengths {shown or 'of no arrays'}."
        )
    (length,) = set(lengths.values())
    if length[0] == 0:
        raise ValueError("ArrayLoader: the arrays hold no examples; expected at least one.")
    return length[0]
