"""Costly refreshes of preconditioners in different steps for different leaves, so that no step has them all."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jgd.core import Array, Cached, Hyper, Mask, Optimizer, PyTree, Rule, broadcast_mask, lift

_PHASES = 10  # as many groups of leaves, spread evenly over a cycle, however long that is


def even_phases(costs: Sequence[float], count: int = _PHASES) -> list[int]:
    """Distributes leaves over the phases of a cycle: the costliest first, each to the phase with the least work so far.

    Examples:
        >>> even_phases([1.0, 5.0, 2.0, 2.0], count=2)
        [1, 0, 1, 1]
    """
    loads, phases = [0.0] * count, [0] * len(costs)
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        phases[i] = loads.index(min(loads))
        loads[phases[i]] += costs[i]
    return phases


def steps_ahead(hyper: Hyper, every: Array) -> Array:
    """How many steps before the others a leaf of this phase has its refresh."""
    return jnp.floor(hyper.get("phase", jnp.zeros(())) * every).astype(jnp.int32)


def _in_phase(rule: Rule, phase: float) -> Rule:
    def prepare(hyper: Hyper, step: Array) -> Hyper:
        return rule.prepare(hyper | {"phase": jnp.asarray(phase)}, step)

    return dataclasses.replace(rule, prepare=prepare)


def lift_staggered(
    rule: Rule,
    decaying: Rule,
    hyperparams: dict[str, Any],
    mask: Mask,
    cost: Callable[[tuple[int, ...]], float] | None,
    *,
    name: str,
    **more: Any,
) -> Optimizer:
    """Lifts a rule with refreshes, with weight decay on the leaves that the mask names.

    Args:
        rule: The rule; its `prepare` reads `steps_ahead`.
        decaying: The same with weight decay.
        hyperparams: Every number of the rule by name.
        mask: Which leaves decay.
        cost: `cost(shape)`, what a refresh of a leaf costs, in any unit; None for all refreshes in one step.
        name: The factory's name.
        more: Further arguments of `lift`.
    """
    variant = Cached(lambda decays, phase: _in_phase(decaying if decays else rule, phase / _PHASES))

    def choose(params: PyTree) -> PyTree:
        leaves, treedef = jax.tree.flatten(params)
        decays = jax.tree.leaves(broadcast_mask(name, mask, params))
        phases = [0] * len(leaves) if cost is None else even_phases([cost(jnp.shape(leaf)) for leaf in leaves])
        return treedef.unflatten(variant(*kind) for kind in zip(decays, phases, strict=True))

    varies = mask is not None or cost is not None
    return lift(decaying, hyperparams, name=name, choose=choose if varies else None, **more)
