"""Leaving out updates that a non-finite gradient would spoil."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jgd.core import (
    GradientTransformation,
    Optimizer,
    OptState,
    PyTree,
    WrapperState,
    cast_like,
    check_state,
    increment,
    is_float,
    make_optimizer,
    transform_text,
)
from jgd.transforms._conditional import update_where


def skip_nonfinite(optimizer: GradientTransformation) -> Optimizer:
    """Leaves params and the inner state alone where a gradient is NaN or infinite, and counts how often.

    Args:
        optimizer: Any optimizer.

    Returns:
        An optimizer with the slots `skipped` and `consecutive`, int32 counts for the tree, whose state is
        `WrapperState(own, inner)`. The inner optimizer is behind a condition.

    Raises:
        TypeError: `optimizer` is not an optimizer.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.skip_nonfinite(jgd.adam(0.1)), jnp.zeros(1)
        >>> state = optimizer.init(params)
        >>> updates, state = optimizer.update(jnp.array([jnp.nan]), state, params)
        >>> print(updates, state.own.slots["skipped"], state.inner.count)
        [0.] 1 0
    """
    base = optax.with_extra_args_support(optimizer)

    def init(params: PyTree) -> WrapperState:
        counts = {"skipped": jnp.zeros((), jnp.int32), "consecutive": jnp.zeros((), jnp.int32)}
        return WrapperState(OptState(jnp.zeros((), jnp.int32), {}, counts), base.init(params))

    def update(grads: PyTree, state: WrapperState, params: PyTree = None, **extra: Any) -> tuple[PyTree, WrapperState]:
        check_state("skip_nonfinite", state, WrapperState)
        leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(grads) if is_float(leaf)]
        finite = jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in leaves])) if leaves else jnp.array(True)

        def run_inner() -> tuple[PyTree, PyTree]:
            inner_updates, inner = base.update(grads, state.inner, params, **extra)
            return inner_updates, cast_like(inner, state.inner)

        updates, inner = update_where(finite, run_inner, state.inner)
        is_skipped = jnp.logical_not(finite).astype(jnp.int32)
        counts = {
            "skipped": state.own.slots["skipped"] + is_skipped,
            "consecutive": jnp.where(finite, 0, state.own.slots["consecutive"] + 1),
        }
        return updates, WrapperState(OptState(increment(state.own.count), {}, counts), inner)

    return make_optimizer(init, update, f"jgd.skip_nonfinite({transform_text(optimizer)})")
