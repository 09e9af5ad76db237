"""The params to evaluate, for methods that average."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jgd.core._checks import check_params_of
from jgd.core._containers import boxed_like, unboxed
from jgd.core._optimizer import OptState, is_state
from jgd.core._types import PyTree


def eval_params(opt_state: PyTree, params: PyTree) -> PyTree:
    """The params to evaluate: an average, where the optimizer keeps one, and the params themselves otherwise.

    Args:
        opt_state: The state of any optimizer. States that average have a method `eval_params(params)`, or are an
            `OptState` with the slot `average`, or `slow`; the outermost counts.
        params: The params in training.

    Returns:
        A tree like `params`, of its dtypes.

    Raises:
        TypeError: The arguments are in the other order.
        ValueError: The params are not those of the state.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.array([1.0])
        >>> print(jgd.eval_params(jgd.sgd(0.1).init(params), params))
        [1.]
    """
    if is_state(params):
        raise TypeError(
            "eval_params: the second argument is an optimizer's state; call eval_params(opt_state, params)."
        )
    nodes = [node for node in jax.tree.leaves(opt_state, is_leaf=_averages) if _averages(node)]
    if not nodes:
        return params
    node, bare = unboxed(nodes[0]), unboxed(params)
    if hasattr(node, "eval_params"):
        return boxed_like(params, node.eval_params(bare))
    name, average = _slot(node)
    check_params_of("eval_params", name, average, bare)
    averaged = jax.tree.map(_as_param, bare, average)
    return boxed_like(params, averaged)


def has_eval_params(opt_state: PyTree) -> bool:
    """Whether `eval_params` gives other params than those in training."""
    nodes = [node for node in jax.tree.leaves(opt_state, is_leaf=_averages) if _averages(node)]
    # Groups have the method whatever is in them.
    return any(any(map(has_eval_params, node.values())) if isinstance(node, dict) else True for node in nodes)


def _slot(node: Any) -> tuple[str, PyTree]:
    return next(((name, node.slots[name]) for name in ("average", "slow") if name in node.slots), ("", None))


def _averages(node: Any) -> bool:
    return hasattr(node, "eval_params") or (isinstance(node, OptState) and _slot(node)[1] is not None)


def _as_param(param: Any, average: Any) -> Any:
    if isinstance(average, optax.MaskedNode):
        return param
    return jnp.asarray(average).astype(jnp.result_type(param))
