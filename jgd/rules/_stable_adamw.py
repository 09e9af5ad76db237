r"""StableAdamW: AdamW whose steps are shortened, leaf by leaf, where gradients outgrow their second moment.

$$
\rho_t = \sqrt{\operatorname{mean}\bigl(|g_t|^2 / \max(\hat v_t,\, \epsilon^2)\bigr)}, \qquad
\theta_t = \theta_{t-1} - \frac{\eta}{\max(1, \rho_t)}
           \bigl(\hat m_t / (\sqrt{\hat v_t} + \epsilon) + \lambda\, \theta_{t-1}\bigr)
$$

with $\hat m$, $\hat v$ and slots of `jgd.adam`. The weight decay is shortened too. It is Adafactor's clipping of
updates, which makes clipping of gradients unnecessary. The defaults are those of the package `torch-optimi`.

References:
    - Wortsman et al., "Stable and low-precision training for large-scale vision-language models",
      https://arxiv.org/abs/2304.13013, 2023, Algorithm 2.
"""

import jax.numpy as jnp

from jgd.core import (
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
    lift,
    root,
)
from jgd.rules.parts._moments import MOMENT_SLOTS, adam_scales, moments
from jgd.rules.parts._weight_decay import choose_by_mask


def stable_adamw_rule(decays: bool) -> Rule:
    """The rule with or without weight decay."""

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del step
        mu, nu = moments(grad, slots, hyper)
        nu_hat = hyper["nu_scale"] * nu
        ratio_sq = abs_sq(grad) / jnp.maximum(nu_hat, hyper["eps"] ** 2)
        divisor = jnp.maximum(root(jnp.sum(ratio_sq) / max(ratio_sq.size, 1)), 1)
        delta = -hyper["mu_scale"] * mu / (jnp.sqrt(nu_hat) + hyper["eps"])
        if decays:
            delta = delta - hyper["learning_rate"] * hyper["weight_decay"] * param
        return delta / divisor, {"mu": mu, "nu": nu}

    return Rule(update, slots=MOMENT_SLOTS, kind="leaf", needs_params=decays, prepare=adam_scales, nonnegative=("nu",))


DECAYING, PLAIN = stable_adamw_rule(True), stable_adamw_rule(False)


def stable_adamw(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.99,
    eps: ScalarOrSchedule = 1e-6,
    mu_dtype: SlotDtype | None = "auto",
    weight_decay: ScalarOrSchedule = 1e-2,
    mask: Mask = None,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """AdamW with Adafactor's clipping of updates.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        eps: Added to the root of the second moment, above 0: its square keeps the clipping from dividing by zero.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `b1`, `b2`, `eps`, `weight_decay`, and the slots `mu`
        and `nu`, two numbers a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, the mask does not fit the
            params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.zeros(1)
        >>> optimizer = jgd.stable_adamw(0.1)
        >>> state = optimizer.init(params)
        >>> for grad in (0.1, 10.0):
        ...     updates, state = optimizer.update(jnp.array([grad]), state, params)
        >>> print(updates.round(3))  # adam would go -0.075
        [-0.053]
    """
    return lift(
        (DECAYING, PLAIN),
        {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "weight_decay": weight_decay},
        name="stable_adamw",
        choose=choose_by_mask("stable_adamw", mask, DECAYING, PLAIN),
        slot_dtypes={"mu": mu_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )
