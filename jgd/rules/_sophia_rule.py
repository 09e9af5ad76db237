r"""Sophia: momentum over the curvature of each parameter, clipped.

$$
m_t = \beta_1 m_{t-1} + (1-\beta_1)\, g_t, \qquad
\theta_t = \theta_{t-1} - \eta\, \bigl( \operatorname{clip}(\hat m_t / \max(\gamma\, h_{t-1}, \epsilon),\ \pm\rho)
           + \lambda\, \theta_{t-1} \bigr)
$$

and every `update_interval` steps, after the step, $h_t = \beta_2 h_{t-1} + (1-\beta_2)\, \hat h_t$ with an estimate
$\hat h_t$ of the diagonal of the Hessian (`jgd.rules.hutchinson`, Sophia-H) or of the Gauss-Newton matrix
(`jgd.rules.gauss_newton`, Sophia-G). The slots are $m$ (`mu`), $h$ (`nu`) and the estimator's own `hessian_state`. As
in optax the momentum is corrected for its start at zero, which the paper does not do.

References:
    - Liu et al., "Sophia: A scalable stochastic second-order optimizer for language model pre-training",
      https://arxiv.org/abs/2305.14342, 2023, Algorithms 1 to 3.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jgd.core import Array, Hyper, OptState, PyTree, Rule, Slots, debias, zeros


def sophia_rule(clips: bool) -> Rule:
    """The rule for one leaf; its curvature is given."""

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del param
        mu = hyper["b1"] * slots["mu"] + hyper["1-b1"] * grad
        floor = jnp.maximum(hyper["gamma"] * slots["nu"], hyper["eps"])
        direction = mu / debias(hyper["1-b1"], step) / jnp.where(floor > 0, floor, 1)
        if clips:
            direction = jnp.clip(direction, -hyper["clip_threshold"], hyper["clip_threshold"])
        return -hyper["learning_rate"] * direction, {"mu": mu, "nu": slots["nu"]}

    # the curvature is averaged outside of the rule, on the state itself
    return Rule(update, slots={"mu": zeros, "nu": zeros}, supports_complex=False, exact=("nu",))


def print_win_rate(updates: PyTree, state: OptState, every: Any) -> None:
    """Prints the share of entries that are not clipped, every so many steps."""
    limit = state.hyperparams["learning_rate"] * state.hyperparams.get("clip_threshold", jnp.inf)
    leaves = jax.tree.leaves(updates)
    rate = sum(jnp.sum(jnp.abs(u) < 0.999 * limit) for u in leaves) / max(sum(u.size for u in leaves), 1)
    due = jnp.mod(state.count, jnp.maximum(jnp.asarray(every, jnp.int32), 1)) == 0
    jax.lax.cond(due, lambda: jax.debug.print("sophia: share of entries not clipped {}", rate), lambda: None)
