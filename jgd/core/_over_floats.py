"""An optimizer that is shown the leaves that are trained, and no others."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from jgd.core._floats import is_float, map_floats, only_floats, zero_update
from jgd.core._optimizer import Optimizer, make_optimizer
from jgd.core._types import GradientTransformation, PyTree

_FUNCTIONS = ("value_fn", "obj_fn")  # of params, that an update may be given


def over_floats(optimizer: GradientTransformation) -> Optimizer:
    """Puts a marker without arrays in the place of integers, flags and random keys, for an optimizer that knows none.

    Args:
        optimizer: Any optimizer. What it is given besides (`grad`, `value_fn`, `obj_fn`) is made to fit.

    Returns:
        An optimizer of the same name. Where every leaf is trained it is the one given.
    """
    inside = optax.with_extra_args_support(optimizer)

    def init(params: PyTree) -> PyTree:
        return inside.init(only_floats(params, params))

    def update(grads: PyTree, state: PyTree, params: PyTree = None, **extra: Any) -> tuple[PyTree, PyTree]:
        tree = grads if params is None else params
        if all(map(is_float, jax.tree.leaves(tree))):
            return inside.update(grads, state, params, **extra)
        of_floats = {name: _of_floats(value, tree) if name in _FUNCTIONS else value for name, value in extra.items()}
        if "grad" in extra:
            of_floats["grad"] = only_floats(extra["grad"], tree)
        trained = None if params is None else only_floats(params, tree)
        steps, state = inside.update(only_floats(grads, tree), state, trained, **of_floats)
        return map_floats(lambda _, step: step, tree, steps, others=zero_update), state

    return make_optimizer(init, update, repr(optimizer))


def _of_floats(function: Callable[..., Any], tree: PyTree) -> Callable[..., Any]:
    """The function as one of what is trained alone, by which it can be differentiated."""

    def of_floats(trained: PyTree, *args: Any, **kwargs: Any) -> Any:
        return function(map_floats(lambda _, leaf: leaf, tree, trained), *args, **kwargs)

    return of_floats
