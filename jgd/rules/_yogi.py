r"""Yogi: Adam whose second moment moves by bounded steps.

$$
\begin{aligned}
m_t &= \beta_1 m_{t-1} + (1-\beta_1)\, g_t \\
v_t &= v_{t-1} - (1-\beta_2) \operatorname{sign}(v_{t-1} - |g_t|^2)\, |g_t|^2 \\
\theta_t &= \theta_{t-1} - \eta\, \hat m_t / (\sqrt{\hat v_t} + \epsilon)
\end{aligned}
$$

with the slots $m$ (`mu`) and $v$ (`nu`). As in optax both start at 1e-6 and are then corrected as if they had started
at zero; the paper starts $v$ at the square of the first gradient and corrects neither.

References:
    - Zaheer et al., "Adaptive methods for nonconvex optimization", NeurIPS 2018, Algorithm 2.
"""

import jax.numpy as jnp

from jgd.core import Array, Hyper, LayoutLike, Optimizer, Rule, ScalarOrSchedule, Slots, StateDtype, abs_sq, full, lift
from jgd.rules.parts._moments import adam_scales

_START = 1e-6


def yogi_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """Yogi, on one leaf."""
    del param, step
    square = abs_sq(grad)
    mu = hyper["b1"] * slots["mu"] + hyper["1-b1"] * grad
    nu = slots["nu"] - hyper["1-b2"] * jnp.sign(slots["nu"] - square) * square
    denominator = jnp.sqrt(hyper["nu_scale"] * nu) + hyper["eps"]
    return -hyper["mu_scale"] * mu / denominator, {"mu": mu, "nu": nu}


YOGI = Rule(
    yogi_update,
    slots={"mu": lambda param: jnp.full_like(param, _START), "nu": full(_START)},
    prepare=adam_scales,
    nonnegative=("nu",),
)


def yogi(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-3,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Yogi: Adam with additive updates of the second moment.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: About the size of a step in each parameter, at least 0.
        b2: Decay rate of the second moment, in [0, 1).
        eps: Added to the root of the second moment, at least 0; larger than for Adam.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `b1`, `b2`, `eps`, and the slots `mu`, `nu`, two numbers
        a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.yogi(0.1)
        >>> print(optimizer.update(jnp.array([3.0, -0.2]), optimizer.init(jnp.zeros(2)))[0].round(1))
        [-0.1  0.1]
    """
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps}
    return lift(YOGI, hyperparams, name="yogi", state_dtype=state_dtype, layout=layout)
