r"""SGD-SaI: momentum whose learning rates, one a leaf, are set once from the first gradient.

$$
\begin{aligned}
s &= \|g_1\| / (\operatorname{std}(g_1) + \epsilon) \\
m_t &= \beta m_{t-1} + (1-\beta)\, g_t, \qquad m_1 = g_1 \\
\theta_t &= \theta_{t-1} - \eta\, (s\, m_t + \lambda\, \theta_{t-1})
\end{aligned}
$$

with the slots $m$ (`mu`) and $s$ (`gsnr`, one number a leaf), and the standard deviation with $n - 1$ in the
denominator. For a gradient of zero mean $s$ is near $\sqrt n$. The average starts at the first gradient, as in the
authors' code, which the paper does not say.

Where all entries of the first gradient are the same (a leaf of one number, say) the authors' code divides by $\epsilon$
alone, a step of $10^8$ times the gradient; we take $s = \|g_1\|$ there, as they once did. A leaf whose first gradient
is zero never moves.

References:
    - Xu et al., "No more Adam: Learning rate scaling at initialization is all you need",
      https://arxiv.org/abs/2412.11768, 2024, Algorithm 1.
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
    real_zero,
    root,
    squares,
    zeros,
)
from jgd.rules.parts._weight_decay import DecayForm, lift_decayed


def sgd_sai_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """Momentum with a scale from the first gradient, on one leaf."""
    del param
    is_first = step == 1
    gsnr = jnp.where(is_first, signal_to_noise(grad, hyper["eps"]), slots["gsnr"])
    mu = jnp.where(is_first, grad, hyper["momentum"] * slots["mu"] + hyper["1-momentum"] * grad)
    return -hyper["learning_rate"] * gsnr * mu, {"mu": mu, "gsnr": gsnr}


def signal_to_noise(grad: Array, eps: Array) -> Array:
    """The norm of a gradient over the standard deviation of its entries."""
    grad_sq = squares([grad])
    scaled = grad_sq.scale * grad
    mean = jnp.sum(scaled) / max(grad.size, 1)
    deviation = root(jnp.sum((scaled - mean) ** 2) / max(grad.size - 1, 1))
    all_equal = deviation == 0
    return grad_sq.length / jnp.where(all_equal, grad_sq.scale, deviation + eps * grad_sq.scale)


SLOTS = {"mu": zeros, "gsnr": real_zero}
SGD_SAI = Rule(sgd_sai_update, slots=SLOTS, kind="leaf", supports_complex=False)


def sgd_sai(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule = 0.9,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-2,
    mask: Mask = None,
    *,
    decay_form: DecayForm = "scaled",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Momentum with learning rates scaled at initialization: half the memory of Adam.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: Length of a step per unit of gradient and of `gsnr`, at least 0.
        momentum: Decay rate of the average of gradients, in [0, 1).
        eps: Added to the standard deviation, at least 0.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `momentum`, `eps`, `weight_decay`, and the slots `mu`,
        one number a parameter, and `gsnr`, one a leaf.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, a leaf is complex, the mask
            does not fit the params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.zeros(2)
        >>> optimizer = jgd.sgd_sai(0.1)
        >>> updates, state = optimizer.update(jnp.array([2.0, -2.0]), optimizer.init(params), params)
        >>> print(state.slots["gsnr"].round(3), updates.round(3))
        1.0 [-0.2  0.2]
    """
    hyperparams = {"learning_rate": learning_rate, "momentum": momentum, "eps": eps}
    more = {"state_dtype": state_dtype, "layout": layout}
    return lift_decayed(SGD_SAI, hyperparams, weight_decay, mask, decay_form, name="sgd_sai", **more)
