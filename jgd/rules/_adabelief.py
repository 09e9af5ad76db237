r"""AdaBelief: Adam that divides by how far the gradient is from what was expected.

$$
\begin{aligned}
m_t &= \beta_1 m_{t-1} + (1-\beta_1)\, g_t \\
s_t &= \beta_2 s_{t-1} + (1-\beta_2)\, |g_t - m_t|^2 + \epsilon_\text{root} \\
\theta_t &= \theta_{t-1} - \eta\, \hat m_t / (\sqrt{\hat s_t} + \epsilon)
\end{aligned}
$$

with the slots $m$ (`mu`) and $s$ (`nu`), both corrected for their start at zero. As in the authors' code
$\epsilon_\text{root}$ is added at every step and so accumulates to $\epsilon_\text{root} / (1-\beta_2)$: keep it tiny.

References:
    - Zhuang et al., "AdaBelief optimizer", https://arxiv.org/abs/2010.07468, 2020, Algorithm 2.
"""

import jax.numpy as jnp

from jgd.core import Array, Hyper, LayoutLike, Mask, Optimizer, Rule, ScalarOrSchedule, Slots, StateDtype, abs_sq
from jgd.rules.parts._moments import MOMENT_SLOTS, adam_scales
from jgd.rules.parts._nesterov import nadam_scales
from jgd.rules.parts._weight_decay import DecayForm, lift_decayed


def belief_rule(nesterov: bool) -> Rule:
    """The rule, with Nesterov momentum or without."""

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del param, step
        mu = hyper["b1"] * slots["mu"] + hyper["1-b1"] * grad
        nu = hyper["b2"] * slots["nu"] + hyper["1-b2"] * abs_sq(grad - mu) + hyper["eps_root"]
        direction = hyper["mu_scale"] * mu
        if nesterov:
            direction = direction + hyper["grad_scale"] * grad
        denominator = jnp.sqrt(hyper["nu_scale"] * nu) + hyper["eps"]
        return -direction / jnp.where(denominator > 0, denominator, 1), {"mu": mu, "nu": nu}

    return Rule(update, slots=MOMENT_SLOTS, prepare=nadam_scales if nesterov else adam_scales, nonnegative=("nu",))


BELIEF, NESTEROV_BELIEF = belief_rule(False), belief_rule(True)


def adabelief(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-16,
    eps_root: ScalarOrSchedule = 1e-16,
    *,
    nesterov: bool = False,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    decay_form: DecayForm = "scaled",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """AdaBelief: steps adapted to the belief in the observed gradients.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: About the size of a step in each parameter where gradients are as expected; at least 0.
        eps: Added to the root of the second moment, at least 0.
        eps_root: Added to the second moment at every step, at least 0.
        nesterov: Whether to use Nesterov momentum.
        weight_decay_mask: Which leaves decay; as `mask` of `jgd.adamw`.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `b1`, `b2`, `eps`, `eps_root`, `weight_decay`, and the
        slots `mu`, `nu`, two numbers a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, or the mask does not fit.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.adabelief(0.1)
        >>> updates, state = optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)), jnp.zeros(1))
        >>> print(updates.round(2))  # the first gradient is nine tenths unexpected
        [-0.11]
    """
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    rule = NESTEROV_BELIEF if nesterov else BELIEF
    return lift_decayed(
        rule,
        hyperparams,
        weight_decay,
        weight_decay_mask,
        decay_form,
        name="adabelief",
        state_dtype=state_dtype,
        layout=layout,
    )
