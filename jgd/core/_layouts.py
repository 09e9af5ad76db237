"""How leaves are laid out while an update runs. Results do not depend on it, beyond rounding.

A layout is a function `(rule, leaves) -> blocks`: it looks at the rule's kind and at the shapes and dtypes of the
leaves that the rule updates, and says which of them run together. The stored state is not touched by it: slots are
packed on the way in and unpacked on the way out, inside the compiled step.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from jgd.core._rule import Rule
from jgd.core._types import Array


class Block(NamedTuple):
    """Leaves that one call of the leaf update handles.

    Attributes:
        indices: Positions of the leaves, in the order in which they are packed.
        pack: Makes one array of theirs. It is applied alike to gradients, params and each slot.
        unpack: Its inverse.
        wrap: What to put around `run(hyper, step, grad, slots, param)` for packed arrays, such as a `vmap` over
            the last three arguments.
    """

    indices: tuple[int, ...]
    pack: Callable[[Sequence[Array]], Array]
    unpack: Callable[[Array], Sequence[Array]]
    wrap: Callable[[Callable[..., Any]], Callable[..., Any]]


Layout = Callable[[Rule, Sequence[jax.ShapeDtypeStruct]], Sequence[Block]]


def alone(rule: Rule, leaves: Sequence[jax.ShapeDtypeStruct]) -> Sequence[Block]:
    """Each leaf on its own."""
    del rule
    return [Block((i,), lambda arrays: arrays[0], lambda array: [array], lambda run: run) for i in range(len(leaves))]


# "auto" is free to choose any layout; today there is one to choose from.
NAMED_LAYOUTS: dict[str, Layout] = {"auto": alone, "alone": alone}


def resolve_layout(layout: str | Layout) -> Layout:
    """The layout of that name, or the function that was given."""
    if callable(layout):
        return layout
    if layout not in NAMED_LAYOUTS:
        known = ", ".join(repr(name) for name in NAMED_LAYOUTS)
        raise ValueError(f"layout must be one of {known}, or a layout function; got {layout!r}.")
    return NAMED_LAYOUTS[layout]
