"""The weights of the parts of an accumulated batch."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree, is_array
from jgd.gradients import Padded, split_batch, split_mask

#: What a part counts for: as many real examples as it holds, as much as any other, or what a function of it says.
LossWeight = Literal["examples", "parts"] | Callable[[PyTree], Any] | None


def part_weights(weight: LossWeight, batch: PyTree, count: int) -> Array | None:
    """The weight of each of `count` parts of a batch, `[count]`; None where they are equal.

    Raises:
        TypeError, ValueError: The function returns something else than a real scalar; the batch is `Padded`, and
            there is no `loss_weight`.
    """
    if weight is None and isinstance(batch, Padded):
        raise ValueError(
            f"make_step: accumulate={count} of a Padded batch: its parts hold different numbers of real examples, and"
            ' jgd does not see what the loss divides by. Say so: loss_weight="examples" for a mean over the real'
            ' examples, loss_weight="parts" for a sum over the full size, or a function of the part, such as'
            " loss_weight=lambda part: jnp.sum(part.mask)."
        )
    if weight is None or weight == "parts":
        return None
    of_part = _real_examples if weight == "examples" else weight
    return jax.lax.map(lambda part: _checked(of_part(part)), split_batch(batch, count))


def _real_examples(part: PyTree) -> Array:
    return jnp.sum(split_mask("make_step", part)[1])


def _checked(weight: Any) -> Array:
    if not is_array(weight):
        raise TypeError(f"make_step: loss_weight must return a real number; got a {type(weight).__name__}.")
    shape, dtype = jnp.shape(weight), jnp.result_type(weight)
    if (not jnp.issubdtype(dtype, jnp.number) and dtype != jnp.bool_) or jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(f"make_step: loss_weight must return a real number; got dtype {dtype}.")
    if shape != ():
        raise ValueError(f"make_step: loss_weight must return a scalar; got shape {shape}. Take the sum over the part.")
    return jnp.asarray(weight, jnp.promote_types(dtype, jnp.float32))
