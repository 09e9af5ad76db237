"""Multiplying the updates by the learning rate."""

from jgd.core import Hyper, Optimizer, PyTree, ScalarOrSchedule, lift_transform, scale_tree


def scale_by_learning_rate(learning_rate: ScalarOrSchedule | None = None, *, flip_sign: bool = True) -> Optimizer:
    """`-learning_rate * updates`: the last part of a chain that has no optimizer at its end.

    Args:
        learning_rate: At least 0; a number, a scalar array or a schedule. None leaves the updates as they are, sign
            and all, as in optax.
        flip_sign: Whether to step against the gradient. False climbs.

    Returns:
        A transform with the hyperparameter `learning_rate`. The product is taken in float32 or wider, and each leaf
        keeps its dtype.

    Raises:
        TypeError, ValueError: The learning rate is not a finite number or is negative.

    Examples:
        >>> import jax.numpy as jnp, jgd, optax
        >>> optimizer = jgd.chain(optax.scale_by_adam(), jgd.scale_by_learning_rate(0.1))
        >>> updates, state = optimizer.update(jnp.array([7.0]), optimizer.init(jnp.zeros(1)))
        >>> print(updates.round(3))
        [-0.1]
    """
    sign = -1 if flip_sign else 1

    def apply(updates: PyTree, params: PyTree, hyper: Hyper) -> PyTree:
        del params
        return updates if learning_rate is None else scale_tree(updates, sign * hyper["learning_rate"])

    hyperparams = {} if learning_rate is None else {"learning_rate": learning_rate}
    return lift_transform(apply, hyperparams, name="scale_by_learning_rate")
