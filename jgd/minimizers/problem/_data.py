"""Numbers of a method as data: arrays among its settings become arguments of the compiled program.

`GradientDescent(0.1)` has a constant; `GradientDescent(jnp.asarray(0.1))` has data, which can change without a
recompile, be swept by `vmap` and be differentiated.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from jgd.core import Array


class _Slot(NamedTuple):
    """The place of an array."""

    index: int


class _Tree(NamedTuple):
    """A tree with places of arrays."""

    treedef: Any
    leaves: tuple


class _Dataclass(NamedTuple):
    """A dataclass with places of arrays in its fields."""

    kind: type
    fields: tuple[tuple[str, Any], ...]


def split(setting: Any) -> tuple[Any, tuple[Array, ...]]:
    """A setting without its arrays, hashable where its other parts are, and the arrays."""
    arrays: list[Any] = []

    def without(value: Any) -> Any:
        if isinstance(value, jax.Array | np.ndarray | np.generic):
            arrays.append(value)
            return _Slot(len(arrays) - 1)
        before = len(arrays)
        leaves, treedef = jax.tree.flatten(value)
        if not jax.tree_util.treedef_is_leaf(treedef):
            tree = _Tree(treedef, tuple(without(leaf) for leaf in leaves))
            return tree if len(arrays) > before else value
        if not dataclasses.is_dataclass(value) or isinstance(value, type):
            return value
        names = [field.name for field in dataclasses.fields(value) if field.init]
        taken_apart = _Dataclass(type(value), tuple((name, without(getattr(value, name))) for name in names))
        return taken_apart if len(arrays) > before else value

    return without(setting), tuple(arrays)


def join(setting: Any, arrays: tuple[Array, ...]) -> Any:
    """The setting that `split` has taken apart, with these arrays in it."""
    if isinstance(setting, _Slot):
        return arrays[setting.index]
    if isinstance(setting, _Tree):
        return jax.tree.unflatten(setting.treedef, [join(leaf, arrays) for leaf in setting.leaves])
    if isinstance(setting, _Dataclass):
        return setting.kind(**{name: join(value, arrays) for name, value in setting.fields})
    return setting
