r"""RAdam: Adam that waits until its second moment can be trusted.

$$
\begin{aligned}
\rho_\infty &= 2/(1-\beta_2) - 1, \qquad \rho_t = \rho_\infty - 2 t \beta_2^t / (1-\beta_2^t) \\
r_t &= \sqrt{\frac{(\rho_t-4)(\rho_t-2)\rho_\infty}{(\rho_\infty-4)(\rho_\infty-2)\rho_t}} \\
\theta_t &= \theta_{t-1} - \eta \begin{cases} r_t\, \hat m_t / (\sqrt{\hat v_t + \epsilon_\text{root}} + \epsilon)
            & \rho_t \ge \text{threshold} \\ \hat m_t & \text{otherwise} \end{cases}
\end{aligned}
$$

with the moments of `jgd.adam`. `like="torch"` takes the adaptive step for $\rho_t > 5$ only, and adds $\epsilon$ to the
root of the *uncorrected* $v$.

References:
    - Liu et al., "On the variance of the adaptive learning rate and beyond", https://arxiv.org/abs/1908.03265, 2019,
      Algorithm 2.
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
    check_choice,
    debias,
    lift,
)
from jgd.rules.parts._moments import MOMENT_SLOTS, adam_scales, moments
from jgd.rules.parts._nesterov import nadam_scales


def rectification(hyper: Hyper, step: Array) -> Hyper:
    """The numbers of the step: `rectify`, and `adaptive`, whether the second moment is trusted."""
    rest = hyper["1-b2"]
    longest = 2 / rest - 1
    # A decay rate of zero remembers one gradient and is never trusted.
    steps = step.astype(rest.dtype)
    length = longest - 2 * steps * (1 - debias(rest, step)) / debias(rest, step)
    adaptive = jnp.where(hyper["strict"] > 0, length > hyper["threshold"], length >= hyper["threshold"])
    safe, safe_longest = jnp.where(length > 4, length, 5), jnp.where(longest > 4, longest, 5)
    square = (safe - 4) * (safe - 2) * safe_longest / ((safe_longest - 4) * (safe_longest - 2) * safe)
    return hyper | {"rectify": jnp.sqrt(square), "adaptive": adaptive & (length > 4)}


def radam_rule(nesterov: bool, torch: bool) -> Rule:
    """The rule, with Nesterov momentum or without, in optax's form or in PyTorch's."""

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del param, step
        mu, nu = moments(grad, slots, hyper)
        direction = hyper["mu_scale"] * mu
        if nesterov:
            direction = direction + hyper["grad_scale"] * grad
        root = jnp.sqrt(hyper["nu_scale"] * nu + hyper["eps_root"])
        scaled_eps = hyper["eps"] * (jnp.sqrt(hyper["nu_scale"]) if torch else 1)
        denominator = jnp.where(hyper["adaptive"], root + scaled_eps, hyper["rectify"])
        return -hyper["rectify"] * direction / denominator, {"mu": mu, "nu": nu}

    def prepare(hyper: Hyper, step: Array) -> Hyper:
        scales = nadam_scales if nesterov else adam_scales
        return rectification(scales(hyper, step) | {"strict": jnp.asarray(float(torch))}, step)

    return Rule(update, slots=MOMENT_SLOTS, prepare=prepare, nonnegative=("nu",))


def radam(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    threshold: ScalarOrSchedule = 5.0,
    *,
    nesterov: bool = False,
    like: Literal["optax", "torch"] = "optax",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Rectified Adam.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: About the size of a step in each parameter, at least 0.
        threshold: How many gradients the second moment must remember, in effect, before it is used.
        nesterov: Whether to use Nesterov momentum.
        like: Whose form to follow; see the notes above.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `b1`, `b2`, `eps`, `eps_root`, `threshold`, and the slots
        `mu`, `nu`, two numbers a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.radam(0.1)
        >>> print(optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0].round(3))  # not yet adaptive
        [-0.3]
    """
    check_choice("radam", "like", like, Literal["optax", "torch"])
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    return lift(
        radam_rule(nesterov, like == "torch"),
        hyperparams | {"threshold": threshold},
        name="radam",
        state_dtype=state_dtype,
        layout=layout,
    )
