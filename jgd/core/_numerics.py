"""Arithmetic that more than one rule needs, each piece safe where the obvious formula is not."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jgd.core._arguments import shown
from jgd.core._types import Array, ArrayLike, DTypeLike, PyTree, is_array


def default_float() -> jnp.dtype:
    """float32, or float64 where x64 is on: the dtype of every stored hyperparameter."""
    return jnp.dtype(jnp.result_type(float))


def compute_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype that arithmetic on a leaf of `dtype` runs in: float32, or wider where the leaf is wider."""
    return jnp.dtype(jnp.promote_types(dtype, jnp.float32))


def wide_copy(leaf: ArrayLike) -> jax.Array:
    """The leaf in its compute dtype, in a buffer of its own: state and params may both be donated."""
    dtype = compute_dtype(jnp.result_type(leaf))
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jnp.zeros_like(leaf, dtype=dtype)
    return jnp.array(leaf, dtype=dtype, copy=True)


def real_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """float64 for complex128, float32 for complex64, and a real dtype as it is."""
    return jnp.finfo(dtype).dtype


def zeros(param: Array) -> Array:
    """A slot that starts at zero, shaped and sharded like its parameter."""
    return jnp.zeros_like(param)


def real_zeros(param: Array) -> Array:
    """As `zeros`, real also where the parameter is complex: the slot of squared magnitudes."""
    return jnp.zeros_like(param, dtype=real_dtype(param.dtype))


def real_zero(param: Array) -> Array:
    """A slot of one real number for the whole leaf, zero at first."""
    return jnp.zeros((), real_dtype(param.dtype))


def full(value: Any) -> Callable[[Array], Array]:
    """What makes a real slot that starts at `value`."""
    return lambda param: jnp.full_like(param, value, dtype=real_dtype(param.dtype))


def abs_sq(x: Array) -> Array:
    """`|x|^2`, real also for complex `x`."""
    if jnp.iscomplexobj(x):
        return jnp.square(x.real) + jnp.square(x.imag)
    return jnp.square(x)


def root(x: Array) -> Array:
    """The square root, with derivative 0 at 0."""
    is_zero = x == 0
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, x)))


def ascent_direction(grads: PyTree) -> PyTree:
    r"""The direction of steepest ascent from what `jax.grad` returned: complex leaves conjugated, others untouched.

    For a real loss $f$ of $w = a + b i$ JAX returns $\partial_a f - i\, \partial_b f$. The loss grows fastest along
    $\partial_a f + i\, \partial_b f$, and that is what every update rule takes for its gradient, here and in optax.
    Whoever differentiates calls this once; a gradient that a user hands in is taken as it is.

    Args:
        grads: A tree of arrays of any dtype.

    Returns:
        The tree with its complex leaves conjugated. With real leaves alone, nothing is computed.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from jgd.core import ascent_direction
        >>> print(ascent_direction(jax.grad(lambda w: jnp.abs(w - (1 + 2j)) ** 2)(0j)))
        (-2-4j)
    """
    return jax.tree.map(lambda leaf: jnp.conj(leaf) if jnp.iscomplexobj(leaf) else leaf, grads)


def debias(rate: Array, step: Array) -> Array:
    """`1 - (1 - rate)**step`: the weight that an average started at zero has gathered after `step` updates.

    Args:
        rate: What a new value weighs in the average, one minus the decay rate; a scalar in (0, 1].
        step: Updates made, counted from 1.

    Returns:
        A scalar of the same dtype. For small rates the plain form cancels: in float32, `1 - 0.999**2` keeps four
        digits. Through `expm1` all are kept. Above one half there is nothing to cancel, and the plain form has a
        derivative at a rate of one.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.core import debias
        >>> print(debias(jnp.array(0.5), jnp.array(2)))
        0.75
    """
    step = step.astype(rate.dtype)
    small = rate < 0.5
    log_decay = jnp.log1p(-jnp.where(small, rate, 0.5))  # the unused branch must be finite for its gradient's sake
    return jnp.where(small, -jnp.expm1(step * log_decay), 1 - (1 - jnp.where(small, 0.5, rate)) ** step)


def increment(count: Array) -> Array:
    """`count + 1`, except at the largest integer, where it stays."""
    return jnp.where(count < jnp.iinfo(count.dtype).max, count + 1, count)


def sum_of_squares(leaves: Iterable[Array]) -> Array:
    """The sum of `|x|^2` over all entries of all leaves, in float32 or wider."""
    total = jnp.zeros((), jnp.float32)
    for leaf in leaves:
        wide = leaf.astype(compute_dtype(leaf.dtype))
        square = jnp.sum(abs_sq(wide))
        dtype = jnp.promote_types(total.dtype, square.dtype)
        total = total.astype(dtype) + square.astype(dtype)
    return total


def plain_norm(tree: PyTree) -> Array:
    """The root of `sum_of_squares`, of float leaves: infinite where a square is, and with derivative 0 at 0.

    `jgd.core.global_norm` is right there too, for more sums; this is for numbers that are only shown.
    """
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return root(sum_of_squares(leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)))


def tree_size(tree: PyTree) -> int:
    """How many numbers a tree holds."""
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree))


def scale_tree(tree: PyTree, *factors: Array) -> PyTree:
    """Every float leaf times each factor in turn, in float32 or wider; each leaf keeps its dtype."""

    def scale(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        dtype = compute_dtype(leaf.dtype)
        wide = leaf.astype(dtype)
        for factor in factors:
            wide = factor.astype(real_dtype(dtype)) * wide
        return wide.astype(leaf.dtype)

    return jax.tree.map(scale, tree)


def random_like(key: Array, leaves: Sequence[Array], sample: Callable[..., Array] = jax.random.normal) -> list[Array]:
    """A random array for each leaf, of its shape and dtype, from one key."""
    keys = jax.random.split(key, max(len(leaves), 1))
    return [sample(keys[i], leaf.shape, leaf.dtype) for i, leaf in enumerate(leaves)]


def gaussian_noise(key: Array, deviation: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Normal numbers of a deviation; where `dtype` is complex, each part has it (`jax.random` splits it among both)."""
    noise = deviation * jax.random.normal(key, shape, dtype)
    return noise * math.sqrt(2) if jnp.iscomplexobj(noise) else noise


def random_key(key: Any, owner: str = "") -> Array:
    """A key of `jax.random` from an integer, or a copy of the one given.

    Raises:
        TypeError: It is neither.
    """
    dtype = jnp.result_type(key) if is_array(key) and not isinstance(key, bool) else None
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and jnp.ndim(key) == 0:
        return jnp.array(key, copy=True)
    if dtype == jnp.uint32 and jnp.ndim(key) == 1:  # of jax.random.PRNGKey
        return jnp.array(key, copy=True)
    too_large = isinstance(key, int) and abs(key) >= 2**63
    if dtype is None or not jnp.issubdtype(dtype, jnp.integer) or jnp.ndim(key) or too_large:
        where = f"{owner}: " if owner else ""
        raise TypeError(f"{where}key must be an integer or one key of jax.random; got {shown(key)}.")
    return jax.random.key(key)
