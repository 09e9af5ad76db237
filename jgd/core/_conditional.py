"""Trees that depend on a condition which is known on the device alone: one of two, or one that is changed or not."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jgd.core._types import Array, PyTree


def tree_where(condition: Array, if_true: PyTree, if_false: PyTree) -> PyTree:
    """The tree `if_true` where the condition holds, else `if_false`; both are computed.

    Args:
        condition: A boolean scalar.
        if_true: A tree of arrays.
        if_false: A tree of the same structure, shapes and dtypes.
    """
    return jax.tree.map(lambda a, b: a if a is b else jnp.where(condition, a, b), if_true, if_false)


def when(condition: Array, body: Callable[[PyTree, PyTree], PyTree], carry: PyTree, operands: PyTree = ()) -> PyTree:
    """`body(carry, operands)` where the condition holds, else the carry as it is, which is not copied.

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
    def run_once(state: tuple[Array, PyTree]) -> tuple[Array, PyTree]:
        return jnp.zeros_like(state[0]), body(state[1], operands)

    return jax.lax.while_loop(lambda state: state[0], run_once, (condition, carry))[1]


@_in_place.defjvp
def _(
    body: Callable[[PyTree, PyTree], PyTree], primals: tuple[Array, PyTree, PyTree], tangents: tuple
) -> tuple[PyTree, PyTree]:
    condition, *rest = primals

    def branched(carry: PyTree, operands: PyTree) -> PyTree:
        return jax.lax.cond(condition, body, lambda carry, _: carry, carry, operands)

    return jax.jvp(branched, tuple(rest), tangents[1:])
