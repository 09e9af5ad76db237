"""Optimizers that look at the whole tree at once: clipping, scaling, decay. Their hyperparameters are data as well."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from jgd.core._checks import check_same_tree
from jgd.core._hyperparams import Hyperparams
from jgd.core._numerics import increment
from jgd.core._optimizer import Optimizer, OptState, make_optimizer
from jgd.core._types import Hyper, PyTree, ScalarOrSchedule


def lift_transform(
    apply: Callable[[PyTree, PyTree, Hyper], PyTree],
    hyperparams: Mapping[str, ScalarOrSchedule],
    *,
    name: str,
    needs_params: bool = False,
) -> Optimizer:
    """Turns `apply(updates, params, hyper) -> updates` on whole trees into an optimizer.

    Args:
        apply: The formula. `hyper` holds arrays of the default float dtype.
        hyperparams: Every number of the formula by name: numbers, scalar arrays or schedules.
        name: The factory's name, for messages and for `print`.
        needs_params: Whether the formula reads the params.

    Returns:
        An optimizer whose state is `OptState(count, hyperparams, {})`.
    """
    given = Hyperparams(name, hyperparams)

    def init(params: PyTree) -> OptState:
        del params
        return OptState(count=jnp.zeros((), jnp.int32), hyperparams=given.init(), slots={})

    def update(updates: PyTree, state: OptState, params: PyTree = None, **extra: Any) -> tuple[PyTree, OptState]:
        del extra
        if not isinstance(state, OptState):
            raise TypeError(
                f"{name}: expected the OptState that this transform's init made; got {type(state).__name__}."
            )
        if needs_params and params is None:
            raise ValueError(f"{name}: it reads the params: call update(updates, state, params); got params=None.")
        if needs_params:
            check_same_tree(name, "updates", updates, "params", params)
        hyper = given.at_step(state.hyperparams, state.count)
        return apply(updates, params, hyper), OptState(increment(state.count), hyper, {})

    return make_optimizer(init, update, f"jgd.{name}({given.text()})")
