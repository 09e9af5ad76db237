r"""Rprop: a step size for each parameter, longer while the gradient keeps its sign.

$$
s_t = \begin{cases} \min(\eta_+ s_{t-1}, s_\text{max}) & g_t g_{t-1} > 0 \\
                    \max(\eta_- s_{t-1}, s_\text{min}) & g_t g_{t-1} < 0 \\ s_{t-1} & \text{otherwise} \end{cases}
\qquad \theta_t = \theta_{t-1} - s_t \operatorname{sign}(g_t)
$$

with no step, and $g_t$ forgotten, where the sign has changed. The slots are `step_sizes` and `prev_updates`, the last
gradient's sign times its step. optax 0.2.8, and so the default, takes every step one call late: it returns the step
of the gradient before. `like="torch"` takes it at once, as the papers and PyTorch do. For full batches:
noise in the sign shortens the steps.

References:
    - Riedmiller and Braun, "A direct adaptive method for faster backpropagation learning: The RPROP algorithm", 1993;
      Igel and Huesken, "Improving the Rprop learning algorithm", 2000 (iRprop-, the form here).
"""

from typing import Literal

import jax.numpy as jnp

from jgd.core import (
    POSITIVE,
    Array,
    Hyper,
    LayoutLike,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    Slots,
    StartValue,
    StateDtype,
    check_choice,
    check_hyperparam,
    full,
    lift,
    zeros,
)


def rprop_rule(late: bool, init_step_size: StartValue) -> Rule:
    """The rule; `late` takes each step one call late."""

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del param, step
        agreement = grad * slots["prev_updates"]
        factor = jnp.where(agreement > 0, hyper["eta_plus"], hyper["eta_minus"])
        scaled_size = jnp.clip(slots["step_sizes"] * factor, hyper["min_step_size"], hyper["max_step_size"])
        step_size = jnp.where(agreement == 0, slots["step_sizes"], scaled_size)
        signed_step = jnp.where(agreement < 0, 0, step_size * jnp.sign(grad))
        applied = jnp.where(agreement < 0, 0, slots["prev_updates"]) if late else signed_step
        return -applied, {"step_sizes": step_size, "prev_updates": signed_step}

    slots = {"step_sizes": full(init_step_size), "prev_updates": zeros}
    return Rule(update, slots=slots, supports_complex=False, nonnegative=("step_sizes",))


def rprop(
    learning_rate: StartValue,
    eta_minus: ScalarOrSchedule = 0.5,
    eta_plus: ScalarOrSchedule = 1.2,
    min_step_size: ScalarOrSchedule = 1e-6,
    max_step_size: ScalarOrSchedule = 50.0,
    *,
    like: Literal["optax", "torch"] = "optax",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Rprop: resilient backpropagation.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: The first step of every parameter, at least 0. It stands in the state as `step_sizes`, and is no
            hyperparameter afterwards.
        eta_minus: Factor on the step size where the gradient changes its sign, in (0, 1).
        eta_plus: Factor where it keeps it, above 1.
        min_step_size: The smallest step size.
        max_step_size: The largest.
        like: Whose form to follow; see the notes above.

    Returns:
        An optimizer with the hyperparameters `eta_minus`, `eta_plus`, `min_step_size`, `max_step_size`, and the slots
        `step_sizes`, `prev_updates`, two numbers a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, or a leaf is complex.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.rprop(0.1, like="torch")
        >>> state = optimizer.init(jnp.zeros(1))
        >>> for grad in (3.0, 0.5):
        ...     updates, state = optimizer.update(jnp.array([grad]), state)
        >>> print(updates.round(3))
        [-0.12]
    """
    check_choice("rprop", "like", like, Literal["optax", "torch"])
    check_hyperparam("rprop", "learning_rate", learning_rate, changes=False)
    rule = rprop_rule(like == "optax", learning_rate)
    hyperparams = {
        "eta_minus": eta_minus,
        "eta_plus": eta_plus,
        "min_step_size": min_step_size,
        "max_step_size": max_step_size,
    }
    positive = dict.fromkeys(hyperparams, POSITIVE)
    return lift(rule, hyperparams, name="rprop", ranges=positive, state_dtype=state_dtype, layout=layout)
