"""Some examples of a batch: their losses, gradients and norms, each computed only where something asks for it."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree, ascent_direction, compute_dtype, is_float, sum_of_squares
from jgd.gradients._example_loss import ExampleLoss, Rows, forward_cost
from jgd.gradients._padding import real_rows

#: Below so many operations of the forward pass for each parameter, a second backward pass costs less than reading all
#: gradients once more. A dense layer has 2 of them for each position of a sequence.
FEW_FLOPS = 8


class Leaves(NamedTuple):
    """The float leaves of params, and how to make a tree of others in their place."""

    floats: list[Any]
    merge: Callable[[Sequence[Any]], PyTree]

    @classmethod
    def of(cls, params: PyTree) -> "Leaves":
        """The float leaves of a tree."""
        leaves, treedef = jax.tree.flatten(params)
        places = [i for i, leaf in enumerate(leaves) if is_float(leaf)]

        def merge(new: Sequence[Any]) -> PyTree:
            chosen = dict(zip(places, new, strict=True))
            return treedef.unflatten(chosen.get(i, leaf) for i, leaf in enumerate(leaves))

        return cls([jnp.asarray(leaves[i]) for i in places], merge)


class Chunk:
    """What a reduction sees of `c` examples at a time.

    The properties are computed when they are read. What no reduction reads is not in the program.

    Args:
        one: The loss of one example.
        params: Where it is differentiated.
        rows: `(batch, keys)`, trees of `[c, ...]`.
        real: bool `[c]`, False for padding.
        drop: Whether examples with a loss or gradient that is not finite are left out.
        reads_grads: Whether the gradients of the single examples are computed in any case.

    Attributes:
        params: The params.
        real: Which examples are no padding, bool `[c]`.
    """

    def __init__(
        self,
        one: ExampleLoss,
        params: PyTree,
        rows: Rows,
        real: Array,
        *,
        drop: bool = False,
        reads_grads: bool = True,
    ):
        self.params, self.real = params, real
        self._one, self._rows, self._drop, self._reads_grads = one, rows, drop, reads_grads or drop

    @cached_property
    def _leaves(self) -> Leaves:
        return Leaves.of(self.params)

    @cached_property
    def _with_grads(self) -> tuple[tuple[Array, PyTree], list[Array]]:
        leaves = self._leaves

        def one(floats: list[Any], row: Any) -> tuple[Array, tuple[Array, PyTree]]:
            loss, aux = self._one(leaves.merge(floats), row)
            return loss, (loss, aux)

        grads, kept = jax.vmap(jax.grad(one, has_aux=True), (None, 0))(leaves.floats, self._rows)
        return kept, ascent_direction(grads)

    @cached_property
    def _pulled(self) -> tuple[tuple[Array, PyTree], Callable[[Array], list[Array]]]:
        """Losses, and from weights to the weighted sum of gradients."""
        leaves = self._leaves
        rows = real_rows(self._rows, self.used) if self._drop else self._rows

        def losses_of(floats: list[Any]) -> tuple[Array, tuple[Array, PyTree]]:
            losses, aux = jax.vmap(self._one, (None, 0))(leaves.merge(floats), rows)
            return losses, (losses, aux)

        _, pull, kept = jax.vjp(losses_of, leaves.floats, has_aux=True)
        return kept, lambda weights: ascent_direction(pull(weights.astype(kept[0].dtype))[0])

    @cached_property
    def _values(self) -> tuple[Array, PyTree]:
        return self._with_grads[0] if self._reads_grads or "_pulled" not in self.__dict__ else self._pulled[0]

    @property
    def losses(self) -> Array:
        """Each example's loss, `[c]`."""
        return self._values[0]

    @property
    def aux(self) -> PyTree:
        """What each example's loss returned beside it, `[c, ...]`; None without `has_aux`."""
        return self._values[1]

    @property
    def float_grads(self) -> list[Array]:
        """The gradients of the float leaves alone, in order, each `[c, ...]`; uphill where they are complex."""
        return self._with_grads[1]

    @property
    def grads(self) -> PyTree:
        """Each example's gradient: a tree as the params, `[c, ...]`; zeros for leaves that are no floats."""
        count = self.real.shape[0]
        zeros = jax.tree.map(lambda leaf: jnp.zeros((count, *jnp.shape(leaf)), jnp.result_type(leaf)), self.params)
        return Leaves.of(zeros).merge(self.float_grads)

    @cached_property
    def leaf_squared_norms(self) -> list[Array]:
        """The squared norm of each float leaf of each gradient: a list of `[c]`, float32 or wider."""
        return [jax.vmap(lambda leaf: sum_of_squares([leaf]))(grads) for grads in self.float_grads]

    @cached_property
    def squared_norms(self) -> Array:
        """Each gradient's squared norm, `[c]`, float32 or wider."""
        return sum(self.leaf_squared_norms, jnp.zeros(self.real.shape, jnp.float32))

    @cached_property
    def finite(self) -> Array:
        """Whether each example's loss and squared gradient norm are finite, bool `[c]`."""
        losses = self._with_grads[0][0]
        return jnp.isfinite(losses) & jnp.isfinite(self.squared_norms)

    @cached_property
    def used(self) -> Array:
        """Which examples count, bool `[c]`: the real ones, without those dropped."""
        return self.real & self.finite if self._drop else self.real

    def weighted_sum(self, weights: Array | Sequence[Array]) -> PyTree:
        """The sum of `weights[i] * grads[i]` over the examples that count, in float32 or wider.

        Args:
            weights: `[c]`, or such an array for each float leaf.
        """
        if isinstance(weights, Sequence):
            sums = [self._contracted(w, g) for w, g in zip(weights, self.float_grads, strict=True)]
        elif self._by_pull_back():
            sums = self._pulled[1](jnp.where(self.used, weights, 0))
            if self._drop:  # a chunk with nothing to put in the place of what is dropped
                sums = [jnp.where(jnp.any(self.used), total, 0) for total in sums]
        else:
            sums = [self._contracted(weights, grads) for grads in self.float_grads]
        return wide_zeros(self.params, sums)

    def _by_pull_back(self) -> bool:
        """Whether a second backward pass is the cheaper way, and exact enough: it sums in the dtype of the loss."""
        cost = forward_cost(self._one, self.params, jax.tree.map(lambda leaf: leaf[0], self._rows))
        if cost.narrow or any(compute_dtype(leaf.dtype) != leaf.dtype for leaf in self._leaves.floats):
            return False
        return not self._reads_grads or cost.flops <= FEW_FLOPS * sum(leaf.size for leaf in self._leaves.floats)

    def _contracted(self, weights: Array, grads: Array) -> Array:
        dtype = compute_dtype(grads.dtype)
        grads, weights = grads.astype(dtype), jnp.where(self.used, weights, 0).astype(dtype)
        if self._drop:  # zero times NaN is NaN
            grads = jnp.where(self.used.reshape(-1, *[1] * (grads.ndim - 1)), grads, 0)
        return jnp.tensordot(weights, grads, 1, precision=jax.lax.Precision.HIGHEST)


def wide_zeros(params: PyTree, floats: Sequence[Array] | None = None) -> PyTree:
    """Zeros as the params in float32 or wider, with `floats` for the float leaves where given."""

    def zero(leaf: Any) -> Array:
        dtype = jnp.result_type(leaf)
        return jnp.zeros(jnp.shape(leaf), compute_dtype(dtype) if jnp.issubdtype(dtype, jnp.inexact) else dtype)

    zeros = jax.tree.map(zero, params)
    return zeros if floats is None else Leaves.of(zeros).merge(floats)
