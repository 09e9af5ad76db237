r"""Adam: steps of a size that does not depend on the gradient's scale.

$$
\begin{aligned}
m_t &= \beta_1 m_{t-1} + (1-\beta_1)\, g_t, \qquad \hat m_t = m_t / (1-\beta_1^t) \\
v_t &= \beta_2 v_{t-1} + (1-\beta_2)\, |g_t|^2, \qquad \hat v_t = v_t / (1-\beta_2^t) \\
\theta_t &= \theta_{t-1} - \eta\, \hat m_t / (\sqrt{\hat v_t + \epsilon_\text{root}} + \epsilon)
\end{aligned}
$$

with the slots $m$ (`mu`) and $v$ (`nu`). The Nesterov form takes
$\hat m_t = \beta_1 m_t / (1-\beta_1^{t+1}) + (1-\beta_1)\, g_t / (1-\beta_1^t)$.

$\epsilon$ stands outside the root of the *corrected* $v$, as in the paper's Algorithm 1; TensorFlow adds it
to the uncorrected root. The Nesterov form is optax's: Dozat multiplies $\hat v$ by $\beta_2$ besides, and
PyTorch's NAdam follows a schedule of momenta.

References:
    - Kingma and Ba, "Adam: A method for stochastic optimization", https://arxiv.org/abs/1412.6980, 2014, Algorithm
      1.
    - Dozat, "Incorporating Nesterov momentum into Adam", https://openreview.net/pdf?id=OM0jvwB8jIp57ZJjtNEZ, 2016.
"""

from typing import Any

import jax.numpy as jnp

from jgd.core import (
    Array,
    Hyper,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    Slots,
    abs_sq,
    debias,
    increment,
    lift,
    real_zeros,
    zeros,
)


def adam_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """Kingma and Ba's Adam, on one leaf."""
    del param, step
    mu, nu = moments(grad, slots, hyper)
    mu_hat = hyper["mu_scale"] * mu
    return -mu_hat / denominator(nu, hyper), {"mu": mu, "nu": nu}


def nadam_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """Adam with Nesterov momentum, on one leaf."""
    del param, step
    mu, nu = moments(grad, slots, hyper)
    mu_hat = hyper["mu_scale"] * mu + hyper["grad_scale"] * grad
    return -mu_hat / denominator(nu, hyper), {"mu": mu, "nu": nu}


def moments(grad: Array, slots: Slots, hyper: Hyper) -> tuple[Array, Array]:
    """The averages of the gradient and of its square."""
    mu = hyper["b1"] * slots["mu"] + hyper["1-b1"] * grad
    nu = hyper["b2"] * slots["nu"] + hyper["1-b2"] * abs_sq(grad)
    return mu, nu


def denominator(nu: Array, hyper: Hyper) -> Array:
    """The root of the corrected second moment, kept from zero."""
    return jnp.sqrt(hyper["nu_scale"] * nu + hyper["eps_root"]) + hyper["eps"]


# The corrections and the learning rate are numbers of the step: joined here, they cost nothing on the leaves.


def adam_scales(hyper: Hyper, step: Array) -> Hyper:
    """What to multiply the moments with: the corrections of their start at zero, the learning rate in the first."""
    mu_scale = hyper["learning_rate"] / debias(hyper["1-b1"], step)
    return hyper | {"mu_scale": mu_scale, "nu_scale": 1 / debias(hyper["1-b2"], step)}


def nadam_scales(hyper: Hyper, step: Array) -> Hyper:
    """The same for the Nesterov form, whose momentum is one step ahead."""
    rate, b1, weight = hyper["learning_rate"], hyper["b1"], hyper["1-b1"]
    mu_scale = rate * b1 / debias(weight, increment(step))
    return adam_scales(hyper, step) | {"mu_scale": mu_scale, "grad_scale": rate * weight / debias(weight, step)}


MOMENT_SLOTS = {"mu": zeros, "nu": real_zeros}
ADAM = Rule(adam_update, slots=MOMENT_SLOTS, prepare=adam_scales)
NADAM = Rule(nadam_update, slots=MOMENT_SLOTS, prepare=nadam_scales)


def adam(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: Any = "auto",
    *,
    nesterov: bool = False,
    state_dtype: Any = None,
    layout: Any = "auto",
) -> Optimizer:
    """Adam: adaptive moment estimation.

    Every number may be a scalar array or a schedule as well.

    Args:
        learning_rate: About the size of a step in each parameter, at least 0.
        b1: Decay rate of the average of gradients, in [0, 1).
        b2: Decay rate of the average of squared gradients, in [0, 1).
        eps: Added to the root of the second moment, at least 0.
        eps_root: Added under the root, at least 0; give a small value to differentiate through zero gradients.
        mu_dtype: The dtype of the slot `mu`: `"auto"` for float32, wider where the param is wider; None for the
            param's dtype, as in optax; or a dtype.
        nesterov: Whether to use Nesterov momentum; `nadam` is the same thing.
        state_dtype: The dtype of all slots; it goes before `mu_dtype`.
        layout: How leaves are laid out while the update runs, see `jgd.core.lift`.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `b1`, `b2`, `eps`, `eps_root`, and the slots
        `mu` and `nu`, two numbers a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is no finite number or outside its range.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.adam(0.1)
        >>> updates, state = optimizer.update(jnp.array([3.0, -0.002]), optimizer.init(jnp.zeros(2)))
        >>> print(updates.round(3))
        [-0.1  0.1]
    """
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    return lift(
        NADAM if nesterov else ADAM,
        hyperparams,
        name="adam",
        slot_dtypes={"mu": mu_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )


def nadam(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: Any = "auto",
    *,
    nesterov: bool = True,
    state_dtype: Any = None,
    layout: Any = "auto",
) -> Optimizer:
    """Adam with Nesterov momentum: `adam` with `nesterov=True`, which see for arguments, state and errors.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.nadam(0.1)
        >>> updates, state = optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))
        >>> print(updates.round(3))
        [-0.147]
    """
    return adam(
        learning_rate, b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, state_dtype=state_dtype, layout=layout
    )
