"""The loss of one example: the user's loss called with a batch of one, and a check of what it returns."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, LossFn, PyTree, check_loss, programs_inside

#: Examples, `[...]` or `[B, ...]`, and as many keys; None where the loss takes no key.
Rows = tuple[PyTree, Array | None]

#: A random key, or a seed.
Key = Array | int

#: `one(params, (example, key)) -> (loss, aux)`; the key is None where there is none.
ExampleLoss = Callable[[PyTree, Rows], tuple[Array, PyTree]]


def example_loss(owner: str, loss_fn: LossFn, *, has_aux: bool, keep_batch_dim: bool | None) -> ExampleLoss:
    """The loss of a single example. It is traced once, however often it is used in one program."""

    def call(params: PyTree, example: PyTree, key: Array | None, batched: bool) -> tuple[Array, PyTree]:
        if batched:
            example = jax.tree.map(lambda leaf: leaf[None], example)
        returned = loss_fn(params, example) if key is None else loss_fn(params, example, key)
        if has_aux and not (isinstance(returned, tuple) and len(returned) == 2):
            raise TypeError(f"{owner}: with has_aux=True expected (loss, aux); got a {type(returned).__name__}.")
        loss, aux = returned if has_aux else (returned, None)
        return _checked(owner, loss, batched), aux

    def one(params: PyTree, row: Rows) -> tuple[Array, PyTree]:
        example, key = row
        if keep_batch_dim is not None:
            return call(params, example, key, keep_batch_dim)
        try:
            return call(params, example, key, True)
        except (TypeError, ValueError, IndexError) as error:  # a loss of one example, perhaps
            try:
                return call(params, example, key, False)
            except (TypeError, ValueError, IndexError):
                raise error from None

    return jax.jit(one, inline=True)


def _checked(owner: str, loss: Any, batched: bool) -> Array:
    if isinstance(loss, tuple | list | dict):
        raise TypeError(f"{owner}: expected a scalar loss; got a {type(loss).__name__}. Does it need has_aux=True?")
    hint = "It was given a batch of one example; take jnp.mean over it." if batched else ""
    return check_loss(owner, loss, if_not_scalar=hint)


class Cost(NamedTuple):
    """The cost of the forward pass of one example.

    Attributes:
        flops: Multiplications and additions in its matrix products and convolutions.
        narrow: Whether some of it runs in less than float32.
    """

    flops: float
    narrow: bool


def forward_cost(one: ExampleLoss, params: PyTree, row: Rows) -> Cost:
    """The cost by the loss's jaxpr; loops of unknown length count once."""
    return _cost(jax.make_jaxpr(one)(params, row).jaxpr)


def _cost(jaxpr: Any) -> Cost:
    flops, narrow = 0.0, False
    for equation in jaxpr.eqns:
        out: Any = equation.outvars[0].aval if equation.outvars else None
        if equation.primitive.name == "dot_general":
            (over, _), _ = equation.params["dimension_numbers"]
            flops += 2 * math.prod(equation.invars[0].aval.shape[axis] for axis in over) * out.size
        elif equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval
            flops += 2 * out.size * kernel.size / kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
        dtype = getattr(out, "dtype", None)
        if dtype is not None and jnp.issubdtype(dtype, jnp.floating):
            narrow |= jnp.finfo(dtype).bits < 32
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for inner in map(_cost, programs_inside(equation)):
            flops, narrow = flops + times * inner.flops, narrow | inner.narrow
    return Cost(flops, narrow)
