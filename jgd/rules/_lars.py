r"""LARS: momentum with a learning rate for each leaf, in proportion to its length.

$$
\begin{aligned}
u_t &= g_t + \lambda\, \theta_{t-1}, \qquad
r_t = c\, \lVert \theta_{t-1} \rVert / (\lVert u_t \rVert + \epsilon) \\
b_t &= \mu\, b_{t-1} + \eta\, r_t u_t, \qquad \theta_t = \theta_{t-1} - b_t
\end{aligned}
$$

with the slot $b$ (`trace`); where either norm is zero $r_t = 1$. As in optax the learning rate stands inside of the
momentum.

References:
    - You, Gitman and Ginsburg, "Large batch training of convolutional networks", https://arxiv.org/abs/1708.03888,
      2017, Algorithm 1.
"""

import jax

from jgd.core import (
    Array,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    PyTree,
    Rule,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    broadcast_mask,
    lift,
    zeros,
)
from jgd.rules.parts._trust_ratio import trust_ratio


def lars_rule(decays: bool, scales: bool, nesterov: bool) -> Rule:
    """The rule, with and without weight decay, the ratio, and Nesterov's momentum."""

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del step
        direction = grad + hyper["weight_decay"] * param if decays else grad
        if scales:
            direction_scale, ratio = trust_ratio(param, direction, hyper["trust_coefficient"], hyper["eps"])
            direction = ratio * (direction_scale * direction)
        scaled = hyper["learning_rate"] * direction
        trace = scaled + hyper["momentum"] * slots["trace"]
        return -(scaled + hyper["momentum"] * trace if nesterov else trace), {"trace": trace}

    return Rule(update, slots={"trace": zeros}, kind="leaf", needs_params=True)


def lars(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = True,
    trust_coefficient: ScalarOrSchedule = 0.001,
    eps: ScalarOrSchedule = 0.0,
    trust_ratio_mask: Mask = True,
    momentum: ScalarOrSchedule = 0.9,
    nesterov: bool = False,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """LARS: layer-wise adaptive rate scaling.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: At least 0; the step of a leaf is this times the coefficient times its length, about.
        weight_decay: How much of each parameter is added to its gradient, at least 0.
        weight_decay_mask: Which leaves decay; as `mask` of `jgd.adamw`.
        trust_coefficient: The length of a step relative to the leaf, before the learning rate.
        eps: Added to the norm of the direction, at least 0.
        trust_ratio_mask: Which leaves are scaled so; the others take plain momentum steps. Biases and norms are often
            left out.
        momentum: Decay rate of the sum of steps, in [0, 1).
        nesterov: Whether that momentum is Nesterov's.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules, with the slot `trace`, one number a
        parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, a mask does not fit the
            params, a leaf is complex, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.lars(1.0), jnp.array([30.0, 40.0])
        >>> updates, state = optimizer.update(jnp.ones(2), optimizer.init(params), params)
        >>> print(updates.round(4))  # a thousandth of the length, 50
        [-0.0354 -0.0354]
    """
    rules = {(d, t): lars_rule(d, t, nesterov) for d in (True, False) for t in (True, False)}

    def choose(params: PyTree) -> PyTree:
        decays = broadcast_mask("lars", weight_decay_mask, params)
        trusts = broadcast_mask("lars", trust_ratio_mask, params)
        return jax.tree.map(lambda d, t: rules[d, t], decays, trusts)

    hyperparams = {"learning_rate": learning_rate, "weight_decay": weight_decay, "eps": eps}
    hyperparams |= {"trust_coefficient": trust_coefficient, "momentum": momentum}
    return lift(list(rules.values()), hyperparams, name="lars", choose=choose, state_dtype=state_dtype, layout=layout)
