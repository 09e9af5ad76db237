"""What an optimizer is, and what it carries from one step to the next."""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from jgd.core._types import Array, PyTree


class OptState(NamedTuple):
    """The state of one optimizer: plain arrays in plain containers.

    `optax.tree.get` finds each of its parts by name, and any checkpoint library can write it.
    """

    count: Array  # int32 scalar, updates made so far; it saturates instead of overflowing
    hyperparams: dict[str, Array]  # each one as the last update used it (before the first: as it will be used)
    slots: dict[str, PyTree]  # one tree a slot, shaped like the params, `optax.MaskedNode()` where a leaf has none


class Optimizer(optax.GradientTransformationExtraArgs):
    """A pair of pure functions, `init` and `update`: optax's protocol, and nominally optax's type.

    - `init(params) -> state`
    - `update(grads, state, params=None, **extra) -> (updates, state)`; the updates are *added* to the params.

    It goes wherever an `optax.GradientTransformation` goes. Factories such as `jgd.adamw` make it; printing
    it shows how it was made.

    Examples:
        >>> import jgd
        >>> jgd.sgd(0.1, momentum=0.9)
        jgd.sgd(learning_rate=0.1, momentum=0.9)
        >>> init, update = jgd.sgd(0.1)
    """

    label = "jgd.Optimizer"

    def __repr__(self) -> str:
        return self.label


def make_optimizer(init: Callable[..., Any], update: Callable[..., Any], label: str) -> Optimizer:
    """Binds the two functions and the text that `print` shows."""
    optimizer = Optimizer(init, update)
    optimizer.label = label  # an attribute beside the tuple: unpacking still gives two functions
    return optimizer
