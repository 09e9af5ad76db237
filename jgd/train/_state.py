"""The state of a training run: one plain pytree."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, ArrayTree, GradientTransformation, PyTree, check_arrays, checked, random_key
from jgd.train.guards._guard import Guard
from jgd.train.step._same_optimizer import remember
from jgd.train.step._stacked import check_batch


class TrainState(NamedTuple):
    """All that changes while a model trains, and nothing that does not.

    Make it with `create`. It is a pytree of arrays: `jit`, `vmap`, `scan` and checkpoints take it as it is.
    """

    step: Array  # int32 scalar, batches seen so far, those that were skipped included
    params: PyTree  # what is trained
    opt_state: PyTree  # what the optimizer remembers
    key: Array | None = None  # the run's random key; step t draws from fold_in(key, t), so this never changes
    model_state: PyTree = None  # what the model itself remembers, such as the averages of batch norm
    guard: PyTree = None  # what a `jgd.Guard` remembers: counters, the loss scale, windows

    @classmethod
    @checked
    def create(
        cls,
        params: PyTree,
        optimizer: GradientTransformation,
        *,
        key: Array | int | None = None,
        model_state: ArrayTree = None,
        guard: Guard | None = None,
    ) -> "TrainState":
        """The state before the first step.

        Args:
            params: A tree of arrays. They are copied, so that yours stay valid when a step reuses the memory of the
                state that it is given.
            optimizer: Any optimizer of jgd or optax; give the same to `make_step`.
            key: A random key or a seed, for a loss that draws random numbers. Where it is given, the loss is called
                with a key.
            model_state: A tree of arrays that the loss reads and replaces. Where it is given, the loss is called with
                it and returns its successor.
            guard: The guard that `make_step` was given, where there is one.

        Returns:
            A state at step 0. None of its arrays shares memory with another or with the arguments.

        Raises:
            TypeError: A leaf of the params is not an array, such as a function within a model; `optimizer`, `key` or
                `guard` is of another type.

        Examples:
            >>> import jax.numpy as jnp, jgd
            >>> state = jgd.TrainState.create({"w": jnp.zeros(3)}, jgd.adam(1e-3), key=0)
            >>> print(state.step, list(state.opt_state.slots))
            0 ['mu', 'nu']
        """
        check_arrays("TrainState.create", params)
        check_batch("TrainState.create", params, "params")  # integers that no array holds
        params = _copy(params)
        step = jnp.zeros((), jnp.int32)
        remember(step, optimizer)
        return cls(
            step=step,
            params=params,
            opt_state=_unshare(optimizer.init(params), params),
            key=None if key is None else random_key(key, "TrainState.create"),
            model_state=_copy(model_state),
            guard=None if guard is None else _copy(guard.init()),
        )


def _copy(tree: PyTree) -> PyTree:
    # With a dtype said, no copy is weakly typed, as a Python number's is: the next state's arrays are not either.
    return jax.tree.map(lambda leaf: jnp.array(leaf, dtype=jnp.result_type(leaf), copy=True), tree)


def _unshare(tree: PyTree, *others: PyTree) -> PyTree:
    """Copies leaves that occur twice in the tree, or in one of the others: some of optax's optimizers share buffers."""
    seen = {id(leaf) for other in others for leaf in jax.tree.leaves(other)}

    def copy_if_seen(leaf: Any) -> Any:
        if id(leaf) in seen:
            return jnp.copy(leaf)
        seen.add(id(leaf))
        return leaf

    return jax.tree.map(copy_if_seen, tree)
