"""Weight decay as a transform."""

import jax
import jax.numpy as jnp

from jgd.core import Array, Hyper, Mask, Optimizer, PyTree, ScalarOrSchedule, broadcast_mask, is_float, lift_transform


def add_decayed_weights(weight_decay: ScalarOrSchedule = 0.0, mask: Mask = None) -> Optimizer:
    """`updates + weight_decay * params`.

    Before a rule it is L2 regularization, since the rule sees it as part of the gradient; between a rule's direction
    and its learning rate it is decoupled weight decay.

    Args:
        weight_decay: At least 0; a number, a scalar array or a schedule.
        mask: Which leaves decay; as for `jgd.adamw`.

    Returns:
        A transform with the hyperparameter `weight_decay`. Sums are taken in float32 or wider, and each leaf of the
        updates keeps its dtype.

    Raises:
        TypeError, ValueError: The weight decay is not a finite number or is negative; the mask does not fit; `update`
            is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> decay = jgd.add_decayed_weights(0.1)
        >>> updates, state = decay.update(jnp.zeros(2), decay.init(None), jnp.array([1.0, -1.0]))
        >>> print(updates)
        [ 0.1 -0.1]
    """

    def apply(updates: PyTree, params: PyTree, hyper: Hyper) -> PyTree:
        decays = broadcast_mask("add_decayed_weights", mask, params)
        return jax.tree.map(lambda u, p, d: _add(u, p, hyper["weight_decay"]) if d else u, updates, params, decays)

    return lift_transform(apply, {"weight_decay": weight_decay}, name="add_decayed_weights", needs_params=True)


def _add(update: Array, param: Array, weight_decay: Array) -> Array:
    update, param = jnp.asarray(update), jnp.asarray(param)
    if not is_float(param):
        return update
    dtype = jnp.promote_types(jnp.promote_types(update.dtype, param.dtype), jnp.float32)
    decay = weight_decay.astype(jnp.finfo(dtype).dtype)
    return (update.astype(dtype) + decay * param.astype(dtype)).astype(update.dtype)
