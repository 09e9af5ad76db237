r"""AdaMax: Adam with the largest gradient in place of the root mean square.

$$
\begin{aligned}
m_t &= \beta_1 m_{t-1} + (1-\beta_1)\, g_t, \qquad u_t = \max(|g_t| + \epsilon,\ \beta_2 u_{t-1}) \\
\theta_t &= \theta_{t-1} - \eta\, \bigl( m_t / ((1-\beta_1^t)\, u_t) + \lambda\, \theta_{t-1} \bigr)
\end{aligned}
$$

with the slots $m$ (`mu`) and $u$ (`nu`); $\lambda$ is zero in `adamax`.

References:
    - Kingma and Ba, "Adam: A method for stochastic optimization", https://arxiv.org/abs/1412.6980, 2014, Algorithm 2.
"""

import jax.numpy as jnp

from jgd.core import (
    Array,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    debias,
    lift,
    real_zeros,
    zeros,
)
from jgd.rules.parts._weight_decay import DecayForm, lift_decayed


def adamax_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """AdaMax, on one leaf."""
    del param
    mu = hyper["b1"] * slots["mu"] + hyper["1-b1"] * grad
    nu = jnp.maximum(jnp.abs(grad) + hyper["eps"], hyper["b2"] * slots["nu"])
    rate = hyper["learning_rate"] / debias(hyper["1-b1"], step)
    safe = jnp.where(nu > 0, nu, 1)  # with eps = 0 and no gradient yet there is nothing to divide by
    return -rate * mu / safe, {"mu": mu, "nu": nu}


ADAMAX = Rule(adamax_update, slots={"mu": zeros, "nu": real_zeros}, nonnegative=("nu",))


def adamax(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """AdaMax: Adam in the infinity norm.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: The largest size of a step in each parameter, about; at least 0.
        b1: Decay rate of the average of gradients, in [0, 1).
        b2: Decay rate of the largest gradient, in [0, 1).
        eps: Added to each gradient's magnitude, at least 0.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `b1`, `b2`, `eps`, and the slots `mu`, `nu`, two numbers
        a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.adamax(0.1)
        >>> print(optimizer.update(jnp.array([3.0, -0.002]), optimizer.init(jnp.zeros(2)))[0].round(3))
        [-0.1  0.1]
    """
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps}
    return lift(ADAMAX, hyperparams, name="adamax", state_dtype=state_dtype, layout=layout)


def adamaxw(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    decay_form: DecayForm = "scaled",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """AdaMax with decoupled weight decay.

    Arguments that are not described here are those of `jgd.adamax` and `jgd.adamw`.

    Args:
        learning_rate: The largest size of a step in each parameter, about; at least 0.

    Returns:
        An optimizer with the hyperparameters of `jgd.adamax` and `weight_decay`, and its slots.

    Raises:
        TypeError, ValueError: As for `jgd.adamax`; the mask does not fit the params, or `update` is called without
            params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.adamaxw(0.1, weight_decay=0.5)
        >>> params = jnp.ones(2)
        >>> print(optimizer.update(jnp.array([3.0, -0.002]), optimizer.init(params), params)[0].round(3))
        [-0.15  0.05]
    """
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps}
    return lift_decayed(
        ADAMAX, hyperparams, weight_decay, mask, decay_form, name="adamaxw", state_dtype=state_dtype, layout=layout
    )
