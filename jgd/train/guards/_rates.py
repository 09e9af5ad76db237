"""The learning rates in an optimizer's state."""

from typing import Any

import jax

from jgd.core import Array, PyTree, get_hyperparams, set_hyperparams


def learning_rates(opt_state: PyTree) -> dict[str, Array]:
    """By their names in `jgd.get_hyperparams`: one without a prefix, or those of groups and of parts of a chain."""
    hyperparams = get_hyperparams(opt_state)
    return {name: value for name, value in hyperparams.items() if name.rpartition(".")[2] == "learning_rate"}


def lower_rates(opt_state: PyTree, multiplier: Array | float) -> PyTree:
    """Multiplies every learning rate in an optimizer's state.

    Raises:
        ValueError: There is none, or one that the optimizer's next update overwrites.
    """
    rates = learning_rates(opt_state)
    if not rates:
        raise ValueError(
            "lowering the learning rate: the optimizer has none in its state. Use one of jgd, or wrap optax's in"
            " optax.inject_hyperparams."
        )
    nodes = jax.tree.leaves(opt_state, is_leaf=has_schedules)
    if any("learning_rate" in node.hyperparams_states for node in nodes if has_schedules(node)):
        raise ValueError(
            "lowering the learning rate: this one follows a schedule of optax.inject_hyperparams, which overwrites it"
            " at the next update. Give the schedule to an optimizer of jgd: it keeps a learning_rate_scale beside it."
        )
    hyperparams = get_hyperparams(opt_state)
    lowered = [f"{name}_scale" if f"{name}_scale" in hyperparams else name for name in rates]
    return set_hyperparams(opt_state, **{name: hyperparams[name] * multiplier for name in lowered})


def has_schedules(node: Any) -> bool:
    """Whether a node of an optimizer's state is that of `optax.inject_hyperparams`."""
    return isinstance(getattr(node, "hyperparams_states", None), dict)
