r"""RMSProp: the gradient over the root of its mean square.

$$
\begin{aligned}
v_t &= \rho v_{t-1} + (1-\rho)\, |g_t|^2, \qquad m_t = \rho m_{t-1} + (1-\rho)\, g_t \ \text{(centered)} \\
u_t &= g_t / \sqrt{v_t - |m_t|^2 + \epsilon}, \qquad b_t = \mu b_{t-1} + \eta\, u_t \\
\theta_t &= \theta_{t-1} - b_t
\end{aligned}
$$

with the slots $v$ (`nu`), $m$ (`mu`, centered only) and $b$ (`trace`, with momentum only). As in optax and TensorFlow
$\epsilon$ stands under the root and the learning rate inside of the momentum. `eps_in_sqrt=False` adds $\epsilon$ to
the root; `like="torch"` is PyTorch's form: that, and the learning rate outside of the momentum.

References:
    - Tieleman and Hinton, "Lecture 6.5: RMSProp", Coursera, 2012; Graves, https://arxiv.org/abs/1308.0850, 2013
      (centered).
"""

from typing import Literal

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
    abs_sq,
    check_choice,
    debias,
    full,
    lift,
    zeros,
)


def rmsprop_rule(
    eps_in_sqrt: bool,
    centered: bool,
    momentum: bool,
    nesterov: bool,
    corrected: bool,
    torch: bool,
    initial_scale: ScalarOrSchedule,
) -> Rule:
    """The rule in one of its forms.

    Args:
        eps_in_sqrt: Whether `eps` stands under the root.
        centered: Whether to divide by the standard deviation.
        momentum: Whether there is momentum.
        nesterov: Whether it is Nesterov's.
        corrected: Whether the averages are corrected for their start at zero.
        torch: Whether the learning rate stands outside of the momentum.
        initial_scale: Where the mean square starts.

    Returns:
        A rule that reads the hyperparameters `learning_rate`, `decay`, `eps` (and `momentum`).
    """

    def direction(grad: Array, slots: Slots, hyper: Hyper, step: Array) -> tuple[Array, dict[str, Array]]:
        decay, rest = hyper["decay"], hyper["1-decay"]
        scale = 1 / debias(rest, step) if corrected else 1
        new_slots = {"nu": decay * slots["nu"] + rest * abs_sq(grad)}
        square = scale * new_slots["nu"]
        if centered:
            new_slots["mu"] = decay * slots["mu"] + rest * grad
            square = jnp.maximum(square - abs_sq(scale * new_slots["mu"]), 0)  # a variance, whatever rounding says
        if eps_in_sqrt:
            denominator = jnp.sqrt(square + hyper["eps"])
        else:
            denominator = jnp.sqrt(jnp.where(square > 0, square, 1)) * (square > 0) + hyper["eps"]
        return grad / jnp.where(denominator > 0, denominator, 1), new_slots

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del param
        u, new_slots = direction(grad, slots, hyper, step)
        rate = hyper["learning_rate"]
        if not momentum:
            return -rate * u, new_slots
        inside, outside = (1, rate) if torch else (rate, 1)
        new_slots["trace"] = inside * u + hyper["momentum"] * slots["trace"]
        ahead = inside * u + hyper["momentum"] * new_slots["trace"] if nesterov else new_slots["trace"]
        return -outside * ahead, new_slots

    slots = {"nu": full(initial_scale)}
    slots |= {"mu": zeros} if centered else {}
    slots |= {"trace": zeros} if momentum else {}
    exact = ("nu", "mu") if centered else ()  # their difference may be far smaller than either
    return Rule(update, slots=slots, nonnegative=("nu",), exact=exact)


def rmsprop(
    learning_rate: ScalarOrSchedule,
    decay: ScalarOrSchedule = 0.9,
    eps: ScalarOrSchedule = 1e-8,
    initial_scale: ScalarOrSchedule = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: ScalarOrSchedule | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    *,
    like: Literal["optax", "torch"] = "optax",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """RMSProp, plain, centered and with momentum.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: About the size of a step in each parameter, at least 0.
        decay: Decay rate of the averages, in [0, 1).
        eps: Added to the mean square or to its root, at least 0.
        initial_scale: Where the mean square starts, at least 0.
        eps_in_sqrt: Whether `eps` stands under the root.
        centered: Whether to divide by the standard deviation instead.
        momentum: Decay rate of the sum of steps, in [0, 1); None for no momentum.
        nesterov: Whether that momentum is Nesterov's.
        bias_correction: Whether to correct the averages for their start at zero.
        like: Whose order to follow: `"torch"` sets `eps_in_sqrt=False` as well.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `decay`, `eps` (and `momentum`), and the slots `nu`,
        `mu` where centered, `trace` with momentum: one to three numbers a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, or `nesterov` comes
            without `momentum`.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.rmsprop(0.1)
        >>> print(optimizer.update(jnp.array([3.0, -0.2]), optimizer.init(jnp.zeros(2)))[0].round(3))
        [-0.316  0.316]
    """
    check_choice("rmsprop", "like", like, Literal["optax", "torch"])
    if nesterov and momentum is None:
        raise ValueError("rmsprop: nesterov=True looks ahead along the momentum; give one, such as momentum=0.9.")
    torch = like == "torch"
    hyperparams = {"learning_rate": learning_rate, "decay": decay, "eps": eps}
    if momentum is not None:
        hyperparams["momentum"] = momentum
    rule = rmsprop_rule(
        eps_in_sqrt and not torch, centered, momentum is not None, nesterov, bias_correction, torch, initial_scale
    )
    return lift(rule, hyperparams, name="rmsprop", state_dtype=state_dtype, layout=layout)
