r"""LAMB: Adam whose step in each leaf is as long as the leaf.

$$
u_t = \hat m_t / (\sqrt{\hat v_t + \epsilon_\text{root}} + \epsilon) + \lambda\, \theta_{t-1}, \qquad
\theta_t = \theta_{t-1} - \eta\, \frac{\lVert \theta_{t-1} \rVert}{\lVert u_t \rVert}\, u_t
$$

with the moments of `jgd.adam`; where either norm is zero the ratio is one. The paper's clipping of $\lVert \theta
\rVert$ is left out, as in optax.

References:
    - You et al., "Large batch optimization for deep learning", https://arxiv.org/abs/1904.00962, 2019, Algorithm 2.
"""

import dataclasses

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
    lift,
)
from jgd.rules._adam import ADAM, adam_update
from jgd.rules.parts._trust_ratio import trust_ratio
from jgd.rules.parts._weight_decay import choose_by_mask


def lamb_rule(decays: bool) -> Rule:
    """The rule, with weight decay or without."""

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        # Adam's own rate is one here: the ratio is that of the direction.
        delta, slots = adam_update(grad, slots, param, hyper, step)
        if decays:
            delta = delta - hyper["weight_decay"] * param
        delta_scale, ratio = trust_ratio(param, delta)
        return hyper["rate"] * ratio * (delta_scale * delta), slots

    def prepare(hyper: Hyper, step: Array) -> Hyper:
        unscaled = ADAM.prepare(hyper | {"learning_rate": hyper["learning_rate"] * 0 + 1}, step)
        return unscaled | {"rate": hyper["learning_rate"]}

    return dataclasses.replace(ADAM, update=update, kind="leaf", needs_params=True, prepare=prepare)


LAMB, DECAYING_LAMB = lamb_rule(False), lamb_rule(True)


def lamb(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-6,
    eps_root: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """LAMB: layer-wise adaptive moments for large batches.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: The length of a step relative to the leaf, at least 0.
        weight_decay: How much of each parameter joins the direction, before its length is taken; at least 0.

    Returns:
        An optimizer with the hyperparameters of `jgd.adam` and `weight_decay`, and its slots `mu`, `nu`.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, the mask does not fit the
            params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.lamb(0.1), jnp.array([30.0, 40.0])
        >>> updates, state = optimizer.update(jnp.ones(2), optimizer.init(params), params)
        >>> print(updates.round(2))  # a tenth of the length, 50
        [-3.54 -3.54]
    """
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    return lift(
        DECAYING_LAMB,
        hyperparams | {"weight_decay": weight_decay},
        name="lamb",
        choose=choose_by_mask("lamb", mask, DECAYING_LAMB, LAMB),
        state_dtype=state_dtype,
        layout=layout,
    )
