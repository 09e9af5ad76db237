r"""Reductions of the gradients $g_i$ of single examples.

A reduction is an object with five methods, all of which have a default:

- `init(params)` makes what is carried from chunk to chunk,
- `add(carry, chunk)` adds a chunk of examples to it,
- `each(chunk)` gives a tree of arrays `[c, ...]`, one row an example,
- `finish(carry, each, summary)` makes the result of the last carry and of all rows `[B, ...]`,
- and `reads_grads` says whether `add` or `each` read the gradients of single examples.

References:
    - Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
      http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf, 1979 (`Variance`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree, abs_sq, compute_dtype, global_norm, is_float, real_dtype, root
from jgd.gradients._chunk import Chunk, wide_zeros
from jgd.gradients._patterns import groups_of_floats


class BatchSummary(NamedTuple):
    """What is known of a batch once all its examples have passed.

    Attributes:
        used: Which examples counted, bool `[B]`.
        count: How many.
        along: From a tree as the params to the derivative of each example's loss along it, `[B]`: `g_i . d`, of which
            complex params have the real part of `conj(g_i) . d`. Another pass over the batch, in forward mode;
            `along(d, forward=False)` computes all gradients again instead.
    """

    used: Array
    count: Array
    along: Callable[..., Array]


class Reduction:
    """The base of all reductions. One of your own overrides what it needs.

    Attributes:
        reads_grads: Whether `add` or `each` read the gradients or norms of single examples. Where no reduction does,
            sums are taken by one backward pass.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import Reduction, reduce_per_example
        >>> class LargestLoss(Reduction):
        ...     reads_grads = False
        ...     def init(self, params):
        ...         return jnp.array(-jnp.inf)
        ...     def add(self, carry, chunk):
        ...         return jnp.maximum(carry, jnp.max(jnp.where(chunk.used, chunk.losses, -jnp.inf)))
        >>> reduce_fn = reduce_per_example(lambda w, batch: jnp.mean((w - batch) ** 2), LargestLoss(), chunk_size=2)
        >>> print(reduce_fn(jnp.array(1.0), jnp.array([1.0, 2.0, 4.0])).results)
        9.0
    """

    reads_grads: ClassVar[bool] = True

    def init(self, params: PyTree) -> PyTree:
        """What is carried from chunk to chunk, before the first."""
        del params

    def add(self, carry: PyTree, chunk: Chunk) -> PyTree:
        """The carry with a chunk added; of the same structure, shapes and dtypes. Only `chunk.used` examples count."""
        del chunk
        return carry

    def each(self, chunk: Chunk) -> PyTree:
        """Arrays `[c, ...]`, a row for each example; rows of padding become zeros."""
        del chunk

    def finish(self, carry: PyTree, each: PyTree, summary: BatchSummary) -> PyTree:
        """The result: by default the carry, or the rows where there are any."""
        del summary
        return carry if each is None else each


class Sum(Reduction):
    """The sum of the gradients, in float32 or wider."""

    reads_grads = False

    def init(self, params: PyTree) -> PyTree:
        """Zeros like the params."""
        return wide_zeros(params)

    def add(self, carry: PyTree, chunk: Chunk) -> PyTree:
        """Adds the gradients of the chunk."""
        return jax.tree.map(jnp.add, carry, chunk.weighted_sum(jnp.ones(chunk.real.shape)))

    def finish(self, carry: PyTree, each: PyTree, summary: BatchSummary) -> PyTree:
        """Zeros where no example counted."""
        del each
        return jax.tree.map(lambda total: jnp.where(summary.count > 0, total, 0), carry)


class Mean(Sum):
    """The mean of the gradients over the examples that count; zeros where there is none."""

    def finish(self, carry: PyTree, each: PyTree, summary: BatchSummary) -> PyTree:
        """Divides by the number of examples that count."""
        return over(super().finish(carry, each, summary), summary.count)


class Gradients(Reduction):
    """All gradients, `[B, ...]`: as much memory as that takes. Zeros for examples that do not count."""

    def each(self, chunk: Chunk) -> PyTree:
        """The gradients of the examples that count."""

        def keep(leaf: Array) -> Array:
            return jnp.where(chunk.used.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 0)

        return jax.tree.map(keep, chunk.grads)


@dataclass(frozen=True)
class Norms(Reduction):
    """The Euclidean norm of each gradient, in float32 or wider.

    Attributes:
        per: `"all"` for one norm of all leaves, `[B]`; `"leaf"` for a tree as the params of `[B]`; or patterns of paths
            as `jgd.groups` has them, for a dict from pattern to `[B]`.
    """

    per: Literal["all", "leaf"] | Sequence[str] = "all"

    def each(self, chunk: Chunk) -> PyTree:
        """The norm of each gradient."""
        if self.per == "all":
            return root(chunk.squared_norms)
        squares = chunk.leaf_squared_norms
        if self.per == "leaf":
            zeros = jax.tree.map(lambda _: jnp.zeros(chunk.real.shape), chunk.params)
            leaves, treedef = jax.tree.flatten(zeros)
            of_floats = iter(squares)
            trained = [is_float(leaf) for leaf in jax.tree.leaves(chunk.params)]
            return treedef.unflatten(
                root(next(of_floats)) if is_trained else zero for is_trained, zero in zip(trained, leaves, strict=True)
            )
        names = groups_of_floats("Norms", self.per, chunk.params)
        return {name: root(square) for name, square in by_group(self.per, names, squares).items()}


class SecondMoment(Reduction):
    """The mean of `|g|^2`, entry by entry, as the params."""

    def init(self, params: PyTree) -> PyTree:
        """Zeros like the params."""
        return _real_wide_zeros(params)

    def add(self, carry: PyTree, chunk: Chunk) -> PyTree:
        """Adds the squared gradients."""
        return jax.tree.map(lambda total, g: total + _square_sum(g, 0, chunk.used), carry, chunk.grads)

    def finish(self, carry: PyTree, each: PyTree, summary: BatchSummary) -> PyTree:
        """Divides by the number of examples that count."""
        del each
        return over(carry, summary.count)


@dataclass(frozen=True)
class Variance(Reduction):
    """The variance of the gradients, entry by entry, as the params.

    Attributes:
        ddof: What the count is lessened by in the denominator; 1 makes the estimate unbiased.
    """

    ddof: int = 1

    def init(self, params: PyTree) -> PyTree:
        """Count, mean and sum of squared deviations."""
        return jnp.zeros(()), wide_zeros(params), _real_wide_zeros(params)

    def add(self, carry: PyTree, chunk: Chunk) -> PyTree:
        """Merges the chunk's mean and deviations (Chan et al., 1979): no large squares cancel."""
        count, mean, squares = carry
        chunk_count = jnp.sum(chunk.used, dtype=count.dtype)
        share = chunk_count / jnp.maximum(count + chunk_count, 1)
        chunk_mean = over(chunk.weighted_sum(jnp.ones(chunk.real.shape)), chunk_count)
        difference = jax.tree.map(lambda new, old: new - old, chunk_mean, mean)

        def merge(total: Array, grads: Array, center: Array, apart: Array) -> Array:
            if not is_float(total):
                return total
            return total + _square_sum(grads, center, chunk.used) + abs_sq(apart) * (share * count).astype(total.dtype)

        return (
            count + chunk_count,
            jax.tree.map(lambda old, d: old + d * share.astype(d.dtype) if is_float(d) else old, mean, difference),
            jax.tree.map(merge, squares, chunk.grads, chunk_mean, difference),
        )

    def finish(self, carry: PyTree, each: PyTree, summary: BatchSummary) -> PyTree:
        """Divides by the count less `ddof`; NaN where there are too few examples."""
        del each
        free = summary.count - self.ddof
        return jax.tree.map(lambda total: jnp.where(free > 0, total / free, jnp.nan), carry[2])


@dataclass(frozen=True)
class CosineToMean(Mean):
    """The cosine between each gradient and their mean, `[B]`.

    The mean is known only at the end, so that the products with it take another pass over the batch: one forward-mode
    derivative of the losses, about two forward passes. A gradient of zero has cosine 0.

    Attributes:
        forward: False for losses that forward mode does not go through (`jax.custom_vjp`): all gradients are then
            computed a second time.
    """

    forward: bool = True
    reads_grads = True

    def each(self, chunk: Chunk) -> PyTree:
        """The norm of each gradient."""
        return root(chunk.squared_norms)

    def finish(self, carry: PyTree, each: PyTree, summary: BatchSummary) -> PyTree:
        """The products with the mean, divided by both norms."""
        mean = super().finish(carry, each, summary)
        products = summary.along(mean, forward=self.forward)
        norms = each * global_norm(mean)
        return jnp.where(norms > 0, products / jnp.where(norms > 0, norms, 1), jnp.where(summary.used, norms, 0))


def by_group(groups: Sequence[str], names: Sequence[str], squares: Sequence[Array]) -> dict[str, Array]:
    """The squared norm of all leaves of each group."""
    zero = jnp.zeros(squares[0].shape, jnp.float32)
    return {
        group: sum((square for name, square in zip(names, squares, strict=True) if name == group), zero)
        for group in groups
    }


def over(tree: PyTree, count: Array) -> PyTree:
    """Every float leaf divided by a count, or by 1 where that is 0."""
    return jax.tree.map(
        lambda leaf: (leaf / jnp.maximum(count, 1)).astype(leaf.dtype) if is_float(leaf) else leaf, tree
    )


def _real_wide_zeros(params: PyTree) -> PyTree:
    return jax.tree.map(lambda zero: jnp.zeros(zero.shape, _real(zero.dtype)), wide_zeros(params))


def _real(dtype: Any) -> Any:
    return real_dtype(dtype) if jnp.issubdtype(dtype, jnp.inexact) else jnp.float32


def _square_sum(grads: Array, center: Any, used: Array) -> Array:
    """The sum over examples of `|g - center|^2`; zeros for leaves that are no floats."""
    if not is_float(grads):
        return jnp.zeros(grads.shape[1:], jnp.float32)
    squares = abs_sq(grads.astype(compute_dtype(grads.dtype)) - center)
    squares = jnp.where(used.reshape(-1, *[1] * (grads.ndim - 1)), squares, 0)
    # A product with ones: XLA on CPU would compute the gradients again for each entry of a plain sum over examples.
    return jnp.tensordot(jnp.ones(len(squares), squares.dtype), squares, 1, precision=jax.lax.Precision.HIGHEST)
