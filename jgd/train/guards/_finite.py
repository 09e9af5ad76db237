"""Whether a loss or a gradient is not finite, and where."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree, is_float, path_text, sum_of_squares

ALL_FINITE = -1


class NonFiniteError(FloatingPointError):
    """A loss or gradient that is NaN or infinite.

    Attributes:
        step: The step at which it was met.
        leaf: The path of the first gradient leaf that is not finite, or `"loss"` where all gradients were finite.
        state: The training state as it was before that step. Nothing of it was lost or changed.
        report: What `jgd.debug_step` says of it, where the step was made with `debug`; None otherwise.
    """

    def __init__(self, step: int, leaf: str, loss: float, state: PyTree = None, more: str = ""):
        what = "the loss" if leaf == "loss" else f"the gradient at {leaf}"
        advice = more or (
            " Look at the batch, lower the learning rate, or clip; on_nonfinite='skip' leaves such batches out."
        )
        super().__init__(
            f"step {step}: {what} is not finite (the loss is {loss}). The state from before this step is in this"
            f" error's .state.{advice}"
        )
        self.step, self.leaf, self.state = step, leaf, state
        self.report: Any = None  # a DebugReport, which is made of what stands here


class SpikeError(ArithmeticError):
    """A spike of the loss or the gradient norm, in a step whose guard asks for a rollback.

    Attributes:
        step: The step at which it was met.
        number: `"loss"` or `"grad_norm"`.
        value: What it was.
        threshold: What it had to stay below.
        state: The training state as it was before that step. Nothing of it was lost or changed.
    """

    def __init__(self, step: int, number: str, value: float, threshold: float, state: PyTree = None):
        super().__init__(
            f"step {step}: {number} is {value:.6g}, a spike above {threshold:.6g}, and the guard asks for a rollback."
            " The state from before this step is in this error's .state. jgd.Rollback brings back an earlier one;"
            " Spikes(on_spike='skip') leaves such steps out."
        )
        self.step, self.number, self.value, self.threshold, self.state = step, number, value, threshold, state


def first_bad_leaf(loss: Array, grads: PyTree) -> Array:
    """The position of the first gradient leaf that is not finite, the number of leaves if only the loss is not.

    Returns:
        int32 scalar; `ALL_FINITE` where there is nothing to report.
    """
    leaves = jax.tree.leaves(grads)

    def search() -> Array:
        finite = [jnp.all(jnp.isfinite(leaf)) if is_float(leaf) else jnp.array(True) for leaf in leaves]
        nonfinite = ~jnp.stack([*finite, jnp.isfinite(loss)])
        return jnp.where(jnp.any(nonfinite), jnp.argmax(nonfinite), ALL_FINITE).astype(jnp.int32)

    # A sum of squares is finite only if all that went into it is; it is quicker than the search, and the metrics have
    # it anyway. Where it overflows, the search decides.
    surely_finite = jnp.isfinite(sum_of_squares(filter(is_float, leaves))) & jnp.isfinite(loss)
    return cond_or_where(surely_finite, lambda: jnp.array(ALL_FINITE, jnp.int32), search)


def cond_or_where(use_first: Array, first: Callable[[], PyTree], second: Callable[[], PyTree]) -> Any:
    """The result of one of two functions: by `lax.cond` on a CPU; elsewhere both run, and `where` selects.

    Selecting leaf by leaf keeps the old arrays beside the new ones: on a CPU XLA then copies them, which takes longer
    than the update itself. On an accelerator a branch would make the host wait for the device.
    """
    if jax.default_backend() == "cpu":
        try:
            return jax.lax.cond(use_first, first, second)
        except TypeError:
            pass  # some of optax's states change their dtypes at the first update, which branches may not
    return jax.tree.map(lambda a, b: a if a is b else jnp.where(use_first, a, b), first(), second())


def leaf_name(position: int, params: PyTree) -> str:
    """The path of the leaf at a position that `first_bad_leaf` gave, or `"loss"`."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    return path_text(paths[position]) if position < len(paths) else "loss"
