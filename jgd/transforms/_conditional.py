"""An optimizer inside a wrapper that runs in some steps only."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree


def update_where(condition: Array, run: Callable[[], tuple[PyTree, PyTree]], state: PyTree) -> tuple[PyTree, PyTree]:
    """`run()`, updates and new state, where the condition holds; elsewhere updates of zero and the state as it is.

    The optimizer stands behind a condition, so that it costs nothing where it does not run.
    """
    shapes = jax.eval_shape(run)[0]

    def skip() -> tuple[PyTree, PyTree]:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes), state

    return jax.lax.cond(condition, run, skip)
