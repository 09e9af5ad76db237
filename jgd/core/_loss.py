"""What a loss is: one real float."""

from typing import Any

import jax.numpy as jnp

from jgd.core._types import Array, is_array


def check_loss(owner: str, loss: Any, *, if_not_scalar: str = "") -> Array:
    """The loss that a function returned, as an array.

    Args:
        owner: The function, for messages.
        loss: What it returned.
        if_not_scalar: What to do about a loss that is not a scalar, for its message.

    Raises:
        TypeError: It is not an array, or of a dtype that has no gradient or no order.
        ValueError: It is not a scalar.
    """
    if not is_array(loss):
        hint = " Does the function end with `return loss`?" if loss is None else ""
        raise TypeError(f"{owner}: expected a scalar array as the loss; got a {type(loss).__name__}.{hint}")
    loss = jnp.asarray(loss)
    if loss.shape != ():
        hint = f" {if_not_scalar}" if if_not_scalar else ""
        raise ValueError(f"{owner}: expected a scalar loss; got shape {loss.shape}.{hint}")
    if not jnp.issubdtype(loss.dtype, jnp.floating):
        is_complex = jnp.issubdtype(loss.dtype, jnp.complexfloating)
        hint = "" if is_complex else " Whole numbers have no gradient; report counts in aux."
        raise TypeError(f"{owner}: expected a real float loss; got dtype {loss.dtype}.{hint}")
    return loss
