r"""AMSGrad: Adam whose second moment never falls.

$$
\begin{aligned}
\bar v_t &= \max(\bar v_{t-1},\, \hat v_t) \\
\theta_t &= \theta_{t-1} - \eta\, \hat m_t / (\sqrt{\bar v_t + \epsilon_\text{root}} + \epsilon)
\end{aligned}
$$

with $\hat m$ and $\hat v$ of `jgd.adam` and the slot $\bar v$ (`nu_max`). As in optax the largest
value is taken of the *corrected* moment; the paper corrects neither, and `bias_correction_mu=False,
bias_correction_nu=False` gives its form.

References:
    - Reddi, Kale and Kumar, "On the convergence of Adam and beyond", https://arxiv.org/abs/1904.09237, 2018,
      Algorithm 2.
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
    SlotDtype,
    Slots,
    StateDtype,
    check_choice,
    lift,
    real_zeros,
)
from jgd.rules.parts._moments import MOMENT_SLOTS, adam_scales, moments


def amsgrad_rule(correct_mu: bool, correct_nu: bool, late: bool) -> Rule:
    """The rule with or without each of the two corrections; `late` corrects the largest moment, not each."""

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del param, step
        mu, nu = moments(grad, slots, hyper)
        mu_hat = hyper["mu_scale" if correct_mu else "learning_rate"] * mu
        nu_scale = hyper["nu_scale"] if correct_nu else 1
        nu_max = jnp.maximum(slots["nu_max"], nu if late else nu_scale * nu)
        largest = nu_scale * nu_max if late else nu_max
        delta = -mu_hat / (jnp.sqrt(largest + hyper["eps_root"]) + hyper["eps"])
        return delta, {"mu": mu, "nu": nu, "nu_max": nu_max}

    slots = MOMENT_SLOTS | {"nu_max": real_zeros}
    return Rule(update, slots=slots, prepare=adam_scales, nonnegative=("nu", "nu_max"))


def amsgrad(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: SlotDtype | None = "auto",
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    like: Literal["optax", "torch"] = "optax",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Adam with the largest second moment seen so far.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: The largest size of a step in each parameter, about; at least 0.
        bias_correction_mu: Whether to correct the first moment for its start at zero.
        bias_correction_nu: Whether to correct the second, before the largest is taken.
        like: Whose form to follow: `"torch"` takes the largest of the moments as they are, and corrects it.

    Returns:
        An optimizer with the hyperparameters of `jgd.adam`, and the slots `mu`, `nu`, `nu_max`, three
        numbers a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.amsgrad(0.1)
        >>> state = optimizer.init(jnp.zeros(1))
        >>> for grad in (10.0, 1.0):
        ...     updates, state = optimizer.update(jnp.array([grad]), state)
        >>> print(updates.round(4))  # the second, smaller gradient is still divided by the first
        [-0.0526]
    """
    check_choice("amsgrad", "like", like, Literal["optax", "torch"])
    return lift(
        amsgrad_rule(bias_correction_mu, bias_correction_nu, like == "torch"),
        {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root},
        name="amsgrad",
        slot_dtypes={"mu": mu_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )
