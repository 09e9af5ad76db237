r"""Fromage: steps of a length relative to the leaf, and no growth of the weights.

$$
\theta_t = \frac{1}{\sqrt{1+\eta^2}} \Bigl(\theta_{t-1}
           - \eta\, \frac{\lVert \theta_{t-1} \rVert}{\lVert g_t \rVert}\, g_t\Bigr)
$$

where norms smaller than `min_norm` are taken for it.

References:
    - Bernstein et al., "On the distance between two neural networks and the stability of learning",
      https://arxiv.org/abs/2002.03432, 2020, Algorithm 1.
"""

import jax.numpy as jnp

from jgd.core import (
    Array,
    Hyper,
    LayoutLike,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    global_norm,
    lift,
    squares,
)


def fromage_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """Fromage, on one leaf."""
    del slots, step
    param_norm = jnp.maximum(global_norm(param), hyper["min_norm"])
    grad_sq = squares([grad])
    grad_norm = jnp.maximum(grad_sq.length, hyper["min_norm"] * grad_sq.scale)
    unusable = (param_norm == 0) | (grad_norm == 0)
    ratio = jnp.where(unusable, 1, param_norm / jnp.where(unusable, 1, grad_norm))
    scaled = jnp.where(unusable, 1, grad_sq.scale) * grad
    return (hyper["shrink"] - 1) * param - hyper["shrink"] * hyper["learning_rate"] * ratio * scaled, {}


def shrinkage(hyper: Hyper, step: Array) -> Hyper:
    """The factor that keeps the leaf's length."""
    del step
    return hyper | {"shrink": 1 / jnp.sqrt(1 + hyper["learning_rate"] ** 2)}


FROMAGE = Rule(fromage_update, kind="leaf", needs_params=True, supports_complex=False, prepare=shrinkage)


def fromage(
    learning_rate: ScalarOrSchedule,
    min_norm: ScalarOrSchedule = 1e-6,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Fromage: Frobenius-matched gradient descent.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: The length of a step relative to the leaf, at least 0; 0.01 serves many networks.
        min_norm: The smallest norm of a leaf and of its gradient, at least 0.
        state_dtype: Accepted for uniformity; there are no slots.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `min_norm`, and no slots.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, a leaf is complex, or
            `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.fromage(0.1), jnp.array([3.0, 4.0])
        >>> updates, state = optimizer.update(jnp.array([1.0, 0.0]), optimizer.init(params), params)
        >>> print(updates.round(3))
        [-0.512 -0.02 ]
    """
    hyperparams = {"learning_rate": learning_rate, "min_norm": min_norm}
    return lift(FROMAGE, hyperparams, name="fromage", state_dtype=state_dtype, layout=layout)
