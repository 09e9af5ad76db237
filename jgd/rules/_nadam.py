r"""NAdam and NAdamW: Adam and AdamW with Nesterov momentum, in the three forms that are in use.

$$
\theta_t = \theta_{t-1} - \eta\, \tilde m_t / (\sqrt{\hat v_t + \epsilon_\text{root}} + \epsilon)
$$

with the moments of `jgd.adam`, in NAdamW the decay of `jgd.adamw`, and

| `nesterov_form` | $\tilde m_t$ |
| --- | --- |
| `"optax"` | $\beta_1 m_t / (1-\beta_1^{t+1}) + (1-\beta_1)\, g_t / (1-\beta_1^t)$ |
| `"algoperf"` | $(\beta_1 m_t + (1-\beta_1)\, g_t) / (1-\beta_1^t)$ |
| `"torch"` | $\mu_{t+1} m_t / (1 - \prod_{i \le t+1} \mu_i) + (1-\mu_t)\, g_t / (1 - \prod_{i \le t} \mu_i)$ |

where $\mu_t = \beta_1 (1 - \tfrac12\, 0.96^{\psi t})$, $\psi$ is the hyperparameter `momentum_decay`, and the product
stands in the slot `mu_product`, one number a leaf. Dozat's paper multiplies $\hat v$ by $\beta_2$ besides, which none
of the forms does.

References:
    - Dozat, "Incorporating Nesterov momentum into Adam", https://openreview.net/pdf?id=OM0jvwB8jIp57ZJjtNEZ, 2016,
      Algorithm 2.
"""

from typing import Literal

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
    check_choice,
    lift,
    real_dtype,
    show_by_name,
)
from jgd.rules._adam import ADAM
from jgd.rules.parts._moments import MOMENT_SLOTS, adam_scales, denominator, moments
from jgd.rules.parts._nesterov import NADAM, nadam_update
from jgd.rules.parts._weight_decay import DecayForm, lift_decayed

NesterovForm = Literal["optax", "algoperf", "torch"]
show_by_name(globals(), "NesterovForm")


def scheduled_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """PyTorch's form, whose momentum follows a schedule of its own."""
    del param, step
    mu, nu = moments(grad, slots, hyper)
    mu_product = slots["mu_product"] * hyper["momentum_now"]
    grad_scale = hyper["learning_rate"] * (1 - hyper["momentum_now"]) / (1 - mu_product)
    mu_scale = hyper["learning_rate"] * hyper["momentum_next"] / (1 - mu_product * hyper["momentum_next"])
    return -(mu_scale * mu + grad_scale * grad) / denominator(nu, hyper), {"mu": mu, "nu": nu, "mu_product": mu_product}


def algoperf_scales(hyper: Hyper, step: Array) -> Hyper:
    """What to multiply the moments with in the form of AlgoPerf: one correction for both."""
    scales = adam_scales(hyper, step)
    return scales | {"mu_scale": hyper["b1"] * scales["mu_scale"], "grad_scale": hyper["1-b1"] * scales["mu_scale"]}


def scheduled_momenta(hyper: Hyper, step: Array) -> Hyper:
    """This step's momentum and the next one's."""
    t = step.astype(hyper["b1"].dtype)
    now, ahead = (hyper["b1"] * (1 - 0.5 * 0.96 ** (i * hyper["momentum_decay"])) for i in (t, t + 1))
    return adam_scales(hyper, step) | {"momentum_now": now, "momentum_next": ahead}


ALGOPERF = Rule(nadam_update, slots=MOMENT_SLOTS, prepare=algoperf_scales, nonnegative=("nu",))
TORCH = Rule(
    scheduled_update,
    slots=MOMENT_SLOTS | {"mu_product": lambda param: jnp.ones((), real_dtype(param.dtype))},
    kind="leaf",
    prepare=scheduled_momenta,
    nonnegative=("nu",),
)


def nesterov_rule(form: NesterovForm) -> Rule:
    """The rule in that form."""
    check_choice("nadam", "nesterov_form", form, NesterovForm)
    return {"optax": NADAM, "algoperf": ALGOPERF, "torch": TORCH}[form]


def nadam(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: SlotDtype | None = "auto",
    *,
    nesterov: bool = True,
    nesterov_form: NesterovForm = "optax",
    momentum_decay: ScalarOrSchedule = 0.004,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Adam with Nesterov momentum: `jgd.adam` with `nesterov=True`.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        nesterov: False makes this `jgd.adam`.
        nesterov_form: Whose form to follow; see the table above.
        momentum_decay: How fast the momentum approaches `b1` in PyTorch's form, at least 0; else not used.

    Returns:
        An optimizer with the hyperparameters and slots of `jgd.adam`; in PyTorch's form with the hyperparameter
        `momentum_decay` and the slot `mu_product`, one number a leaf, as well.

    Raises:
        TypeError, ValueError: As for `jgd.adam`; there is no such `nesterov_form`.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.nadam(0.1)
        >>> updates, state = optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))
        >>> print(updates.round(3))
        [-0.147]
    """
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    hyperparams |= {"momentum_decay": momentum_decay} if nesterov_form == "torch" else {}
    return lift(
        nesterov_rule(nesterov_form) if nesterov else ADAM,
        hyperparams,
        name="nadam",
        slot_dtypes={"mu": mu_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )


def nadamw(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: SlotDtype | None = "auto",
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    nesterov: bool = True,
    nesterov_form: NesterovForm = "optax",
    momentum_decay: ScalarOrSchedule = 0.004,
    decay_form: DecayForm = "scaled",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """AdamW with Nesterov momentum: `jgd.adamw` with `nesterov=True`.

    Arguments that are not described here are those of `jgd.nadam` and `jgd.adamw`.

    Args:
        nesterov: False makes this `jgd.adamw`.

    Returns:
        An optimizer with the hyperparameters and slots of `jgd.nadam`, and the hyperparameter `weight_decay`.

    Raises:
        TypeError, ValueError: As for `jgd.adamw`; there is no such `nesterov_form`.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.nadamw(0.1, weight_decay=0.0)
        >>> updates, state = optimizer.update(jnp.ones(1), optimizer.init(jnp.ones(1)), jnp.ones(1))
        >>> print(updates.round(3))
        [-0.147]
    """
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    hyperparams |= {"momentum_decay": momentum_decay} if nesterov_form == "torch" else {}
    return lift_decayed(
        nesterov_rule(nesterov_form) if nesterov else ADAM,
        hyperparams,
        weight_decay,
        mask,
        decay_form,
        name="nadamw",
        slot_dtypes={"mu": mu_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )
