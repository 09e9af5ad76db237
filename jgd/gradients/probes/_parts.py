r"""What one use of a weight gives to each example's gradient, and the squared norm of a sum of such parts.

A part is kept in the factors that the gradient is a product of. Where a weight multiplies inputs $x_t$ and its outputs
have the cotangents $\delta_t$, example by example,

$$
g = \sum_t x_t \delta_t^\top, \qquad
\lVert g \rVert^2 = \sum_{t, s} (x_t \cdot x_s)\,(\delta_t \cdot \delta_s)
$$

The right side costs $T^2 (I + O)$ and the product itself $T I O$ for $T$ positions and a weight of $I \times O$: the
cheaper one is taken. Parts of one weight are joined along $t$, so that cross terms are in the sum by themselves.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from jgd.core import Array, compute_dtype


class Products(NamedTuple):
    """Sums over positions of outer products; the gradient has the axes `[K, I, G, O]`.

    Attributes:
        xs: For each of the K offsets of a kernel (one for a matrix) an array `[B G, T, I]`.
        d: `[B G, T, O]`.
        groups: G, the groups of channels that do not mix, each a row of its own.
    """

    xs: tuple[Array, ...]
    d: Array
    groups: int = 1


class Rows(NamedTuple):
    """Rows `d` `[B, T, O]` that are added at the places `ids` `[B, T]` of a table."""

    ids: Array
    d: Array


class Full(NamedTuple):
    """Each example's gradient itself, `[B, *shape of the leaf]`: for leaves as small as a bias."""

    grads: Array


#: What writing one number counts, in multiplications, when two ways to a norm are compared.
WRITING = 32

Part = Products | Rows | Full


def squared_norms(parts: Sequence[Part], shape: tuple[int, ...]) -> Array:
    """The squared norm of the sum of the parts for each example, `[B]`, in float32 or wider.

    Args:
        parts: All parts of one leaf; at least one.
        shape: The leaf's.
    """
    if any(isinstance(part, Full) for part in parts):
        return _square_sum(sum(materialized(part, shape) for part in parts))
    products = _joined_products([part for part in parts if isinstance(part, Products)])
    rows = _joined_rows([part for part in parts if isinstance(part, Rows)])
    if rows is None:
        assert products is not None
        return jnp.maximum(_products_norm(products), 0)  # sums of pairs may round to below zero
    if _rows_by_pairs(products, rows, shape):
        return jnp.maximum(_rows_norm(products, rows), 0)
    return _square_sum(sum(materialized(part, shape) for part in (products, rows) if part is not None))


def materialized(part: Part, shape: tuple[int, ...]) -> Array:
    """The gradient of every example, `[B, *shape]`, in float32 or wider."""
    if isinstance(part, Full):
        return part.grads.astype(compute_dtype(part.grads.dtype))
    if isinstance(part, Products):
        blocks = jnp.stack([_einsum("bti,bto->bio", x, part.d) for x in part.xs], axis=1)
        grouped = blocks.reshape(-1, part.groups, *blocks.shape[1:])  # [B, G, K, I, O]
        return jnp.moveaxis(grouped, 1, 3).reshape(-1, *shape)
    examples = jnp.arange(len(part.ids))[:, None]
    wide = part.d.astype(compute_dtype(part.d.dtype))
    table = jnp.zeros((len(part.ids), shape[0], part.d.shape[-1]), wide.dtype)
    return table.at[examples, part.ids].add(wide).reshape(-1, *shape)


def _products_norm(part: Products) -> Array:
    (_, positions, inputs), outputs, offsets = part.xs[0].shape, part.d.shape[-1], len(part.xs)
    if positions == 1:
        norms = sum(_square_sum(x) for x in part.xs) * _square_sum(part.d)
    elif _pairs_cost(positions, offsets * inputs + outputs) < _blocks_cost(positions, offsets * inputs * outputs):
        pairs = sum(_einsum("bti,bsi->bts", x, x) for x in part.xs)
        norms = jnp.sum(pairs * _einsum("bto,bso->bts", part.d, part.d), axis=(1, 2))
    else:
        norms = sum(_square_sum(_einsum("bti,bto->bio", x, part.d)) for x in part.xs)
    return jnp.sum(jnp.reshape(norms, (-1, part.groups)), axis=1)


def _pairs_cost(positions: int, width: int) -> int:
    return positions**2 * (width + WRITING)


def _blocks_cost(positions: int, entries: int) -> int:
    return (positions + WRITING) * entries


def _rows_by_pairs(products: Products | None, rows: Rows, shape: tuple[int, ...]) -> bool:
    """Whether comparing all pairs of positions costs less than laying out each example's table."""
    positions, outputs, inputs = rows.ids.shape[1], rows.d.shape[-1], shape[0]
    pairs, table = _pairs_cost(positions, outputs), _blocks_cost(0, inputs * outputs)
    if products is not None:
        others = products.d.shape[1]
        pairs += _pairs_cost(others, inputs + outputs) + others * positions * (outputs + WRITING)
        table += _blocks_cost(others, inputs * outputs)
    return pairs < table


def _rows_norm(products: Products | None, rows: Rows) -> Array:
    same = rows.ids[:, :, None] == rows.ids[:, None, :]
    total = jnp.sum(jnp.where(same, _einsum("bto,bso->bts", rows.d, rows.d), 0), axis=(1, 2))
    if products is None:
        return total
    x, d = products.xs[0], products.d
    at_rows = jnp.take_along_axis(x, rows.ids[:, None, :], axis=2)  # [B, S, T]: row ids[t] of what position s adds
    cross = jnp.sum(at_rows * _einsum("bso,bto->bst", d, rows.d), axis=(1, 2))
    return total + _products_norm(products) + 2 * cross


def _joined_products(parts: Sequence[Products]) -> Products | None:
    if len(parts) < 2:
        return parts[0] if parts else None
    xs = tuple(jnp.concatenate(x, axis=1) for x in zip(*(part.xs for part in parts), strict=True))
    return Products(xs, jnp.concatenate([part.d for part in parts], axis=1), parts[0].groups)


def _joined_rows(parts: Sequence[Rows]) -> Rows | None:
    if len(parts) < 2:
        return parts[0] if parts else None
    return Rows(*(jnp.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True)))


def _einsum(formula: str, a: Array, b: Array) -> Array:
    return jnp.einsum(formula, a, b, preferred_element_type=compute_dtype(jnp.result_type(a, b)))


def _square_sum(x: Any) -> Array:
    wide = x.astype(compute_dtype(x.dtype))
    return jnp.sum(jnp.square(wide), axis=tuple(range(1, wide.ndim)))
