r"""NAdam: Adam with Nesterov momentum, in the three forms that are in use.

$$
\theta_t = \theta_{t-1} - \eta\, \tilde m_t / (\sqrt{\hat v_t + \epsilon_\text{root}} + \epsilon)
$$

with the moments of `jgd.adam` and

| `nesterov_form` | $\tilde m_t$ |
| --- | --- |
| `"optax"` | $\beta_1 m_t / (1-\beta_1^{t+1}) + (1-\beta_1)\, g_t / (1-\beta_1^t)$ |
| `"algoperf"` | $(\beta_1 m_t + (1-\beta_1)\, g_t) / (1-\beta_1^t)$ |
| `"torch"` | $\mu_{t+1} m_t / (1 - \prod_{i \le t+1} \mu_i) + (1-\mu_t)\, g_t / (1 - \prod_{i \le t} \mu_i)$ |

where $\mu_t = \beta_1 (1 - \tfrac12\, 0.96^{\psi t})$, $\psi$ is the hyperparameter `momentum_decay`, and the product
stands in the slot `mu_product`, one number a leaf. Dozat's paper multiplies $\hat v$ by $\beta_2$ besides, which none
does.

References:
    - Dozat, "Incorporating Nesterov momentum into Adam", https://openreview.net/pdf?id=OM0jvwB8jIp57ZJjtNEZ, 2016,
      Algorithm 2.
"""

from typing import Literal

import jax.numpy as jnp

from jgd.core import Array, Hyper, Rule, Slots, check_choice, debias, increment, real_dtype
from jgd.rules.parts._moments import MOMENT_SLOTS, adam_scales, denominator, moments

NesterovForm = Literal["optax", "algoperf", "torch"]


def nadam_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """Adam with Nesterov momentum, on one leaf."""
    del param, step
    mu, nu = moments(grad, slots, hyper)
    mu_hat = hyper["mu_scale"] * mu + hyper["grad_scale"] * grad
    return -mu_hat / denominator(nu, hyper), {"mu": mu, "nu": nu}


def scheduled_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """PyTorch's form, whose momentum follows a schedule of its own."""
    del param, step
    mu, nu = moments(grad, slots, hyper)
    product = slots["mu_product"] * hyper["momentum_now"]
    grad_scale = hyper["learning_rate"] * (1 - hyper["momentum_now"]) / (1 - product)
    mu_scale = hyper["learning_rate"] * hyper["momentum_next"] / (1 - product * hyper["momentum_next"])
    return -(mu_scale * mu + grad_scale * grad) / denominator(nu, hyper), {"mu": mu, "nu": nu, "mu_product": product}


def nadam_scales(hyper: Hyper, step: Array) -> Hyper:
    """What to multiply the moments with, the momentum one step ahead."""
    rate, b1, weight = hyper["learning_rate"], hyper["b1"], hyper["1-b1"]
    mu_scale = rate * b1 / debias(weight, increment(step))
    return adam_scales(hyper, step) | {"mu_scale": mu_scale, "grad_scale": rate * weight / debias(weight, step)}


def algoperf_scales(hyper: Hyper, step: Array) -> Hyper:
    """The same with one correction for both."""
    scales = adam_scales(hyper, step)
    return scales | {"mu_scale": hyper["b1"] * scales["mu_scale"], "grad_scale": hyper["1-b1"] * scales["mu_scale"]}


def scheduled_momenta(hyper: Hyper, step: Array) -> Hyper:
    """This step's momentum and the next one's."""
    t = step.astype(hyper["b1"].dtype)
    now, ahead = (hyper["b1"] * (1 - 0.5 * 0.96 ** (i * hyper["momentum_decay"])) for i in (t, t + 1))
    return adam_scales(hyper, step) | {"momentum_now": now, "momentum_next": ahead}


NADAM = Rule(nadam_update, slots=MOMENT_SLOTS, prepare=nadam_scales, nonnegative=("nu",))
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
