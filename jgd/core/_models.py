"""What every optimizer does first: refuses what is not an array, and fits a whole model to the gradients of its arrays.

Equinox's gradients have None where a model has something that is not trained: a function, a flag, an integer array.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jgd.core._checks import check_arrays
from jgd.core._types import PyTree, is_array


def guarded_init(owner: str, init: Callable[[PyTree], PyTree]) -> Callable[..., PyTree]:
    """`init`, for params that are arrays.

    Raises:
        TypeError: A leaf is not an array.
    """

    @functools.wraps(init)
    def guarded(params: PyTree) -> PyTree:
        check_arrays(owner, params)
        return init(params)

    return guarded


def guarded_update(
    owner: str, update: Callable[..., tuple[PyTree, PyTree]], is_state: Callable[[Any], bool], *, applied: bool = False
) -> Callable[..., tuple[PyTree, PyTree]]:
    """`update`, for gradients that are arrays, and params that are those of the gradients or a model that holds them.

    Args:
        owner: The optimizer's name, for messages.
        update: `update(grads, state, params, **extra) -> (updates, state)`.
        is_state: Whether something is the state of an optimizer.
        applied: Whether `update` returns new params in the place of updates.

    Raises:
        TypeError: A gradient is not an array, or the arguments are in another order.
    """

    @functools.wraps(update)
    def guarded(grads: PyTree, state: PyTree, params: PyTree = None, **extra: Any) -> tuple[PyTree, PyTree]:
        if is_state(grads) or is_state(params):
            place = "first" if is_state(grads) else "third"
            raise TypeError(
                f"{owner}: the {place} argument is an optimizer's state; call update(grads, state, params)."
            )
        check_arrays(owner, grads, "gradient")
        fitted = None if params is None else _fit(grads, state, params)
        if fitted is None:
            return update(grads, state, params, **extra)
        result, state = update(fitted.grads, state, fitted.params, **extra)
        return (fitted.new_params(result) if applied else fitted.updates(result)), state

    return guarded


class _Fitted(NamedTuple):
    """Gradients and params of one structure, and the way back."""

    grads: PyTree
    params: PyTree
    treedef: Any  # of the gradients as given, each None a leaf
    without: list[bool]  # which leaves had no gradient
    leaves: list[Any]  # what the params have at each leaf of the gradients

    def updates(self, result: PyTree) -> PyTree:
        """Updates in the structure of the gradients: None where these are."""
        pairs = zip(self.treedef.flatten_up_to(result), self.without, strict=True)
        return self.treedef.unflatten(None if without else update for update, without in pairs)

    def new_params(self, result: PyTree) -> PyTree:
        """New params in the structure of the params: as they were where there was no gradient."""
        triples = zip(self.treedef.flatten_up_to(result), self.leaves, self.without, strict=True)
        return self.treedef.unflatten(old if without else new for new, old, without in triples)


def _fit(grads: PyTree, state: PyTree, params: PyTree) -> _Fitted | None:
    """None where the structures are the same, or differ in more than what is not trained."""
    if jax.tree.structure(grads) == jax.tree.structure(params):
        return None
    paths, treedef = jax.tree_util.tree_flatten_with_path(grads, is_leaf=_is_none)
    try:
        leaves = treedef.flatten_up_to(params)
    except (ValueError, TypeError, KeyError):
        return None
    without = [grad is None for _, grad in paths]
    if any(map(_is_trained, (leaf for leaf, no_grad in zip(leaves, without, strict=True) if no_grad))):
        return None
    # Made from params with integers in them, a state has a marker for each; where it has none, they are left out.
    marked = _marked_paths(state)
    fitted_grads, fitted_params = [], []
    for (path, grad), leaf in zip(paths, leaves, strict=True):
        stays = grad is not None or (is_array(leaf) and any(where[-len(path) :] == path for where in marked))
        fitted_params.append(leaf if stays else None)
        fitted_grads.append(_no_gradient(leaf) if stays and grad is None else grad)
    return _Fitted(treedef.unflatten(fitted_grads), treedef.unflatten(fitted_params), treedef, without, leaves)


def _no_gradient(leaf: Any) -> Any:
    """What stands for the gradient of an integer, a flag or a random key."""
    return leaf if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.extended) else jnp.zeros_like(leaf)


def _is_none(node: Any) -> bool:
    return node is None


def _is_trained(part: PyTree) -> bool:
    return any(is_array(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in jax.tree.leaves(part))


def _marked_paths(state: PyTree) -> list[tuple[Any, ...]]:
    def is_marker(node: Any) -> bool:
        return isinstance(node, optax.MaskedNode)

    return [path for path, node in jax.tree_util.tree_flatten_with_path(state, is_leaf=is_marker)[0] if is_marker(node)]
