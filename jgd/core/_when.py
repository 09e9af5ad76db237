"""Doing something in some steps only, without copying what stays as it is in the others."""

import functools
from collections.abc import Callable

import jax

from jgd.core._types import Array, PyTree


def when(condition: Array, body: Callable[[PyTree, PyTree], PyTree], carry: PyTree, operands: PyTree = ()) -> PyTree:
    """`body(carry, operands)` where the condition holds, else the carry as it is.

    As `jax.lax.cond` with an empty second branch; but XLA copies what goes through a branch, in and out, while a loop
    of one turn or none works in place. Derivatives, forward and reverse, go through `lax.cond`.

    Args:
        condition: A boolean scalar.
        body: A pure function that closes over no traced values: all that it reads is in `carry` and `operands`.
        carry: A tree of arrays, which `body` returns with the same shapes and dtypes.
        operands: A tree of arrays that are only read.

    Returns:
        The new carry.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.core import when
        >>> print(when(jnp.array(True), lambda x, by: x * by, jnp.arange(3.0), 2.0))
        [0. 2. 4.]
    """
    return _in_place(body, condition, carry, operands)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _in_place(body: Callable[[PyTree, PyTree], PyTree], condition: Array, carry: PyTree, operands: PyTree) -> PyTree:
    def turn(state: tuple[Array, PyTree]) -> tuple[Array, PyTree]:
        return jax.numpy.zeros_like(state[0]), body(state[1], operands)

    return jax.lax.while_loop(lambda state: state[0], turn, (condition, carry))[1]


@_in_place.defjvp
def _(
    body: Callable[[PyTree, PyTree], PyTree], primals: tuple[Array, PyTree, PyTree], tangents: tuple
) -> tuple[PyTree, PyTree]:
    condition, *rest = primals

    def branched(carry: PyTree, operands: PyTree) -> PyTree:
        return jax.lax.cond(condition, body, lambda carry, _: carry, carry, operands)

    return jax.jvp(branched, tuple(rest), tangents[1:])
