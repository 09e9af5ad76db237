r"""Optimistic descent: a step that guesses the next gradient, for games and saddle points.

$$
\theta_t = \theta_{t-1} - \eta\, \bigl( (\alpha + \beta)\, u_t - \beta\, u_{t-1} \bigr)
$$

with $u_t$ the gradient, or Adam's direction $\hat m_t / (\sqrt{\hat v_t + \epsilon_\text{root}} + \epsilon)$; $u_0 =
u_1$. The slot `previous_gradient` holds $u_{t-1}$.

References:
    - Mokhtari, Ozdaglar and Pattathil, "A unified analysis of extra-gradient and optimistic gradient methods for saddle
      point problems", https://arxiv.org/abs/1901.08511, 2019.
    - Daskalakis et al., "Training GANs with optimism", https://arxiv.org/abs/1711.00141, 2017, Algorithm 1.
"""

import dataclasses

import jax.numpy as jnp

from jgd.core import (
    NOT_NEGATIVE,
    Array,
    Hyper,
    LayoutLike,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    SlotDtype,
    Slots,
    StateDtype,
    lift,
    zeros,
)
from jgd.rules._adam import ADAM
from jgd.rules.parts._nesterov import NADAM


def optimistic(rule: Rule) -> Rule:
    """The rule, stepping ahead along the change of its direction. The direction must be free of the learning rate."""

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        delta, new_slots = rule.update(grad, slots, param, hyper, step)
        previous = jnp.where(step == 1, -delta, slots["previous_gradient"])
        optimistic_delta = (hyper["alpha"] + hyper["beta"]) * delta + hyper["beta"] * previous
        return hyper["rate"] * optimistic_delta, {**new_slots, "previous_gradient": -delta}

    def prepare(hyper: Hyper, step: Array) -> Hyper:
        unscaled = rule.prepare(hyper | {"learning_rate": jnp.ones_like(hyper["learning_rate"])}, step)
        return unscaled | {"rate": hyper["learning_rate"]}

    slots = {**rule.slots, "previous_gradient": zeros}
    return dataclasses.replace(rule, update=update, slots=slots, prepare=prepare)


def _descent(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    del slots, param, hyper, step
    return -grad, {}


OPTIMISTIC_DESCENT = optimistic(Rule(_descent))
OPTIMISTIC_ADAM, OPTIMISTIC_NADAM = optimistic(ADAM), optimistic(NADAM)
_RANGES = {"alpha": NOT_NEGATIVE, "beta": NOT_NEGATIVE}


def optimistic_gradient_descent(
    learning_rate: ScalarOrSchedule,
    alpha: ScalarOrSchedule = 1.0,
    beta: ScalarOrSchedule = 1.0,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Gradient descent that steps ahead along the change of the gradient.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: Length of a step per unit of gradient, at least 0.
        alpha: Weight of the gradient, at least 0.
        beta: Weight of its change, at least 0.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules, with the slot `previous_gradient`,
        one number a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.optimistic_gradient_descent(0.1)
        >>> state = optimizer.init(jnp.zeros(1))
        >>> for grad in (1.0, 3.0):
        ...     updates, state = optimizer.update(jnp.array([grad]), state)
        >>> print(updates)
        [-0.5]
    """
    hyperparams = {"learning_rate": learning_rate, "alpha": alpha, "beta": beta}
    return lift(
        OPTIMISTIC_DESCENT,
        hyperparams,
        name="optimistic_gradient_descent",
        ranges=_RANGES,
        state_dtype=state_dtype,
        layout=layout,
    )


def optimistic_adam_v2(
    learning_rate: ScalarOrSchedule,
    *,
    alpha: ScalarOrSchedule = 1.0,
    beta: ScalarOrSchedule = 1.0,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: SlotDtype | None = "auto",
    nesterov: bool = True,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Adam that steps ahead along the change of its direction.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: About the size of a step in each parameter, at least 0.
        alpha: Weight of the direction, at least 0.
        beta: Weight of its change, at least 0.
        nesterov: Whether Adam's momentum is Nesterov's.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules, with the slots `mu`, `nu`,
        `previous_gradient`, three numbers a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.optimistic_adam_v2(0.1, nesterov=False)
        >>> print(optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0].round(3))
        [-0.1]
    """
    hyperparams = {"learning_rate": learning_rate, "alpha": alpha, "beta": beta}
    hyperparams |= {"b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    return lift(
        OPTIMISTIC_NADAM if nesterov else OPTIMISTIC_ADAM,
        hyperparams,
        name="optimistic_adam_v2",
        ranges=_RANGES,
        slot_dtypes={"mu": mu_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )
