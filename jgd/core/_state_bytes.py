"""How much memory a state takes."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core._arguments import checked
from jgd.core._optimizer import OptState
from jgd.core._types import ArrayTree


class StateBytes(NamedTuple):
    """What `state_bytes` finds.

    Attributes:
        total: Bytes of all arrays.
        per_parameter: Bytes for each number in the float leaves of the params; None where no params were given.
        by_slot: Bytes of each slot by name, those of all parts of a chain together. Counts and hyperparameters stand
            under `"count"` and `"hyperparams"`, what else an optax state holds under the name of its field.
    """

    total: int
    per_parameter: float | None
    by_slot: dict[str, int]


@checked
def state_bytes(state: ArrayTree, params: ArrayTree = None) -> StateBytes:
    """Bytes of memory that a state takes.

    Args:
        state: The state of any optimizer of jgd or optax, or what `jax.eval_shape(optimizer.init, params)` says of it,
            for which nothing is allocated.
        params: The params that it is for, to count bytes a parameter.

    Returns:
        `StateBytes(total, per_parameter, by_slot)`. Padding and alignment on the device are not in it.

    Examples:
        >>> import jax, jax.numpy as jnp, jgd
        >>> params = {"kernel": jnp.zeros((512, 512)), "bias": jnp.zeros(512)}
        >>> for dtype in ("float32", "int8"):
        ...     found = jgd.state_bytes(jax.eval_shape(jgd.adamw(1e-3, state_dtype=dtype).init, params), params)
        ...     print(dtype, found.total, round(found.per_parameter, 2), found.by_slot["mu"])
        float32 2101276 8.0 1050624
        int8 532508 2.03 266240
    """
    by_slot: dict[str, int] = {}
    for name, part in _parts(state, "other"):
        for leaf in jax.tree.leaves(part):
            by_slot[name] = by_slot.get(name, 0) + _nbytes(leaf)
    total = sum(by_slot.values())
    if params is None:
        return StateBytes(total, None, by_slot)
    floats = [leaf for leaf in jax.tree.leaves(params) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
    count = sum(math.prod(jnp.shape(leaf)) for leaf in floats)
    return StateBytes(total, total / count if count else 0.0, by_slot)


def _parts(node: Any, name: str) -> list[tuple[str, Any]]:
    """The named parts of a state: slots, and fields of what is called a state of something."""
    if isinstance(node, OptState):
        return [("count", node.count), ("hyperparams", node.hyperparams), *node.slots.items()]
    if _is_state(node):
        return [part for field, value in node._asdict().items() for part in _parts(value, field)]
    children = jax.tree.leaves(node, is_leaf=_is_state)
    if any(map(_is_state, children)):
        return [part for child in children for part in _parts(child, name)]
    return [(name, node)]


def _is_state(node: Any) -> bool:
    """Params may be named tuples too, so the name of the type decides."""
    return isinstance(node, tuple) and hasattr(node, "_asdict") and type(node).__name__.endswith("State")


def _nbytes(leaf: Any) -> int:
    dtype = leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
    return math.prod(jnp.shape(leaf)) * dtype.itemsize
