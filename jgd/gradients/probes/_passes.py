"""The loss with a probe: a first trace that finds out what is used where, and a second that computes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, ArrayLike, PyTree, check_arrays, is_float, path_text
from jgd.gradients._padding import batch_size
from jgd.gradients.probes._parts import Part, squared_norms
from jgd.gradients.probes._recorder import OPERATIONS, Probe, Use

#: `losses_fn(params, batch, probe) -> losses [B]`; the probe is None for the plain losses.
LossesFn = Callable[[PyTree, PyTree, Probe | None], Array]


class SplitParams(NamedTuple):
    """Params taken apart: the float leaves, in order, and how to put them together again.

    Attributes:
        leaves: The float leaves.
        paths: Their paths, for messages.
        merge: Makes params of other float leaves.
    """

    leaves: list[Any]
    paths: list[str]
    merge: Callable[[Sequence[Any]], PyTree]


def split_params(owner: str, params: PyTree) -> SplitParams:
    """The float leaves of params, and how to put them together again.

    Raises:
        TypeError: A leaf is complex, or no array.
    """
    check_arrays(owner, params)
    with_paths, treedef = jax.tree_util.tree_flatten_with_path(params)
    places, leaves, paths = [], [], []
    for place, (path, leaf) in enumerate(with_paths):
        dtype = jnp.result_type(leaf)
        if jnp.issubdtype(dtype, jnp.complexfloating):
            raise TypeError(f"{owner}: the leaf at {path_text(path)} is complex ({dtype}); expected real leaves.")
        if jnp.issubdtype(dtype, jnp.inexact):
            places, leaves, paths = [*places, place], [*leaves, jnp.asarray(leaf)], [*paths, path_text(path)]
    all_leaves = [leaf for _, leaf in with_paths]

    def merge(others: Sequence[Any]) -> PyTree:
        new = list(all_leaves)
        for place, leaf in zip(places, others, strict=True):
            new[place] = leaf
        return jax.tree.unflatten(treedef, new)

    return SplitParams(leaves, paths, merge)


def as_grads(params: PyTree, split: SplitParams, grads: Sequence[Array]) -> PyTree:
    """Gradients of the float leaves as a tree of gradients; leaves that are not trained have zeros."""
    if len(split.paths) == len(jax.tree.leaves(params)):
        return split.merge(grads)
    zeroed = jax.tree.map(lambda leaf: leaf if is_float(leaf) else jnp.zeros_like(leaf), params)
    return split_params("", zeroed).merge(grads)


def check_losses(owner: str, losses: ArrayLike, size: int) -> None:
    """Refuses anything but a vector of losses.

    Raises:
        ValueError: Another shape.
        TypeError: Not floats.
    """
    if jnp.shape(losses) != (size,):
        raise ValueError(
            f"{owner}: losses_fn returned shape {jnp.shape(losses)}; expected ({size},): each example's own loss, not"
            " their mean."
        )
    if not jnp.issubdtype(jnp.result_type(losses), jnp.floating):
        raise TypeError(f"{owner}: losses_fn returned dtype {jnp.result_type(losses)}; expected floats.")


def trace_uses(
    owner: str, losses_fn: LossesFn, split: SplitParams, batch: PyTree, size: int
) -> tuple[list[Use], list[str]]:
    """Which operations a loss calls, and the leaves that it uses outside of them: a trace, nothing is computed.

    The operations work on stand-ins of the leaves. What gradient a leaf then still has comes from elsewhere.
    """
    probes = []

    def gradients(leaves: list[Any], stand_ins: list[Any], batch: PyTree, cotangent: Array) -> Any:
        def losses_of(leaves: list[Any]) -> Array:
            probe = Probe(leaves, size, stand_ins)
            losses = losses_fn(split.merge(leaves), batch, probe)
            check_losses(owner, losses, size)
            probes.append(probe)
            return losses

        losses, pull = jax.vjp(losses_of, leaves)
        return pull(jnp.full(losses.shape, cotangent, losses.dtype))[0]

    jaxpr = jax.make_jaxpr(gradients)(split.leaves, split.leaves, batch, jnp.zeros(())).jaxpr
    reached = {jaxpr.invars[-1]}  # what depends on the losses' cotangent; a gradient that is zero by structure does not
    for equation in jaxpr.eqns:
        if any(var in reached for var in equation.invars if not hasattr(var, "val")):
            reached.update(equation.outvars)
    outside = [
        path for path, var in zip(split.paths, jaxpr.outvars, strict=True) if not hasattr(var, "val") and var in reached
    ]
    return probes[-1].uses, outside


def refuse_outside(owner: str, outside: Sequence[str]) -> None:
    """Refuses leaves whose gradient the probed operations do not account for.

    Raises:
        ValueError: There are some; the message names them.
    """
    if outside:
        raise ValueError(
            f"{owner}: losses_fn uses the params at {', '.join(outside)} outside of {OPERATIONS} with its probe; their"
            " part of the gradient would be missing from the norms. Use a probed operation, or keep what is not trained"
            " out of params or under jax.lax.stop_gradient."
        )


class Tape(NamedTuple):
    """A loss evaluated once, and what can be pulled back through it.

    Attributes:
        losses: `[B]`.
        uses: The calls of probed operations, in order.
        inputs: What they were given.
        deltas: The gradients of the sum of the losses with respect to their outputs.
        pull: From weights `[B]` to the weighted sum of the examples' gradients, a list as the float leaves.
    """

    losses: Array
    uses: list[Use]
    inputs: list[Array]
    deltas: list[Array]
    pull: Callable[[Array], list[Array]]


def evaluate(owner: str, losses_fn: LossesFn, split: SplitParams, batch: PyTree) -> Tape:
    """Runs a loss forward and, for its operations' outputs, backward."""
    size = batch_size(owner, batch)
    uses, outside = trace_uses(owner, losses_fn, split, batch, size)
    refuse_outside(owner, outside)
    taps = [jnp.zeros(use.output.shape, use.output.dtype) for use in uses]

    def losses_of(leaves: list[Any], taps: list[Array]) -> tuple[Array, list[Array]]:
        probe = Probe(leaves, size, taps=taps)
        return losses_fn(split.merge(leaves), batch, probe), probe.inputs

    losses, pull, inputs = jax.vjp(losses_of, split.leaves, taps, has_aux=True)
    # The two pull-backs share the forward pass. What each of them leaves unused, the compiler drops.
    deltas = pull(jnp.ones_like(losses))[1]
    return Tape(losses, uses, inputs, deltas, lambda weights: pull(weights.astype(losses.dtype))[0])


def leaf_norms(tape: Tape, leaves: Sequence[Array]) -> list[Array]:
    """Each example's squared gradient norm, `[B]`, for each leaf."""
    parts: list[list[Part]] = [[] for _ in leaves]
    for use, x, delta in zip(tape.uses, tape.inputs, tape.deltas, strict=True):
        parts[use.leaf].append(use.operation.part(x, leaves[use.leaf], delta))
    zero = jnp.zeros(tape.losses.shape, jnp.float32)
    return [squared_norms(uses, leaf.shape) if uses else zero for uses, leaf in zip(parts, leaves, strict=True)]


def sum_leaf_norms(tape: Tape, leaves: Sequence[Array]) -> Array:
    """Each example's squared gradient norm, `[B]`, over all leaves."""
    return sum(leaf_norms(tape, leaves), jnp.zeros(tape.losses.shape, jnp.float32))


def book_kept(tape: Tape, leaves: Sequence[Array], weights: Array) -> list[Array]:
    """The weighted sum of the gradients from the cotangents at hand, with no second backward pass.

    An example's cotangents are those of its own loss alone, so that its weight scales them (Bu et al., 2022).
    """
    sums = [jnp.zeros_like(leaf) for leaf in leaves]
    for use, x, delta in zip(tape.uses, tape.inputs, tape.deltas, strict=True):
        weighted = delta * weights.astype(delta.dtype).reshape(-1, *[1] * (delta.ndim - 1))
        _, pull = jax.vjp(lambda w, x=x, operation=use.operation: operation.apply(x, w), leaves[use.leaf])
        sums[use.leaf] += pull(weighted)[0]
    return sums
