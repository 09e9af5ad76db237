r"""AggMo: the mean of several momenta, the slow ones kept from swinging by the fast ones.

$$
m^{(i)}_t = \beta_i\, m^{(i)}_{t-1} + g_t, \qquad
\theta_t = \theta_{t-1} - \frac{\eta}{K} \sum_{i=1}^{K} m^{(i)}_t
$$

with the slots $m^{(i)}$ (`trace_0`, `trace_1` and so on). Gradients enter each with weight one, as in `jgd.sgd`.

References:
    - Lucas et al., "Aggregated momentum: Stability through passive damping", https://arxiv.org/abs/1804.00325, 2018,
      eq. 4.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import (
    DECAY_RATE,
    Array,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    Reals,
    Rule,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    check_kind,
    show_by_name,
    zeros,
)
from jgd.rules.parts._weight_decay import DecayForm, lift_decayed

Betas = Sequence[float] | Array
show_by_name(globals(), "Betas")


def aggmo_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """A step along the mean of all momenta, on one leaf."""
    del param, step
    # counted, not listed: "trace_10" sorts before "trace_2"
    traces = {f"trace_{i}": hyper["betas"][i] * slots[f"trace_{i}"] + grad for i in range(len(slots))}
    return -hyper["learning_rate"] / len(traces) * sum(traces.values()), traces


def aggmo(
    learning_rate: ScalarOrSchedule,
    betas: Betas = (0.0, 0.9, 0.99),
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    decay_form: DecayForm = "coupled",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Aggregated momentum.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: Length of a step per unit of gradient, at least 0.
        betas: Decay rates of the momenta, each in [0, 1). The authors' are $1 - 0.1^i$ for `i` from zero.
        weight_decay: How much of each parameter is added to its gradient, at least 0.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `betas` (an array), `weight_decay`, and the slots
        `trace_0`, `trace_1` and so on, each of one number a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, `betas` is no vector, the mask
            does not fit the params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.zeros(1)
        >>> optimizer = jgd.aggmo(0.1, betas=(0.0, 0.5))
        >>> state = optimizer.init(params)
        >>> for _ in range(2):
        ...     updates, state = optimizer.update(jnp.ones(1), state, params)
        >>> print(updates.round(4))  # the mean of 1 and 1.5
        [-0.125]
    """
    check_kind("aggmo", "betas", betas, Reals)
    rates: Any = betas if isinstance(betas, jax.Array) else np.asarray(betas, float)
    if jnp.ndim(rates) != 1 or rates.size == 0:
        raise ValueError(f"aggmo: betas must be a vector of decay rates; got {betas!r}.")
    return lift_decayed(
        Rule(aggmo_update, slots={f"trace_{i}": zeros for i in range(rates.size)}),
        {"learning_rate": learning_rate, "betas": rates},
        weight_decay,
        mask,
        decay_form,
        name="aggmo",
        arrays=("betas",),
        ranges={"betas": DECAY_RATE},
        state_dtype=state_dtype,
        layout=layout,
    )
