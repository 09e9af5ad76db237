"""Checks that a rule reads the numbers that it was given."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import GradientTransformation, OptState, PyTree
from jgd.testing._subject import Extra, OptimizerCheckError, as_subject, check, gradients, numbers


@check
def check_hyperparams(
    optimizer: GradientTransformation, *, params: PyTree = None, extra: Extra = None, steps: int = 12
) -> None:
    """Every hyperparameter in the state changes something: the numbers are others when it is NaN.

    One that changes nothing is forgotten by its formula, or read from where it was before it became data: then
    `jgd.set_hyperparams`, schedules and sweeps do nothing. Optimizers of optax have none in their states, and pass.

    Args:
        optimizer: Any optax optimizer.
        params: As for `check_optimizer`.
        extra: As for `check_optimizer`.
        steps: How many updates. What takes effect later, such as a number for the end of a warmup, is not seen.

    Raises:
        OptimizerCheckError: Updates and slots are the same, to the last bit, whatever a hyperparameter is.

    Examples:
        >>> from jgd.core import Rule, lift
        >>> from jgd.testing import check_hyperparams
        >>> def update(grad, slots, param, hyper, step):
        ...     return -hyper["learning_rate"] * grad, {}
        >>> check_hyperparams(lift(Rule(update), {"learning_rate": 0.1}, name="mine"))
        >>> forgotten = lift(Rule(update), {"learning_rate": 0.1, "weight_decay": 0.1}, name="mine")
        >>> check_hyperparams(forgotten)  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        jgd.testing.OptimizerCheckError: check_hyperparams: 'weight_decay' changes nothing in 12 updates ...
    """
    subject = as_subject(optimizer, params, extra)
    first = subject.init(subject.params)
    grads = [gradients(subject.params, seed) for seed in range(steps)]

    def run(state: PyTree) -> list[np.ndarray]:
        params, all_updates = subject.params, []
        for grad in grads:
            updates, state, params = subject.step(grad, state, params)
            all_updates.append(updates)
        return [numbers(leaf) for leaf in jax.tree.leaves((all_updates, jax.tree.map(_slots, state, is_leaf=_is_node)))]

    plain = run(first)
    for i, node in enumerate(filter(_is_node, jax.tree.leaves(first, is_leaf=_is_node))):
        # The handle on a schedule is the factor beside it; the value itself is computed anew at each step.
        for name in (name for name in node.hyperparams if f"{name}_scale" not in node.hyperparams):
            other = run(_poisoned(first, i, name))
            if all(np.array_equal(a, b, equal_nan=True) for a, b in zip(plain, other, strict=True)):
                raise OptimizerCheckError(
                    f"{name!r} changes nothing in {steps} updates, whatever it is; expected a formula that reads"
                    f" hyper[{name!r}], or no such hyperparameter."
                )


def _is_node(node: Any) -> bool:
    return isinstance(node, OptState)


def _slots(node: Any) -> Any:
    return node.slots if _is_node(node) else node


def _poisoned(state: PyTree, place: int, name: str) -> PyTree:
    """The state with NaN for one hyperparameter."""
    places = iter(range(len(jax.tree.leaves(state, is_leaf=_is_node))))

    def change(node: Any) -> Any:
        if not _is_node(node) or next(places) != place:
            return node
        return node._replace(hyperparams=node.hyperparams | {name: node.hyperparams[name] * jnp.nan})

    return jax.tree.map(change, state, is_leaf=_is_node)
