r"""Adam-atan2: Adam without epsilon, and so without a scale of the gradient below which it slows down.

$$
\theta_t = \theta_{t-1} - \eta\, \bigl(a \operatorname{atan2}(\hat m_t,\, b \sqrt{\hat v_t}) + \lambda\,
           \theta_{t-1}\bigr)
$$

with $\hat m$ and $\hat v$ of `jgd.adam`. As $\operatorname{atan2}(x, y)$ is near $x / y$ for small $x / y$ and at most
$\pi/2$, no step is larger than $\eta\, a\, \pi / 2$; where the gradient was always zero, neither is the step.

The paper leaves $a$ and $b$ open; $a = 1.27$, near $4 / \pi$, with $b = 1$ gives steps of length $\eta$ where
$\hat m = \sqrt{\hat v}$. These defaults and `b2=0.99` are those of the package `adam-atan2-pytorch`.

References:
    - Everett et al., "Scaling exponents across parameterizations and optimizers", https://arxiv.org/abs/2407.05872,
      2024, Section 4.3.
"""

import jax.numpy as jnp

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
    debias,
)
from jgd.rules.parts._moments import MOMENT_SLOTS, moments
from jgd.rules.parts._weight_decay import DecayForm, lift_decayed


def adam_atan2_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """Adam with an arc tangent in place of the quotient, on one leaf."""
    del param, step
    mu, nu = moments(grad, slots, hyper)
    angle = jnp.arctan2(hyper["mu_scale"] * mu, jnp.sqrt(hyper["nu_scale"] * nu))
    return -hyper["rate"] * angle, {"mu": mu, "nu": nu}


def _scales(hyper: Hyper, step: Array) -> Hyper:
    return hyper | {
        "mu_scale": 1 / debias(hyper["1-b1"], step),
        "nu_scale": hyper["b"] ** 2 / debias(hyper["1-b2"], step),
        "rate": hyper["learning_rate"] * hyper["a"],
    }


# arctan2 takes real numbers alone.
ADAM_ATAN2 = Rule(adam_atan2_update, slots=MOMENT_SLOTS, supports_complex=False, prepare=_scales, nonnegative=("nu",))


def adam_atan2(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.99,
    a: ScalarOrSchedule = 1.27,
    b: ScalarOrSchedule = 1.0,
    mu_dtype: SlotDtype | None = "auto",
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    decay_form: DecayForm = "scaled",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Adam with an arc tangent in place of the division: scale-invariant, and no epsilon to choose.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: About the size of a step in each parameter, at least 0.
        a: The factor on the angle, at least 0.
        b: The factor on the root of the second moment, at least 0.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `b1`, `b2`, `a`, `b`, `weight_decay`, and the slots `mu`
        and `nu`, two numbers a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, a leaf is complex, the mask
            does not fit the params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.zeros(3)
        >>> optimizer = jgd.adam_atan2(0.1)
        >>> updates, state = optimizer.update(jnp.array([3.0, -1e-12, 0.0]), optimizer.init(params), params)
        >>> print(updates.round(3))  # adam would divide the second by its epsilon
        [-0.1  0.1 -0. ]
    """
    return lift_decayed(
        ADAM_ATAN2,
        {"learning_rate": learning_rate, "b1": b1, "b2": b2, "a": a, "b": b},
        weight_decay,
        mask,
        decay_form,
        name="adam_atan2",
        ranges={"a": NOT_NEGATIVE, "b": NOT_NEGATIVE},
        slot_dtypes={"mu": mu_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )
