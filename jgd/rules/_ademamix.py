r"""AdEMAMix: Adam with a second, very slow average of gradients.

$$
\begin{aligned}
m^{(1)}_t &= \beta_1 m^{(1)}_{t-1} + (1-\beta_1)\, g_t, \qquad
m^{(2)}_t = \beta_3 m^{(2)}_{t-1} + (1-\beta_3)\, g_t \\
\theta_t &= \theta_{t-1} - \eta\, \Bigl( \bigl(\hat m^{(1)}_t + \alpha\, m^{(2)}_t\bigr) /
            (\sqrt{\hat v_t + \epsilon_\text{root}} + \epsilon) + \lambda\, \theta_{t-1} \Bigr)
\end{aligned}
$$

with the slots `m1`, `m2` and $v$ (`nu`); only $m^{(1)}$ and $v$ are corrected for their start. The paper warms $\alpha$
up linearly from zero, and $\beta_3$ from $\beta_1$ along its half-life: `jgd.schedules.ademamix_alpha` and
`jgd.schedules.ademamix_b3` make those schedules.

References:
    - Pagliardini, Ablin and Grangier, "The AdEMAMix optimizer: Better, faster, older",
      https://arxiv.org/abs/2409.03137, 2024, Algorithm 1.
"""

from jgd.core import (
    NOT_NEGATIVE,
    Array,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    SlotDtype,
    Slots,
    StateDtype,
    abs_sq,
    real_zeros,
    zeros,
)
from jgd.rules.parts._moments import adam_scales, denominator
from jgd.rules.parts._weight_decay import DecayForm, lift_decayed


def ademamix_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """AdEMAMix, on one leaf."""
    del param, step
    m1 = hyper["b1"] * slots["m1"] + hyper["1-b1"] * grad
    m2 = hyper["b3"] * slots["m2"] + hyper["1-b3"] * grad
    nu = hyper["b2"] * slots["nu"] + hyper["1-b2"] * abs_sq(grad)
    direction = hyper["mu_scale"] * m1 + hyper["learning_rate"] * hyper["alpha"] * m2
    return -direction / denominator(nu, hyper), {"m1": m1, "m2": m2, "nu": nu}


SLOTS = {"m1": zeros, "m2": zeros, "nu": real_zeros}
ADEMAMIX = Rule(ademamix_update, slots=SLOTS, prepare=adam_scales, nonnegative=("nu",))


def ademamix(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 5.0,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: SlotDtype | None = "auto",
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    decay_form: DecayForm = "scaled",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """AdEMAMix: a mixture of a fast and a slow average of gradients.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: About the size of a step in each parameter, at least 0.
        b1: Decay rate of the fast average, in [0, 1).
        b2: Decay rate of the second moment, in [0, 1).
        b3: Decay rate of the slow average, in [0, 1).
        alpha: Weight of the slow average, at least 0.
        mu_dtype: The dtype of the slots `m1` and `m2`; as for `jgd.adam`.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules, with the slots `m1`, `m2`, `nu`,
        three numbers a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, the mask does not fit the
            params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.ademamix(0.1)
        >>> updates, state = optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)), jnp.zeros(1))
        >>> print(updates.round(1))
        [-0.1]
    """
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "b3": b3, "alpha": alpha, "eps": eps}
    return lift_decayed(
        ADEMAMIX,
        hyperparams | {"eps_root": eps_root},
        weight_decay,
        mask,
        decay_form,
        name="ademamix",
        ranges={"alpha": NOT_NEGATIVE},
        slot_dtypes={"m1": mu_dtype, "m2": mu_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )
