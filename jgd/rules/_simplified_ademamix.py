r"""Simplified AdEMAMix: one sum of gradients beside the gradient itself.

$$
m_t = \beta_1 m_{t-1} + g_t, \qquad v_t = \beta_2 v_{t-1} + (1-\beta_2)\, g_t^2, \qquad
\theta_t = \theta_{t-1} - \eta\, \bigl( (m_t + \alpha\, g_t) / (\sqrt{\hat v_t + \epsilon_\text{root}} + \epsilon)
           + \lambda\, \theta_{t-1} \bigr)
$$

with the slots $m$ (`m`) and $v$ (`n`). The sum is not normalized: compared with Adam the learning rate is smaller by
$1 - \beta_1$.

References:
    - Morwani et al., "Connections between schedule-free optimizers, AdEMAMix, and accelerated SGD variants",
      https://arxiv.org/abs/2502.02431, 2025, Algorithm 1.
"""

import jax.numpy as jnp

from jgd.core import (
    NOT_NEGATIVE,
    Array,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    abs_sq,
    debias,
    real_zeros,
    zeros,
)
from jgd.rules.parts._weight_decay import DecayForm, lift_decayed


def simplified_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """Simplified AdEMAMix, on one leaf."""
    del param
    m = hyper["b1"] * slots["m"] + grad
    n = hyper["b2"] * slots["n"] + hyper["1-b2"] * abs_sq(grad)
    denominator = jnp.sqrt(n / debias(hyper["1-b2"], step) + hyper["eps_root"]) + hyper["eps"]
    return -hyper["learning_rate"] * (m + hyper["alpha"] * grad) / denominator, {"m": m, "n": n}


SIMPLIFIED_ADEMAMIX = Rule(simplified_update, slots={"m": zeros, "n": real_zeros}, nonnegative=("n",))


def simplified_ademamix(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.99,
    b2: ScalarOrSchedule = 0.95,
    alpha: ScalarOrSchedule = 0.0,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    decay_form: DecayForm = "scaled",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Simplified AdEMAMix: momentum and gradient over one second moment.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: About `1 - b1` times the size of a steady step in each parameter, at least 0.
        b1: Decay rate of the sum of gradients, in [0, 1).
        b2: Decay rate of the second moment, in [0, 1).
        alpha: Weight of the present gradient, at least 0.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules, with the slots `m`, `n`, two numbers
        a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, the mask does not fit the
            params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.simplified_ademamix(0.1)
        >>> updates, state = optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)), jnp.zeros(1))
        >>> print(updates.round(3))
        [-0.1]
    """
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "alpha": alpha, "eps": eps}
    return lift_decayed(
        SIMPLIFIED_ADEMAMIX,
        hyperparams | {"eps_root": eps_root},
        weight_decay,
        mask,
        decay_form,
        name="simplified_ademamix",
        ranges={"alpha": NOT_NEGATIVE},
        state_dtype=state_dtype,
        layout=layout,
    )
