r"""COCOB: betting on coins instead of choosing a learning rate.

$$
\begin{aligned}
L_t &= \max(L_{t-1}, |g_t|), \qquad G_t = G_{t-1} + |g_t|, \qquad C_t = C_{t-1} - g_t \\
R_t &= \max(R_{t-1} - g_t\, (\theta_{t-1} - \theta_0),\ 0) \\
\theta_t &= \theta_0 + \frac{C_t}{L_t \max(G_t + L_t,\ \alpha L_t)}\, (L_t + R_t)
\end{aligned}
$$

entry by entry, with the slots `init_particles` ($\theta_0$), `cumulative_gradients` ($C$), `scale` ($L$, from
$\epsilon$), `subgradients` ($G$) and `reward` ($R$). Gradients are multiplied by `learning_rate` first.

References:
    - Orabona and Tommasi, "Training deep networks without learning rates through coin betting",
      https://arxiv.org/abs/1705.07795, 2017, Algorithm 2.
"""

import jax.numpy as jnp

from jgd.core import (
    POSITIVE,
    Array,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    check_hyperparam,
    full,
    lift,
    zeros,
)
from jgd.rules.parts._slots import initial_param
from jgd.rules.parts._weight_decay import coupled_decay


def cocob_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """COCOB-Backprop, on one leaf."""
    del step
    grad = hyper["learning_rate"] * grad
    init_particles = slots["init_particles"]
    scale = jnp.maximum(slots["scale"], jnp.abs(grad))
    subgradients = slots["subgradients"] + jnp.abs(grad)
    reward = jnp.maximum(slots["reward"] - grad * (param - init_particles), 0)
    cumulative = slots["cumulative_gradients"] - grad
    bet = cumulative / (scale * jnp.maximum(subgradients + scale, hyper["alpha"] * scale)) * (scale + reward)
    new_slots = {
        "init_particles": init_particles,
        "cumulative_gradients": cumulative,
        "scale": scale,
        "subgradients": subgradients,
        "reward": reward,
    }
    return init_particles + bet - param, new_slots


def cocob(
    learning_rate: ScalarOrSchedule = 1.0,
    alpha: ScalarOrSchedule = 100.0,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """COCOB: continuous coin betting.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: A factor on the gradients, at least 0; one is what the method is for.
        alpha: How slowly the first bets grow, above 0.
        eps: The first bound on a gradient, above 0. It is no hyperparameter afterwards: it stands in the slot `scale`.
        weight_decay: How much of each parameter is added to its gradient, at least 0.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `alpha`, `weight_decay`, and the slots `init_particles`,
        `cumulative_gradients`, `scale`, `subgradients`, `reward`, five numbers a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, a leaf is complex, the
            mask does not fit, or `update` is called without params.

    Examples:
        >>> import jax, jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.cocob(), jnp.zeros(1)
        >>> state = optimizer.init(params)
        >>> for _ in range(300):
        ...     updates, state = optimizer.update(jnp.sign(params - 2.0), state, params)
        ...     params = jgd.apply_updates(params, updates)
        >>> print(bool(jnp.abs(params[0] - 2.0) < 0.3))
        True
    """
    check_hyperparam("cocob", "eps", eps, changes=False)
    slots = dict.fromkeys(("cumulative_gradients", "subgradients", "reward"), zeros)
    slots |= {"init_particles": initial_param, "scale": full(eps)}
    # Each step computes the params from the slots: an error in the slots is one in the params.
    rule = Rule(cocob_update, slots=slots, needs_params=True, supports_complex=False, exact=tuple(slots))
    return lift(
        rule,
        {"learning_rate": learning_rate, "alpha": alpha, "weight_decay": weight_decay},
        name="cocob",
        before=coupled_decay("cocob", mask),
        ranges={"alpha": POSITIVE},
        state_dtype=state_dtype,
        layout=layout,
    )
