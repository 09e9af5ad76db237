"""Optimizers that look at the whole tree at once: clipping, scaling, decay. Their hyperparameters are data as well."""

from collections.abc import Callable, Mapping
from typing import Any

from jgd.core._checks import check_same_tree
from jgd.core._hyperparams import Hyperparams
from jgd.core._optimizer import Optimizer, OptState, begin_update, check_params_given, first_state, make_optimizer
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
    numbers = Hyperparams(name, hyperparams)

    def init(params: PyTree) -> OptState:
        del params
        return first_state(numbers, {})

    def update(updates: PyTree, state: OptState, params: PyTree = None, **extra: Any) -> tuple[PyTree, OptState]:
        del extra
        hyper, count = begin_update(numbers, state, OptState)
        if needs_params:
            check_params_given(name, params, updates="updates")
            check_same_tree(name, "updates", updates, "params", params)
        return apply(updates, params, hyper), OptState(count, hyper, {})

    return make_optimizer(init, update, f"jgd.{name}({numbers.text()})")
