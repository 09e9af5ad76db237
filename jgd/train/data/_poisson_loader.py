"""Batches for private training: every example drawn independently, with the same probability.

References:
    - Abadi et al., "Deep learning with differential privacy", https://arxiv.org/abs/1607.00133, 2016.
    - Chua et al., "How private are DP-SGD implementations?", https://arxiv.org/abs/2403.17673, 2024: shuffled batches
      are less private than the accounting of Poisson samples says.
"""

import math
from typing import Any

import jax
import numpy as np

from jgd.core import PyTree, is_integer
from jgd.gradients import PoissonSample
from jgd.train.data._array_loader import LARGEST, ArrayLoader

_DEVIATIONS = 8  # a batch that is larger than the mean by so many standard deviations does not happen


class PoissonLoader(ArrayLoader):
    """Poisson samples of arrays in memory, padded to one size.

    Every example is in a batch with probability `expected_batch_size / N`, independently of the others and of other
    batches; that is what `jgd.gradients.private_epsilon` accounts for. Batches are `jgd.gradients.PoissonSample`s:
    `Padded(batch, mask)` that say how they were drawn.
    An epoch is as many batches as it takes to draw each example once on average. The loader has a position that is
    saved and found again, as `jgd.ArrayLoader` has.

    Args:
        arrays: A tree of arrays with the examples as their first axis, N of them.
        expected_batch_size: How many examples a batch has on average, above 0 and at most N.
        seed: Of the samples. A run is private only towards those who do not know it.
        max_batch_size: The size to pad to. By default eight standard deviations above the mean, which no batch
            exceeds.

    Attributes:
        sampling_rate: The probability.
        expected_batch_size: As given.

    Raises:
        ValueError: An invalid option, or a size that batches may exceed; see `jgd.ArrayLoader`.

    Examples:
        >>> import numpy as np, jgd
        >>> loader = jgd.PoissonLoader({"x": np.arange(100)}, expected_batch_size=4, seed=1)
        >>> print(len(loader), loader.sampling_rate, [int(batch.mask.sum()) for batch in loader][:6])
        25 0.04 [0, 2, 5, 8, 2, 2]
    """

    def __init__(self, arrays: PyTree, expected_batch_size: float, *, seed: int = 0, max_batch_size: int | None = None):
        self.sampling_rate = 1.0  # until the number of examples is known
        super().__init__(arrays, 1, seed=seed)
        is_number = isinstance(expected_batch_size, int | float | np.integer | np.floating)
        if not is_number or isinstance(expected_batch_size, bool) or not 0 < expected_batch_size <= self.size:
            raise ValueError(
                f"PoissonLoader: expected_batch_size must be above 0 and at most the {self.size} examples; got"
                f" {expected_batch_size!r}."
            )
        if max_batch_size is not None and not (is_integer(max_batch_size) and max_batch_size < 2**31):
            raise ValueError(
                f"PoissonLoader: max_batch_size must be None or a whole number below 2**31; got {max_batch_size!r}."
            )
        self.expected_batch_size = float(expected_batch_size)
        self.sampling_rate = float(expected_batch_size / self.size)
        deviation = math.sqrt(expected_batch_size * (1 - self.sampling_rate))
        never = min(self.size, math.ceil(expected_batch_size + _DEVIATIONS * deviation + _DEVIATIONS))
        self.batch_size = never if max_batch_size is None else int(max_batch_size)
        least = min(self.size, math.ceil(expected_batch_size + (_DEVIATIONS - 2) * deviation))
        if self.batch_size < least:
            raise ValueError(
                f"PoissonLoader: a batch of {expected_batch_size:g} examples on average may have more than"
                f" max_batch_size={max_batch_size}; expected at least {least}."
            )

    def __len__(self) -> int:
        """Batches in an epoch."""
        return math.ceil(1 / self.sampling_rate - 1e-9)

    def indices(self, epoch: int, batch: int) -> np.ndarray:
        """The indices of the examples of one batch, int64.

        Raises:
            RuntimeError: There are more than `max_batch_size` of them.
        """
        self._check_place(epoch, batch, most=LARGEST - 2)  # a sample is one, beyond the epoch's last batch too
        bits = np.random.Philox(key=np.array([self.seed, epoch], np.uint64), counter=[0, 0, 0, batch + 1])
        uniform = (bits.random_raw(self.size) >> np.uint64(11)) * 2.0**-53
        drawn = np.flatnonzero(uniform < self.sampling_rate)
        if len(drawn) > self.batch_size:
            raise RuntimeError(
                f"PoissonLoader: batch {batch} of epoch {epoch} has {len(drawn)} examples; max_batch_size is"
                f" {self.batch_size}. Leaving some out would break the accounting: raise max_batch_size."
            )
        return drawn

    def batch(self, epoch: int, batch: int) -> Any:
        """One batch, wherever the loader stands: a `PoissonSample(batch, mask)`."""
        drawn = self.indices(epoch, batch)
        mask = np.arange(self.batch_size) < len(drawn)
        places = np.zeros(self.batch_size, np.int64)
        places[: len(drawn)] = drawn
        rows = jax.tree.map(lambda array: array[places], self.arrays)
        return PoissonSample.drawn(rows, mask, self.expected_batch_size)

    def _identity(self) -> dict[str, Any]:
        names = ("size", "batch_size", "seed", "sampling_rate")
        return {name: getattr(self, name) for name in names}
