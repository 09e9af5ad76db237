"""How leaves are laid out while an update runs. Results do not depend on it, beyond rounding.

A layout is a function `(rule, leaves) -> blocks`: it looks at the rule's kind and at the shapes and dtypes of the
leaves that the rule updates, and says which of them run together. The stored state is not touched by it: slots are
packed on the way in and unpacked on the way out, inside the compiled step.

| name | what runs together |
| --- | --- |
| `"alone"` | nothing: each leaf on its own |
| `"packed"` | small leaves of an elementwise rule, in one vector; leaves of one shape of any other rule, stacked |
| `"stacked"` | leaves of one shape |
| `"auto"` | leaves of one shape of a rule for matrices, stacked where that pays; all else alone |

What `auto` does was measured, on CPU. A stack of matrices compiles one program instead of one for each matrix, but the
copies into the stack and out of it have their own price. It pays from about sixteen matrices of one shape on; the steps
take equally long. On accelerators, where nothing has been measured yet, `auto` stacks from two on, since there each
product costs a launch.

An elementwise rule gains nothing from it: between two steps the state lies leaf by leaf all the same, and XLA needs
about as long to compile the copies into a pack and out of it as the small loops that they save. Where a thousand small
leaves cost too much, keep them packed from step to step: see `jgd.pack`.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core._alias import show_by_name
from jgd.core._rule import Rule
from jgd.core._types import Array, PyTree


class Block(NamedTuple):
    """Leaves that one call of the leaf update handles.

    Attributes:
        indices: Positions of the leaves, in the order in which they are packed.
        pack: Makes one array of theirs. It is applied alike to gradients, params and each array of each slot.
        unpack: Its inverse.
        wrap: What to put around `run(hyper, step, grad, slots, param)` for packed arrays, such as a `vmap` over
            the last three arguments.
    """

    indices: tuple[int, ...]
    pack: Callable[[Sequence[Array]], Array]
    unpack: Callable[[Array], Sequence[Array]]
    wrap: Callable[[Callable[..., Any]], Callable[..., Any]]


Layout = Callable[[Rule, Sequence[jax.ShapeDtypeStruct]], Sequence[Block]]

#: A layout or the name of one. Who is given it says what is wrong with it, not the door of a public function.
LayoutLike = Annotated[str | Layout, "layout"]
show_by_name(globals(), "LayoutLike")

#: Leaves with at most so many entries are packed into vectors.
SMALL = 16_384

#: At most so many leaves are packed into one array: XLA's time to compile the way out grows with their square.
LONGEST = 40


# The layout of every rule while it is traced, whatever its own, and the kinds of those that were laid out in it.
_FORCED: contextvars.ContextVar[tuple[Layout, set[str]] | None] = contextvars.ContextVar("layout", default=None)


@contextlib.contextmanager
def every_rule_laid_out(layout: LayoutLike) -> Iterator[set[str]]:
    """All that is traced inside runs in this layout, in whatever wrappers; gives the kinds of the rules that did."""
    kinds: set[str] = set()
    token = _FORCED.set((resolve_layout(layout), kinds))
    try:
        yield kinds
    finally:
        _FORCED.reset(token)


def layout_of(rule: Rule, layout: Layout) -> Layout:
    """The optimizer's layout, unless `every_rule_laid_out` says otherwise."""
    forced = _FORCED.get()
    if forced is None:
        return layout
    forced_layout, kinds = forced
    kinds.add(rule.kind)
    return forced_layout


def alone(rule: Rule, leaves: Sequence[jax.ShapeDtypeStruct]) -> Sequence[Block]:
    """Each leaf on its own."""
    del rule
    return [_single(i) for i in range(len(leaves))]


def stacked(rule: Rule, leaves: Sequence[jax.ShapeDtypeStruct]) -> Sequence[Block]:
    """Leaves of one shape side by side, along a new first axis."""
    del rule
    return _stacked_from(2, leaves)


def packed(rule: Rule, leaves: Sequence[jax.ShapeDtypeStruct]) -> Sequence[Block]:
    """Small leaves of an elementwise rule end to end in one vector, large ones alone; other rules as `stacked`."""
    if rule.kind != "elementwise":
        return stacked(rule, leaves)
    small = [i for i, leaf in enumerate(leaves) if leaf.size <= SMALL]
    groups = _groups(small, lambda i: (leaves[i].dtype, leaves[i].sharding))
    large = [_single(i) for i, leaf in enumerate(leaves) if leaf.size > SMALL]
    return large + [_vector(group, [leaves[i].shape for i in group]) for group in groups]


def auto(rule: Rule, leaves: Sequence[jax.ShapeDtypeStruct]) -> Sequence[Block]:
    """Matrices of one shape stacked, if they are many; all else alone."""
    if rule.kind != "matrix" or any(_is_sharded(leaf) for leaf in leaves):
        return alone(rule, leaves)
    return _stacked_from(16 if jax.default_backend() == "cpu" else 2, leaves)


NAMED_LAYOUTS: dict[str, Layout] = {"auto": auto, "alone": alone, "packed": packed, "stacked": stacked}


def resolve_layout(layout: LayoutLike) -> Layout:
    """The layout of that name, or the function that was given."""
    if callable(layout) and not isinstance(layout, type):
        return layout
    if not isinstance(layout, str) or layout not in NAMED_LAYOUTS:
        known = ", ".join(repr(name) for name in NAMED_LAYOUTS)
        raise ValueError(f"layout must be one of {known}, or a layout function; got {layout!r}.")
    return NAMED_LAYOUTS[layout]


def pack_trees(block: Block, trees: Sequence[PyTree]) -> PyTree:
    """`block.pack` for every array of slots that are trees, alike for all leaves of the block."""
    return jax.tree.map(lambda *arrays: block.pack(arrays), *trees)


def unpack_trees(block: Block, tree: PyTree) -> list[PyTree]:
    """The inverse of `pack_trees`."""
    arrays, treedef = jax.tree.flatten(tree)
    parts = [block.unpack(array) for array in arrays]
    return [treedef.unflatten(part[i] for part in parts) for i in range(len(block.indices))]


def _single(i: int) -> Block:
    return Block((i,), lambda arrays: arrays[0], lambda array: [array], lambda run: run)


def _stack(indices: Sequence[int]) -> Block:
    return Block(tuple(indices), jnp.stack, list, _over_the_stack)


def _stacked_from(fewest: int, leaves: Sequence[jax.ShapeDtypeStruct]) -> list[Block]:
    """Stacks of at least so many leaves of one shape; the others alone."""
    groups = _groups(range(len(leaves)), lambda i: (leaves[i].shape, leaves[i].dtype, leaves[i].sharding))
    return [
        block
        for group in groups
        for block in ([_stack(group)] if len(group) >= fewest else [_single(i) for i in group])
    ]


def _over_the_stack(run: Callable[..., Any]) -> Callable[..., Any]:
    """Runs a stack at once; on a CPU one after the other, which keeps each matrix in the cache and is faster there."""
    if jax.default_backend() != "cpu":
        return jax.vmap(run, in_axes=(None, None, 0, 0, 0))

    def one_by_one(hyper: Any, step: Array, grad: Array, slots: PyTree, param: Array | None) -> Any:
        return jax.lax.map(lambda leaf: run(hyper, step, *leaf), (grad, slots, param))

    return one_by_one


def _vector(indices: Sequence[int], shapes: Sequence[tuple[int, ...]]) -> Block:
    ends = np.cumsum([math.prod(shape) for shape in shapes])

    def pack(arrays: Sequence[Array]) -> Array:
        return jnp.concatenate([array.ravel() for array in arrays])

    def unpack(vector: Array) -> Sequence[Array]:
        return [part.reshape(shape) for part, shape in zip(jnp.split(vector, ends[:-1]), shapes, strict=True)]

    return Block(tuple(indices), pack, unpack, lambda run: run)


def _groups(indices: Sequence[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    """Indices of one key together, in groups of like length that are not too long."""
    by_key: dict[Hashable, list[int]] = {}
    for i in indices:
        by_key.setdefault(key(i), []).append(i)
    groups = []
    for members in by_key.values():
        count = -(-len(members) // LONGEST)
        groups += [members[len(members) * k // count : len(members) * (k + 1) // count] for k in range(count)]
    return groups


def _is_sharded(leaf: jax.ShapeDtypeStruct) -> bool:
    spec = getattr(leaf.sharding, "spec", ())
    return any(axis is not None for axis in spec)
