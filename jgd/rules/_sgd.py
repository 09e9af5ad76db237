r"""Stochastic gradient descent with momentum: steps along a decaying sum of gradients.

$$
\begin{aligned}
m_t &= g_t + \mu\, m_{t-1} \\
\theta_t &= \theta_{t-1} - \eta \begin{cases} m_t & \text{heavy ball} \\
                                             g_t + \mu\, m_t & \text{Nesterov} \end{cases}
\end{aligned}
$$

with the sum $m$ (slot `trace`), the gradient $g$ and the learning rate $\eta$. The gradient enters
with weight one, not $1-\mu$, so the length of a steady step is $\eta / (1-\mu)$ times the gradient.

References:
    - Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    - Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013, eqs. 1-4; as
      in optax and PyTorch, the parameters are those after the look-ahead step.
"""

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
from jgd.rules._gradient_descent import DESCENT


def heavy_ball_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """Polyak's momentum, on one leaf."""
    del param, step
    trace = grad + hyper["momentum"] * slots["trace"]
    return -hyper["learning_rate"] * trace, {"trace": trace}


def nesterov_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """Nesterov's momentum, on one leaf."""
    del param, step
    trace = grad + hyper["momentum"] * slots["trace"]
    return -hyper["learning_rate"] * (grad + hyper["momentum"] * trace), {"trace": trace}


HEAVY_BALL = Rule(heavy_ball_update, slots={"trace": zeros})
NESTEROV = Rule(nesterov_update, slots={"trace": zeros})


def sgd(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule | None = None,
    nesterov: bool = False,
    accumulator_dtype: SlotDtype | None = "auto",
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Stochastic gradient descent, with or without momentum.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: Length of a step per unit of gradient, at least 0; a number, a scalar array or a schedule.
        momentum: Decay rate of the sum of gradients, in [0, 1); a number, a scalar array or a schedule. None for
            no momentum, and no slot.
        nesterov: Whether to step along the look-ahead sum.
        accumulator_dtype: The dtype of the slot `trace` where `state_dtype` is None: `"auto"` for float32, wider where
            the param is wider; None for the param's dtype, as in optax; or a dtype.

    Returns:
        An optimizer with the hyperparameters `learning_rate` and `momentum`, and the slot `trace`, one number a
        parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, or `nesterov` comes
            without `momentum`.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.sgd(0.1, momentum=0.9)
        >>> state = optimizer.init(jnp.zeros(2))
        >>> for _ in range(2):
        ...     updates, state = optimizer.update(jnp.array([1.0, -2.0]), state)
        >>> print(updates, state.slots["trace"])
        [-0.19  0.38] [ 1.9 -3.8]
    """
    if nesterov and momentum is None:
        raise ValueError("sgd: nesterov=True looks ahead along the momentum; give one, such as momentum=0.9.")
    if momentum is None:
        rule, hyperparams = DESCENT, {"learning_rate": learning_rate}
    else:
        rule = NESTEROV if nesterov else HEAVY_BALL
        hyperparams = {"learning_rate": learning_rate, "momentum": momentum}
    slot_dtypes = {"trace": accumulator_dtype}
    return lift(rule, hyperparams, name="sgd", slot_dtypes=slot_dtypes, state_dtype=state_dtype, layout=layout)
