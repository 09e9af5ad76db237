r"""ASGD: stochastic gradient descent whose params are averaged, after Polyak, Ruppert and Xu.

$$
\begin{aligned}
\eta_t &= \eta / (1 + \lambda \eta\, (t-1))^{\alpha} \\
\theta_t &= \theta_{t-1} - \eta_t\, (g_t + \lambda\, \theta_{t-1}) \\
\bar\theta_t &= \bar\theta_{t-1} + (\theta_t - \bar\theta_{t-1}) / \max(1,\, t - 1 - t_0)
\end{aligned}
$$

with the slot $\bar\theta$ (`average`), the params to evaluate. Until step $t_0 + 1$ they equal $\theta$; from then on
they are the mean since. The form is PyTorch's, whose $t_0$ of a million means no averaging in most runs: set it. Under
a schedule of learning rates PyTorch's $\eta_t$ is one step late, ours is not.

References:
    - Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 30, 1992.
    - Xu, "Towards optimal one pass large scale learning with averaged stochastic gradient descent",
      https://arxiv.org/abs/1107.2490, 2011, Section 2.
"""

import jax.numpy as jnp

from jgd.core import NOT_NEGATIVE, Array, Hyper, LayoutLike, Mask, Optimizer, Rule, ScalarOrSchedule, Slots, StateDtype
from jgd.rules.parts._slots import initial_param
from jgd.rules.parts._weight_decay import lift_decayed


def asgd_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """A step of descent and one of the average, on one leaf."""
    del step
    delta = -hyper["eta"] * (grad + hyper["lambd"] * param)
    new_param, weight = param + delta, hyper["ax_weight"]
    average = slots["average"] + weight * (new_param - slots["average"])
    return delta, {"average": jnp.where(weight < 1, average, new_param)}


def _rates(hyper: Hyper, step: Array) -> Hyper:
    before = (step - 1).astype(hyper["t0"].dtype)
    eta = hyper["learning_rate"] / (1 + hyper["lambd"] * hyper["learning_rate"] * before) ** hyper["alpha"]
    return hyper | {"eta": eta, "ax_weight": 1 / jnp.maximum(before - hyper["t0"], 1)}


ASGD = Rule(asgd_update, slots={"average": initial_param}, needs_params=True, prepare=_rates, exact=("average",))


def asgd(
    learning_rate: ScalarOrSchedule,
    lambd: ScalarOrSchedule = 1e-4,
    alpha: ScalarOrSchedule = 0.75,
    t0: ScalarOrSchedule = 1e6,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Averaged stochastic gradient descent.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: Length of the first step per unit of gradient, at least 0.
        lambd: How fast the learning rate falls, and the share of each parameter, times the learning rate, that a step
            takes away; at least 0.
        alpha: The power with which the learning rate falls.
        t0: The step after which averaging starts.
        weight_decay: How much of each parameter is added to its gradient, at least 0.
        mask: Which leaves have `weight_decay`; as for `jgd.adamw`.
        state_dtype: The dtype of the slot, which holds averaged params: at least as precise as the params' own.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `lambd`, `alpha`, `t0`, `weight_decay`, and the slot
        `average`, one number a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, the mask does not fit the
            params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.zeros(1)
        >>> optimizer = jgd.asgd(0.1, lambd=0.0, t0=0)
        >>> state = optimizer.init(params)
        >>> for _ in range(4):
        ...     updates, state = optimizer.update(jnp.ones(1), state, params)
        ...     params = jgd.apply_updates(params, updates)
        >>> print(params.round(3), state.slots["average"].round(3))  # the mean of -0.2, -0.3, -0.4
        [-0.4] [-0.3]
    """
    return lift_decayed(
        ASGD,
        {"learning_rate": learning_rate, "lambd": lambd, "alpha": alpha, "t0": t0},
        weight_decay,
        mask,
        "coupled",
        name="asgd",
        ranges={"lambd": NOT_NEGATIVE, "alpha": NOT_NEGATIVE, "t0": NOT_NEGATIVE},
        state_dtype=state_dtype,
        layout=layout,
    )
