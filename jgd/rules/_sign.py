r"""Sign descent and Signum: steps of one length in every parameter.

$$
\theta_t = \theta_{t-1} - \eta \operatorname{sign}(g_t) \qquad\text{or}\qquad
m_t = \beta m_{t-1} + (1-\beta)\, g_t, \quad \theta_t = \theta_{t-1} - \eta \operatorname{sign}(m_t)
$$

with the slot $m$ (`mu`). The sign of zero is zero.

References:
    - Bernstein et al., "signSGD: Compressed optimisation for non-convex problems", https://arxiv.org/abs/1802.04434,
      2018.
"""

import jax.numpy as jnp

from jgd.core import (
    Array,
    Hyper,
    LayoutLike,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    SlotDtype,
    Slots,
    StateDtype,
    lift,
    zeros,
)


def sign_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """The sign of the gradient, on one leaf."""
    del slots, param, step
    return -hyper["learning_rate"] * jnp.sign(grad), {}


def signum_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """The sign of the momentum, on one leaf."""
    del param, step
    mu = hyper["beta"] * slots["mu"] + hyper["1-beta"] * grad
    return -hyper["learning_rate"] * jnp.sign(mu), {"mu": mu}


# A complex number has no sign.
SIGN = Rule(sign_update, supports_complex=False)
SIGNUM = Rule(signum_update, slots={"mu": zeros}, supports_complex=False)


def sign_sgd(
    learning_rate: ScalarOrSchedule, *, state_dtype: StateDtype | None = None, layout: LayoutLike = "auto"
) -> Optimizer:
    """Descent along the sign of the gradient.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: The size of a step in each parameter, at least 0.
        state_dtype: Accepted for uniformity; there are no slots.

    Returns:
        An optimizer with the hyperparameter `learning_rate` and no slots.

    Raises:
        TypeError, ValueError: The learning rate is not a finite number or is negative, or a leaf is complex.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.sign_sgd(0.1)
        >>> print(optimizer.update(jnp.array([3.0, -0.002, 0.0]), optimizer.init(jnp.zeros(3)))[0])
        [-0.1  0.1 -0. ]
    """
    return lift(SIGN, {"learning_rate": learning_rate}, name="sign_sgd", state_dtype=state_dtype, layout=layout)


def signum(
    learning_rate: ScalarOrSchedule,
    beta: ScalarOrSchedule = 0.9,
    accumulator_dtype: SlotDtype | None = "auto",
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Descent along the sign of the momentum.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: The size of a step in each parameter, at least 0.
        beta: Decay rate of the average of gradients, in [0, 1).
        accumulator_dtype: The dtype of the slot `mu`; as for `jgd.sgd`.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `beta`, and the slot `mu`, one number a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, or a leaf is complex.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.signum(0.1)
        >>> print(optimizer.update(jnp.array([3.0, -0.002]), optimizer.init(jnp.zeros(2)))[0])
        [-0.1  0.1]
    """
    return lift(
        SIGNUM,
        {"learning_rate": learning_rate, "beta": beta},
        name="signum",
        slot_dtypes={"mu": accumulator_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )
