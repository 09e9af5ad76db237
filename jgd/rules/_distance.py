r"""DoG, L-DoG and DoWG: the learning rate is the distance travelled over the gradients met.

$$
\eta_t = \frac{\bar r_t}{\sqrt{\sum_{i \le t} \lVert g_i \rVert^2 + \epsilon}} \ \text{(DoG)}, \qquad
\eta_t = \frac{\bar r_t^2}{\sqrt{\sum_{i \le t} \bar r_i^2 \lVert g_i \rVert^2} + \epsilon} \ \text{(DoWG)}, \qquad
\bar r_t = \max_{i \le t} \lVert \theta_{i-1} - \theta_0 \rVert
$$

and $\theta_t = \theta_{t-1} - \eta\, \eta_t\, g_t$. Norms are those of the whole tree, in L-DoG those of each leaf. The
slots are `init_params` ($\theta_0$), and the numbers `max_dist` ($\bar r$) and `sum_sq_norm_grads`; in DoWG
`estim_sq_dist` ($\bar r^2$) and `weighted_sq_norm_grads`. DoG's authors evaluate an average of the params: see
`jgd.average_params`.

References:
    - Ivgi, Hinder and Carmon, "DoG is SGD's best friend", https://arxiv.org/abs/2302.12022, 2023, eq. 3.
    - Khaled, Mishchenko and Jin, "DoWG unleashed", https://arxiv.org/abs/2305.16284, 2023, Algorithm 1.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jgd.core import Array, Hyper, Rule, Slots, TreeRule, full, global_norm, real_zero, sum_of_squares


def same(param: Array) -> Array:
    """A slot that keeps the first params."""
    return param


def zero(params: list[Array]) -> Array:
    """A number for the whole tree, zero at first."""
    del params
    return jnp.zeros(())


def _distance(params: list[Array], start: list[Array]) -> Array:
    return global_norm([param - first for param, first in zip(params, start, strict=True)])


def dog_rule(kind: str, first: Any) -> TreeRule:
    """DoG with its first step given as a distance, as a share of the params' norm, or as a learning rate."""

    def update(
        grads: list[Array], slots: Slots, params: list[Array], hyper: Hyper, step: Array
    ) -> tuple[list[Array], Slots]:
        farthest = jnp.maximum(slots["max_dist"], _distance(params, slots["init_params"]))
        total = slots["sum_sq_norm_grads"] + sum_of_squares(grads)
        root = jnp.sqrt(total + hyper["eps"])
        rate = farthest / jnp.where(root > 0, root, 1)
        if kind == "learning_rate":
            rate = jnp.where(step == 1, hyper["init_step"], rate)
        deltas = [(-hyper["learning_rate"] * rate).astype(jnp.finfo(grad.dtype).dtype) * grad for grad in grads]
        return deltas, {"init_params": slots["init_params"], "max_dist": farthest, "sum_sq_norm_grads": total}

    def start(params: list[Array]) -> Array:
        length = {"distance": first, "heuristic": first * (1 + global_norm(params)), "learning_rate": 0.0}[kind]
        return zero(params) + length

    scalars = {"max_dist": start, "sum_sq_norm_grads": zero}
    return TreeRule(update, slots={"init_params": same}, scalars=scalars, needs_params=True, exact=("init_params",))


def ldog_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """DoG, on one leaf by itself."""
    del step
    farthest = jnp.maximum(slots["max_dist"], global_norm(param - slots["init_params"]))
    total = slots["sum_sq_norm_grads"] + sum_of_squares([grad])
    root = jnp.sqrt(total + hyper["eps"])
    delta = -hyper["learning_rate"] * farthest / jnp.where(root > 0, root, 1) * grad
    return delta, {"init_params": slots["init_params"], "max_dist": farthest, "sum_sq_norm_grads": total}


def ldog_rule(share: Any) -> Rule:
    """L-DoG, its first distance that share of one plus the leaf's norm."""

    def start(param: Array) -> Array:
        return (share * (1 + global_norm(param))).astype(jnp.finfo(param.dtype).dtype)

    slots: dict[str, Callable[[Array], Array]]
    slots = {"init_params": same, "max_dist": start, "sum_sq_norm_grads": real_zero}
    return Rule(ldog_update, slots=slots, kind="leaf", needs_params=True, exact=tuple(slots))


def dowg_rule(first: Any) -> TreeRule:
    """DoWG, its first squared distance given."""

    def update(
        grads: list[Array], slots: Slots, params: list[Array], hyper: Hyper, step: Array
    ) -> tuple[list[Array], Slots]:
        del step
        distance = _distance(params, slots["init_params"])
        square = jnp.maximum(slots["estim_sq_dist"], distance**2)
        total = slots["weighted_sq_norm_grads"] + square * sum_of_squares(grads)
        denominator = jnp.sqrt(total) + hyper["eps"]
        rate = hyper["learning_rate"] * square / jnp.where(denominator > 0, denominator, 1)
        deltas = [-rate.astype(jnp.finfo(grad.dtype).dtype) * grad for grad in grads]
        return deltas, {**slots, "estim_sq_dist": square, "weighted_sq_norm_grads": total}

    scalars = {"estim_sq_dist": lambda params: full(first)(zero(params)), "weighted_sq_norm_grads": zero}
    return TreeRule(update, slots={"init_params": same}, scalars=scalars, needs_params=True, exact=("init_params",))
