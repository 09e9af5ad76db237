r"""AdaGrad: each parameter's step shrinks with the sum of its squared gradients.

$$
s_t = s_{t-1} + |g_t|^2, \qquad \theta_t = \theta_{t-1} - \eta\, g_t / \sqrt{s_t + \epsilon}
$$

with the slot $s$ (`sum_of_squares`), which starts at `initial_accumulator_value`. The form is optax's and
TensorFlow's. `like="torch"` is PyTorch's: the sum starts at zero, $\epsilon$ is added to its root, and the learning
rate falls as $\eta / (1 + (t-1)\,\gamma)$ with $\gamma$ the hyperparameter `lr_decay`.

References:
    - Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning and stochastic optimization", JMLR 12,
      2011.
"""

from typing import Literal

import jax.numpy as jnp

from jgd.core import (
    Array,
    Hyper,
    LayoutLike,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    abs_sq,
    check_choice,
    full,
    lift,
)


def adagrad_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """AdaGrad with epsilon under the root, on one leaf."""
    del param, step
    sum_sq = slots["sum_of_squares"] + abs_sq(grad)
    shifted = sum_sq + hyper["eps"]
    inverse = jnp.where(shifted > 0, 1 / jnp.sqrt(jnp.where(shifted > 0, shifted, 1)), 0)
    return -hyper["learning_rate"] * inverse * grad, {"sum_of_squares": sum_sq}


def torch_adagrad_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """AdaGrad with epsilon beside the root and a falling learning rate, on one leaf."""
    del param
    sum_sq = slots["sum_of_squares"] + abs_sq(grad)
    step_size = hyper["learning_rate"] / (1 + (step - 1) * hyper["lr_decay"])
    denominator = jnp.sqrt(sum_sq) + hyper["eps"]
    return jnp.where(denominator > 0, -step_size * grad / jnp.where(denominator > 0, denominator, 1), 0), {
        "sum_of_squares": sum_sq
    }


def adagrad(
    learning_rate: ScalarOrSchedule,
    initial_accumulator_value: ScalarOrSchedule = 0.1,
    eps: ScalarOrSchedule = 1e-7,
    *,
    like: Literal["optax", "torch"] = "optax",
    lr_decay: ScalarOrSchedule = 0.0,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """AdaGrad: adaptive subgradient descent.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: The size of the first step in each parameter, about; at least 0.
        initial_accumulator_value: Where the sum of squares starts; at least 0.
        eps: Added to the sum (to its root in PyTorch's form), at least 0.
        like: Whose form to follow; see the notes above.
        lr_decay: How fast the learning rate falls, in PyTorch's form alone.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `eps` (and `lr_decay`), and the slot `sum_of_squares`,
        one number a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.adagrad(0.1, initial_accumulator_value=0.0)
        >>> state = optimizer.init(jnp.zeros(1))
        >>> for _ in range(4):
        ...     updates, state = optimizer.update(jnp.array([3.0]), state)
        >>> print(updates.round(3))  # the fourth step is half the first
        [-0.05]
    """
    check_choice("adagrad", "like", like, Literal["optax", "torch"])
    hyperparams = {"learning_rate": learning_rate, "eps": eps}
    if like == "torch":
        update, hyperparams = torch_adagrad_update, hyperparams | {"lr_decay": lr_decay}
    else:
        update = adagrad_update
    rule = Rule(update, slots={"sum_of_squares": full(initial_accumulator_value)}, nonnegative=("sum_of_squares",))
    return lift(rule, hyperparams, name="adagrad", state_dtype=state_dtype, layout=layout)
