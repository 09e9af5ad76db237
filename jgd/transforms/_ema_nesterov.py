r"""EMA-Nesterov: gradients taken ahead of the params, along the average of their past moves.

$$
\begin{aligned}
x_t &= y_{t-1} + u_t, \qquad v_t = \gamma v_{t-1} + (1-\gamma)\, (x_t - x_{t-1}) \\
y_t &= x_t + \beta v_t
\end{aligned}
$$

with $u_t$ the inner optimizer's update from the gradient at $y_{t-1}$, and $y_0 = x_0$. The params are $y$; the slot is
$v$ (`velocity`). A schedule of $\beta$ that ends at zero ends at $x$.

References:
    - "EMA-Nesterov", https://arxiv.org/abs/2605.25395, 2026, as in the code of its entry to the speed runs of language
      models. Where $\beta$ follows a schedule, $x_{t-1}$ is found here with this step's value, there with the last
      one's.
"""

from jgd.core import (
    DECAY_RATE,
    NOT_NEGATIVE,
    Array,
    GradientTransformation,
    Hyper,
    Optimizer,
    ScalarOrSchedule,
    Slots,
    Wrapper,
    wrap,
    zeros,
)


def _ahead(delta: Array, grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    del grad, param, step
    params_change = delta + hyper["beta"] * slots["velocity"]
    velocity = hyper["gamma"] * slots["velocity"] + (1 - hyper["gamma"]) * params_change
    return delta + hyper["beta"] * velocity, {"velocity": velocity}


def ema_nesterov(
    optimizer: GradientTransformation, gamma: ScalarOrSchedule = 0.99, beta: ScalarOrSchedule = 0.3
) -> Optimizer:
    """Evaluates gradients ahead of the params, along the average of past moves.

    Args:
        optimizer: Any optimizer.
        gamma: Decay rate of the average of moves, in [0, 1).
        beta: How far ahead, in average moves; at least 0. Zero changes nothing.

    Returns:
        An optimizer with the hyperparameters `gamma`, `beta` and the slot `velocity`, one number a parameter, whose
        state is `WrapperState(own, inner)`.

    Raises:
        TypeError, ValueError: `optimizer` is not an optimizer, or a hyperparameter is not a finite number in
            its range.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.ema_nesterov(jgd.sgd(1.0), gamma=0.5, beta=0.5)
        >>> print(optimizer.update(jnp.array([1.0]), optimizer.init(jnp.zeros(1)))[0])
        [-1.25]
    """
    ranges = {"gamma": DECAY_RATE, "beta": NOT_NEGATIVE}
    wrapper = Wrapper(after=_ahead, slots={"velocity": zeros}, elementwise=True)
    return wrap(optimizer, wrapper, {"gamma": gamma, "beta": beta}, name="ema_nesterov", ranges=ranges)
