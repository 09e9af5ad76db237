r"""SGDP: momentum without the part of the step that only makes scale-invariant weights grow.

$$
b_t = \mu\, b_{t-1} + (1-\tau)\, g_t, \qquad
\theta_t = \theta_{t-1} - \eta\, \Bigl(\Pi(b_t) + \frac{\lambda\, r}{1-\mu}\, \theta_{t-1}\Bigr)
$$

with the slot $b$ (`trace`), the dampening $\tau$, and the projection $\Pi$ and the factor $r$ of `jgd.adamp`. The decay
is divided by $1-\mu$, since the momentum lengthens the steps so. Under Nesterov $g_t + \mu\, b_t$ is projected. Without
it the authors' code keeps $\Pi(b_t)$ in place of $b_t$, by an operation in place; so do we. In the paper it does not.

References:
    - Heo et al., "AdamP: Slowing down the slowdown for momentum optimizers on scale-invariant weights",
      https://arxiv.org/abs/2006.08217, 2020, Algorithm 1.
"""

from jgd.core import Array, Hyper, LayoutLike, Mask, Optimizer, Rule, ScalarOrSchedule, Slots, StateDtype, zeros
from jgd.rules._adamp import lift_projected, project


def _sgdp_rule(decays: bool, nesterov: bool, axis: int) -> Rule:
    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del step
        trace = hyper["momentum"] * slots["trace"] + (1 - hyper["dampening"]) * grad
        direction = grad + hyper["momentum"] * trace if nesterov else trace
        direction, decay_factor = project(direction, grad, param, hyper, axis)
        trace = trace if nesterov else direction
        decay = hyper["weight_decay"] * decay_factor / hyper["1-momentum"] * param if decays else 0
        return -hyper["learning_rate"] * (direction + decay), {"trace": trace}

    return Rule(update, {"trace": zeros}, kind="leaf", needs_params=True, supports_complex=False)


def sgdp(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule = 0.0,
    dampening: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    eps: ScalarOrSchedule = 1e-8,
    delta: ScalarOrSchedule = 0.1,
    wd_ratio: ScalarOrSchedule = 0.1,
    nesterov: bool = False,
    channel_axis: int = -1,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Momentum that does not let scale-invariant weights grow.

    Arguments that are not described here are those of `jgd.adamp`.

    Args:
        learning_rate: Length of a step per unit of momentum, at least 0.
        momentum: Decay rate of the sum of gradients, in [0, 1).
        dampening: Gradients enter the sum with weight one minus this.
        weight_decay: The share of each parameter, times the learning rate over `1 - momentum`, that a step takes away;
            at least 0.
        eps: Added to the norms of the projection, at least 0.
        nesterov: Whether to step along the look-ahead sum.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules, with the slot `trace`, one number a
        parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, a leaf is complex, the mask
            does not fit the params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.eye(2)
        >>> optimizer = jgd.sgdp(0.1, momentum=0.9, delta=3.0)
        >>> updates, state = optimizer.update(jnp.ones((2, 2)), optimizer.init(params), params)
        >>> print(updates.round(3))  # without what lies along the params
        [[-0.  -0.1]
         [-0.1 -0. ]]
    """
    hyperparams = {"learning_rate": learning_rate, "momentum": momentum, "dampening": dampening, "eps": eps}
    hyperparams |= {"weight_decay": weight_decay, "delta": delta, "wd_ratio": wd_ratio}
    more = {"state_dtype": state_dtype, "layout": layout}
    return lift_projected(_sgdp_rule, nesterov, channel_axis, hyperparams, mask, "sgdp", **more)
