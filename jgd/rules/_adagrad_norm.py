r"""AdaGrad-Norm: gradient descent whose learning rate, one for all params, falls with the gradients' norms.

$$
b_t^2 = b_{t-1}^2 + \|g_t\|^2, \qquad \theta_t = \theta_{t-1} - \eta\, g_t / (b_t + \epsilon)
$$

with one number $b^2$ (`sum_of_squares`) for the whole tree and the norm over all of its leaves, as in the paper's
theorem: it converges for any $\eta$ and $b_0$, without knowing how smooth the loss is. The authors' code for networks
has such a number for each output of a layer, and the same $\epsilon$ and start.

References:
    - Ward, Wu and Bottou, "AdaGrad stepsizes: Sharp convergence over nonconvex landscapes",
      https://arxiv.org/abs/1806.01811, 2018, Algorithm 1.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from jgd.core import (
    Array,
    Hyper,
    LayoutLike,
    Optimizer,
    ScalarOrSchedule,
    StateDtype,
    TreeRule,
    lift,
    real_dtype,
    sum_of_squares,
)


def adagrad_norm_update(
    grads: list[Array], slots: Mapping[str, Any], params: list[Array], hyper: Hyper, step: Array
) -> tuple[list[Array], Mapping[str, Any]]:
    """One step on all leaves."""
    del params, step
    sum_sq = slots["sum_of_squares"] + sum_of_squares(grads)
    norm = jnp.sqrt(sum_sq) + hyper["eps"]
    step_size = jnp.where(norm > 0, -hyper["learning_rate"] / jnp.where(norm > 0, norm, 1), 0)
    return [step_size.astype(real_dtype(grad.dtype)) * grad for grad in grads], {"sum_of_squares": sum_sq}


def adagrad_norm(
    learning_rate: ScalarOrSchedule,
    initial_accumulator_value: float = 1e-2,
    eps: ScalarOrSchedule = 1e-10,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """AdaGrad with one accumulator: descent that finds its own learning rate.

    Args:
        learning_rate: The length of the first step, about; at least 0. The paper's experiments have one.
        initial_accumulator_value: Where the sum of squares starts, the square of $b_0$; at least 0.
        eps: Added to the norm, at least 0.
        state_dtype: Accepted for uniformity; the one slot is float32, wider where a param is wider.
        layout: Accepted for uniformity; all leaves run at once.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `eps`, and the slot `sum_of_squares`, one number.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
        >>> optimizer = jgd.adagrad_norm(1.0)
        >>> grads = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
        >>> updates, state = optimizer.update(grads, optimizer.init(params))
        >>> print(updates["a"].round(3), updates["b"].round(3))
        [-0.6] [-0.8]
    """

    def initial_value(_: list[Array]) -> Array:
        return jnp.asarray(initial_accumulator_value, float)

    rule = TreeRule(adagrad_norm_update, scalars={"sum_of_squares": initial_value})
    hyperparams = {"learning_rate": learning_rate, "eps": eps}
    return lift(rule, hyperparams, name="adagrad_norm", state_dtype=state_dtype, layout=layout)
