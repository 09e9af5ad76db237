"""One pass over a batch that reduces per-example gradients on the way."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import (
    Array,
    ArrayLike,
    LossFn,
    PyTree,
    ascent_direction,
    check_arrays,
    check_choice,
    checked,
    is_integer,
    random_key,
)
from jgd.gradients._budget import auto_chunk_size, program_bytes
from jgd.gradients._chunk import Chunk, Leaves
from jgd.gradients._example_loss import ExampleLoss, Key, Rows, example_loss
from jgd.gradients._padding import Padded, pad_batch, real_rows, split_mask
from jgd.gradients._reductions import BatchSummary, Reduction

ChunkSize = int | Literal["auto"] | None
OnNonfinite = Literal["keep", "drop"]


class PerExample(NamedTuple):
    """The result of a pass over a batch.

    Attributes:
        losses: `[B]`; zero in rows of padding.
        results: A dict as the reductions, or the one result.
        aux: What the loss returned beside each loss, `[B, ...]`; None without `has_aux`.
        used: bool `[B]`, the examples that counted: real and not dropped.
        dropped: bool `[B]`, the examples left out since their loss or gradient is not finite.
    """

    losses: Array
    results: Any
    aux: PyTree
    used: Array
    dropped: Array

    @property
    def count(self) -> Array:
        """How many examples counted."""
        return jnp.sum(self.used)


@checked
def reduce_per_example(
    loss_fn: LossFn,
    reductions: Reduction | Mapping[str, Reduction],
    *,
    chunk_size: ChunkSize = None,
    has_aux: bool = False,
    keep_batch_dim: bool | None = None,
    on_nonfinite: OnNonfinite = "keep",
    memory: int | None = None,
) -> Callable[..., PerExample]:
    """Means, norms, moments and other reductions of per-example gradients, in a pass that holds `chunk_size` of them.

    The batch is run in chunks of equal size, one after the other in a `lax.scan`; a remainder is padded and does not
    count. The loss is traced once. Each example's gradient is that of its loss alone: a loss that couples the examples
    of a batch (batch normalization, contrastive losses) has none.

    Args:
        loss_fn: `loss_fn(params, batch[, key]) -> loss`, a scalar, as for `jgd.make_step`; called with one
            example.
        reductions: By name, or a single one: `Mean()`, `Sum()`, `ClippedMean(c)`, `ClippedSum(c)`, `Norms()`,
            `SecondMoment()`, `Variance()`, `CosineToMean()`, `Gradients()`, or one of your own, see `Reduction`.
        chunk_size: How many examples at a time; None for all at once, `"auto"` for as many as `memory` allows. A
            chunk size never changes a result, beyond rounding.
        has_aux: Whether `loss_fn` returns `(loss, aux)`.
        keep_batch_dim: Whether the loss is given a batch of one, `[1, ...]`, or the example without that axis. By
            default a batch of one, and the example itself where the loss takes no batch of one.
        on_nonfinite: `"drop"` leaves out examples whose loss or squared gradient norm is NaN or infinite, and says
            which; with `"keep"` they make the sums NaN.
        memory: With `chunk_size="auto"`: the budget for temporary arrays and results, in bytes. Without it half of
            what the device has free; 32 examples at a time where it does not say. To find out, the pass is compiled
            about three times more, once for each shape of a batch, and the loss is traced as often.

    Returns:
        `reduce_fn(params, batch, *, key=None, ids=None) -> PerExample`, compiled at its first call. `batch` is a tree
        of arrays `[B, ...]` or a `Padded` one, whose padding does not count. With a `key` the loss is given one more
        argument: example `i` gets `fold_in(key, ids[i])`, `ids` being `0, 1, ...` unless given.

    Raises:
        TypeError, ValueError: An invalid argument. When called: a loss that is not a scalar, leaves of the batch that
            differ in length; the message names them.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import ClippedMean, Norms, reduce_per_example
        >>> def loss_fn(w, batch):
        ...     return jnp.mean((batch["x"] @ w - batch["y"]) ** 2)
        >>> reductions = {"grads": ClippedMean(1.0), "norms": Norms()}
        >>> reduce_fn = reduce_per_example(loss_fn, reductions, chunk_size=2)
        >>> result = reduce_fn(jnp.zeros(2), {"x": jnp.eye(4, 2), "y": jnp.array([0.25, 2.0, 1.0, 1.0])})
        >>> print(result.losses, result.results["norms"], result.results["grads"])
        [0.0625 4.     1.     1.    ] [0.5 4.  0.  0. ] [-0.125 -0.25 ]
    """
    owner = "reduce_per_example"
    by_name = {"": reductions} if isinstance(reductions, Reduction) else dict(reductions)
    for name, reduction in by_name.items():
        if not isinstance(reduction, Reduction):
            hint = " Call it: Mean()." if isinstance(reduction, type) else ""
            raise TypeError(f"{owner}: the reduction {name!r} is a {type(reduction).__name__}, no Reduction.{hint}")
    if not callable(loss_fn):
        raise TypeError(f"{owner}: loss_fn must be a function; got a {type(loss_fn).__name__}.")
    check_choice(owner, "on_nonfinite", on_nonfinite, OnNonfinite)
    _check_chunk_size(owner, chunk_size, memory)
    chunk_sizes: dict[Any, int] = {}

    def compute(
        params: PyTree, batch: PyTree, key: Array | None, ids: ArrayLike | None, size: int | None
    ) -> PerExample:
        rows, real = _rows(owner, batch, key, ids)
        one = example_loss(owner, loss_fn, has_aux=has_aux, keep_batch_dim=keep_batch_dim)
        result = one_pass(one, by_name, params, rows, real, size or max(len(real), 1), on_nonfinite == "drop")
        return result._replace(results=result.results[""]) if isinstance(reductions, Reduction) else result

    def chunked(params: PyTree, batch: PyTree, key: Array | None, ids: ArrayLike | None) -> PerExample:
        if chunk_size == "auto":
            arguments = (params, batch, key, ids)
            shapes = str(jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), arguments))
            if shapes not in chunk_sizes:
                count = split_mask(owner, batch)[1].shape[0]

                def bytes_of(c: int) -> int | None:
                    return program_bytes(partial(compute, size=c), *arguments)

                chunk_sizes[shapes] = auto_chunk_size(count, memory, bytes_of)
            return compute(params, batch, key, ids, chunk_sizes[shapes])
        return compute(params, batch, key, ids, chunk_size)

    compiled = jax.jit(chunked)

    def reduce_fn(
        params: PyTree, batch: PyTree | Padded, *, key: Key | None = None, ids: ArrayLike | None = None
    ) -> PerExample:
        check_arrays(owner, params)
        if ids is not None and key is None:
            raise ValueError(f"{owner}: ids say which random numbers an example gets; expected a key with them.")
        return compiled(params, batch, None if key is None else random_key(key, owner), ids)

    return reduce_fn


def one_pass(
    one: ExampleLoss,
    reductions: Mapping[str, Reduction],
    params: PyTree,
    rows: Rows,
    real: Array,
    chunk_size: int,
    drop: bool,
) -> PerExample:
    """Runs the reductions over the rows, `chunk_size` or a little fewer at a time."""
    size = real.shape[0]
    chunks = max(-(-size // chunk_size), 1)
    length = -(-size // chunks)  # as equal as can be: less padding
    padded, _ = pad_batch((rows, real), chunks * length)
    inside = jnp.arange(chunks * length) < size
    reads_grads = any(reduction.reads_grads for reduction in reductions.values())

    def body(carry: dict[str, PyTree], item: Any) -> tuple[dict[str, PyTree], Any]:
        (part, part_real), part_inside = item
        chunk = Chunk(one, params, part, part_real & part_inside, drop=drop, reads_grads=reads_grads)
        carry = {name: reduction.add(carry[name], chunk) for name, reduction in reductions.items()}
        each = {name: reduction.each(chunk) for name, reduction in reductions.items()}
        return carry, _zero_padding((each, chunk.losses, chunk.aux), chunk.real) + (chunk.used,)

    start = {name: reduction.init(params) for name, reduction in reductions.items()}
    carry, outputs = _in_chunks(body, start, (padded, inside), chunks)
    each, losses, aux, used = jax.tree.map(lambda leaf: leaf[:size], outputs)

    def along(direction: PyTree, *, forward: bool = True) -> Array:
        def product(_: None, item: Any) -> tuple[None, Array]:
            return None, _products(one, params, item[0], direction, forward)

        return _in_chunks(product, None, padded, chunks)[1][:size]

    summary = BatchSummary(used, jnp.sum(used), along)
    results = {name: reduction.finish(carry[name], each[name], summary) for name, reduction in reductions.items()}
    return PerExample(losses, results, aux, used, real & ~used)


def _in_chunks(body: Any, carry: Any, rows: PyTree, chunks: int) -> tuple[Any, Any]:
    """A scan over chunks of rows; what it returns for each row comes back in one piece, `[B, ...]`."""
    if chunks == 1:  # XLA on CPU is slow at convolutions in loops
        return body(carry, rows)
    parts = jax.tree.map(lambda leaf: leaf.reshape(chunks, -1, *leaf.shape[1:]), rows)
    carry, outputs = jax.lax.scan(body, carry, parts)
    return carry, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), outputs)


def _products(one: ExampleLoss, params: PyTree, rows: Any, direction: PyTree, forward: bool) -> Array:
    """Each example's `g_i . d`, `Re(conj(g_i) . d)` where they are complex."""
    leaves, towards = Leaves.of(params), Leaves.of(direction).floats
    if forward:
        tangents = [d.astype(leaf.dtype) for d, leaf in zip(towards, leaves.floats, strict=True)]

        def losses_of(floats: list[Array]) -> Array:
            return jax.vmap(one, (None, 0))(leaves.merge(floats), rows)[0]

        return jax.jvp(losses_of, (leaves.floats,), (tangents,))[1]
    chunk = Chunk(one, params, rows, jnp.ones(len(jax.tree.leaves(rows)[0]), bool))
    products = [
        jnp.tensordot(g.astype(d.dtype).reshape(len(g), -1), d.reshape(-1), 1, precision=jax.lax.Precision.HIGHEST).real
        for g, d in zip(ascent_direction(chunk.float_grads), towards, strict=True)  # conjugated: a real inner product
    ]
    return sum(products[1:], products[0])


def _rows(owner: str, batch: PyTree | Padded, key: Array | None, ids: ArrayLike | None) -> tuple[Rows, Array]:
    """The examples with their keys, harmless rows in place of padding, and which are real."""
    plain, real = split_mask(owner, batch)
    plain = jax.tree.map(jnp.asarray, plain)
    keys = None
    if key is not None:
        ids = jnp.arange(len(real)) if ids is None else jnp.asarray(ids)
        if ids.shape != real.shape or not jnp.issubdtype(ids.dtype, jnp.integer):
            raise ValueError(f"{owner}: ids are {ids.dtype}{list(ids.shape)}; expected integers [{len(real)}].")
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(ids)
    return (real_rows(plain, real) if isinstance(batch, Padded) else plain, keys), real


def _zero_padding(tree: PyTree, real: Array) -> PyTree:
    def fill(leaf: Array) -> Array:
        return jnp.where(real.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, jnp.zeros((), leaf.dtype))

    return jax.tree.map(fill, tree)


def _check_chunk_size(owner: str, chunk_size: Any, memory: int | None) -> None:
    if not (chunk_size is None or chunk_size == "auto" or (is_integer(chunk_size) and chunk_size >= 1)):
        raise ValueError(
            f"{owner}: chunk_size must be a whole number of at least 1, None or 'auto'; got {chunk_size!r}."
        )
    if memory is not None and chunk_size != "auto":
        raise ValueError(f"{owner}: memory={memory} is a budget for chunk_size='auto'; got chunk_size={chunk_size!r}.")
