r"""SM3: one accumulator for each row and column instead of each parameter.

$$
a_t = \min_i \mu^{(i)}_{t-1} + g_t^2, \qquad \mu^{(i)}_t = \max_{\text{axes} \ne i} a_t, \qquad
m_t = \beta\, m_{t-1} + (1-\beta)\, g_t / \sqrt{a_t + \epsilon}, \qquad \theta_t = \theta_{t-1} - \eta\, m_t
$$

with the slots $\mu$ (`mu`, one vector for each axis) and $m$ (`nu`); $\epsilon = 10^{-8}$. It is SM3-II; the names of
the slots are optax's.

References:
    - Anil et al., "Memory-efficient adaptive optimization", https://arxiv.org/abs/1901.11150, 2019, Algorithm SM3-II.
"""

import functools

import jax.numpy as jnp

from jgd.core import (
    DECAY_RATE,
    Array,
    Hyper,
    LayoutLike,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    lift,
    zeros,
)

_EPS = 1e-8


def axis_zeros(param: Array) -> list[Array]:
    """A vector of zeros for each axis, sharded as the param is along it; a scalar is its own."""
    return [jnp.zeros_like(_largest(param, axis)) for axis in range(param.ndim)] or [jnp.zeros_like(param)]


def _largest(x: Array, axis: int) -> Array:
    """The largest entry for each index of an axis."""
    return jnp.max(x, axis=tuple(other for other in range(x.ndim) if other != axis), initial=0)


def sm3_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """SM3-II with momentum, on one leaf."""
    del param, step
    axes = range(grad.ndim)
    broadcast_mu = [vector.reshape([-1 if axis == i else 1 for axis in axes]) for i, vector in enumerate(slots["mu"])]
    bound = functools.reduce(jnp.minimum, broadcast_mu) + grad**2
    direction = jnp.where(bound > 0, grad / jnp.sqrt(bound + _EPS), 0)
    nu = hyper["momentum"] * slots["nu"] + hyper["1-momentum"] * direction
    mu = [_largest(bound, axis) for axis in axes] or [bound]
    return -hyper["learning_rate"] * nu, {"mu": mu, "nu": nu}


SLOTS = {"mu": axis_zeros, "nu": zeros}
SM3 = Rule(sm3_update, slots=SLOTS, kind="leaf", supports_complex=False, nonnegative=("mu",))


def sm3(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule = 0.9,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """SM3: AdaGrad with a memory of rows and columns.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: The size of the first step in each parameter, about; at least 0.
        momentum: Decay rate of the average of steps, in [0, 1).

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `momentum`, and the slots `mu`, one number for each index
        of each axis, and `nu`, one number a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, or a leaf is complex.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.sm3(0.1, momentum=0.0)
        >>> updates, state = optimizer.update(jnp.array([[3.0, 0.1]]), optimizer.init(jnp.zeros((1, 2))))
        >>> print(updates.round(3), state.slots["mu"][1].round(3))
        [[-0.1 -0.1]] [9.   0.01]
    """
    hyperparams = {"learning_rate": learning_rate, "momentum": momentum}
    return lift(SM3, hyperparams, name="sm3", ranges={"momentum": DECAY_RATE}, state_dtype=state_dtype, layout=layout)
