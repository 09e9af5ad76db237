r"""DoG, L-DoG and DoWG: the learning rate is the distance travelled over the norm of the gradients so far.

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
from typing import Any, Literal

import jax.numpy as jnp

from jgd.core import (
    Array,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    Rule,
    Scalar,
    ScalarOrSchedule,
    Slots,
    StartValue,
    StateDtype,
    TreeRule,
    check_hyperparam,
    full,
    global_norm,
    lift,
    real_zero,
    show_by_name,
    sum_of_squares,
)
from jgd.rules.parts._slots import initial_param, zero
from jgd.rules.parts._weight_decay import coupled_decay

_KINDS = ("distance", "learning_rate", "heuristic")

#: How long the first step is: by which rule, and the number that the rule takes.
FirstStep = tuple[Literal["distance", "learning_rate", "heuristic"], Any]
show_by_name(globals(), "FirstStep")


def _distance(params: list[Array], start: list[Array]) -> Array:
    return global_norm([param - first for param, first in zip(params, start, strict=True)])


def dog_rule(kind: str, init: Scalar) -> TreeRule:
    """DoG; by `kind` its first step is a distance, a share of one plus the params' norm, or a learning rate."""

    def update(
        grads: list[Array], slots: Slots, params: list[Array], hyper: Hyper, step: Array
    ) -> tuple[list[Array], Slots]:
        max_dist = jnp.maximum(slots["max_dist"], _distance(params, slots["init_params"]))
        sum_sq = slots["sum_sq_norm_grads"] + sum_of_squares(grads)
        root = jnp.sqrt(sum_sq + hyper["eps"])
        rate = max_dist / jnp.where(root > 0, root, 1)
        if kind == "learning_rate":
            rate = jnp.where(step == 1, hyper["init_step"], rate)
        deltas = [(-hyper["learning_rate"] * rate).astype(jnp.finfo(grad.dtype).dtype) * grad for grad in grads]
        return deltas, {"init_params": slots["init_params"], "max_dist": max_dist, "sum_sq_norm_grads": sum_sq}

    def first_distance(params: list[Array]) -> Array:
        length = {"distance": init, "heuristic": init * (1 + global_norm(params)), "learning_rate": 0.0}[kind]
        return zero(params) + length

    scalars = {"max_dist": first_distance, "sum_sq_norm_grads": zero}
    return TreeRule(
        update, slots={"init_params": initial_param}, scalars=scalars, needs_params=True, exact=("init_params",)
    )


def ldog_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """L-DoG, on one leaf."""
    del step
    max_dist = jnp.maximum(slots["max_dist"], global_norm(param - slots["init_params"]))
    sum_sq = slots["sum_sq_norm_grads"] + sum_of_squares([grad])
    root = jnp.sqrt(sum_sq + hyper["eps"])
    delta = -hyper["learning_rate"] * max_dist / jnp.where(root > 0, root, 1) * grad
    return delta, {"init_params": slots["init_params"], "max_dist": max_dist, "sum_sq_norm_grads": sum_sq}


def ldog_rule(share: Scalar) -> Rule:
    """L-DoG; its first distance is `share` times one plus the leaf's norm."""

    def first_distance(param: Array) -> Array:
        return (share * (1 + global_norm(param))).astype(jnp.finfo(param.dtype).dtype)

    slots: dict[str, Callable[[Array], Array]]
    slots = {"init_params": initial_param, "max_dist": first_distance, "sum_sq_norm_grads": real_zero}
    return Rule(ldog_update, slots=slots, kind="leaf", needs_params=True, exact=tuple(slots))


def dowg_rule(init_estim: Any) -> TreeRule:
    """DoWG; `init_estim` is its first squared distance."""

    def update(
        grads: list[Array], slots: Slots, params: list[Array], hyper: Hyper, step: Array
    ) -> tuple[list[Array], Slots]:
        del step
        distance = _distance(params, slots["init_params"])
        estim_sq_dist = jnp.maximum(slots["estim_sq_dist"], distance**2)
        weighted_sum_sq = slots["weighted_sq_norm_grads"] + estim_sq_dist * sum_of_squares(grads)
        denominator = jnp.sqrt(weighted_sum_sq) + hyper["eps"]
        rate = hyper["learning_rate"] * estim_sq_dist / jnp.where(denominator > 0, denominator, 1)
        deltas = [-rate.astype(jnp.finfo(grad.dtype).dtype) * grad for grad in grads]
        return deltas, {**slots, "estim_sq_dist": estim_sq_dist, "weighted_sq_norm_grads": weighted_sum_sq}

    scalars = {"estim_sq_dist": lambda params: full(init_estim)(zero(params)), "weighted_sq_norm_grads": zero}
    return TreeRule(
        update, slots={"init_params": initial_param}, scalars=scalars, needs_params=True, exact=("init_params",)
    )


def dog(
    learning_rate: ScalarOrSchedule = 1.0,
    init_step: FirstStep = ("heuristic", 1e-6),
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """DoG: distance over gradients, a learning rate that is not tuned.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: A factor on the steps, at least 0; one is what the method is for.
        init_step: What the first step is: `("distance", r)`, a length; `("heuristic", share)`, that share of one plus
            the norm of the params; or `("learning_rate", rate)`.
        eps: Added to the sum of squared norms, at least 0.
        weight_decay: How much of each parameter is added to its gradient, at least 0; None for no decay.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `eps` (and `weight_decay`, `init_step`), the slot
        `init_params`, one number a parameter, and the slots `max_dist` and `sum_sq_norm_grads`, numbers of the tree.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, `init_step` is not known, the
            mask does not fit, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.dog(init_step=("distance", 0.5)), jnp.zeros(2)
        >>> updates, state = optimizer.update(jnp.array([3.0, 4.0]), optimizer.init(params), params)
        >>> print(updates.round(1))
        [-0.3 -0.4]
    """
    kind, init = init_step
    if kind not in _KINDS:
        known = ", ".join(map(repr, _KINDS))
        raise ValueError(f"dog: init_step must be a pair of one of {known} and a number; got {init_step!r}.")
    if kind != "learning_rate":
        check_hyperparam("dog", "init_step", init, changes=False)
    hyperparams = {"learning_rate": learning_rate, "eps": eps}
    hyperparams |= {"init_step": init} if kind == "learning_rate" else {}
    hyperparams |= {} if weight_decay is None else {"weight_decay": weight_decay}
    before = None if weight_decay is None else coupled_decay("dog", mask)
    rule = dog_rule(kind, init)
    return lift(rule, hyperparams, name="dog", before=before, state_dtype=state_dtype, layout=layout)


def ldog(
    learning_rate: ScalarOrSchedule = 1.0,
    init_step: Scalar = 1e-6,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """L-DoG: `jgd.dog` with norms of each leaf in place of those of the tree.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: A factor on the steps, at least 0; one is what the method is for.
        init_step: The first distance, a share of one plus the norm of the leaf.
        eps: Added to the sum of squared norms, at least 0.
        weight_decay: How much of each parameter is added to its gradient, at least 0; None for no decay.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `eps` (and `weight_decay`), the slot `init_params`, one
        number a parameter, and the slots `max_dist` and `sum_sq_norm_grads`, one number a leaf.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, the mask does not fit, or
            `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.ldog(init_step=0.5), jnp.zeros(2)
        >>> updates, state = optimizer.update(jnp.array([3.0, 4.0]), optimizer.init(params), params)
        >>> print(updates.round(1))
        [-0.3 -0.4]
    """
    hyperparams = {"learning_rate": learning_rate, "eps": eps}
    hyperparams |= {} if weight_decay is None else {"weight_decay": weight_decay}
    before = None if weight_decay is None else coupled_decay("ldog", mask)
    check_hyperparam("ldog", "init_step", init_step, changes=False)
    rule = ldog_rule(init_step)
    return lift(rule, hyperparams, name="ldog", before=before, state_dtype=state_dtype, layout=layout)


def dowg(
    learning_rate: ScalarOrSchedule = 1.0,
    init_estim_sq_dist: StartValue | None = None,
    eps: ScalarOrSchedule = 1e-4,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """DoWG: distance over weighted gradients.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: A factor on the steps, at least 0; one is what the method is for.
        init_estim_sq_dist: The first squared distance, above 0; None for `eps`.
        eps: Added to the root of the weighted sum, at least 0.
        weight_decay: How much of each parameter is added to its gradient, at least 0; None for no decay.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `eps` (and `weight_decay`), the slot `init_params`, one
        number a parameter, and the slots `estim_sq_dist` and `weighted_sq_norm_grads`, numbers of the tree.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, the mask does not fit, or
            `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.dowg(init_estim_sq_dist=0.25), jnp.zeros(2)
        >>> updates, state = optimizer.update(jnp.array([3.0, 4.0]), optimizer.init(params), params)
        >>> print(updates.round(1))
        [-0.3 -0.4]
    """
    init_estim = eps if init_estim_sq_dist is None else init_estim_sq_dist
    if init_estim_sq_dist is None:
        check_hyperparam("dowg", "eps", eps, changes=False)
    hyperparams = {"learning_rate": learning_rate, "eps": eps}
    hyperparams |= {} if weight_decay is None else {"weight_decay": weight_decay}
    before = None if weight_decay is None else coupled_decay("dowg", mask)
    return lift(dowg_rule(init_estim), hyperparams, name="dowg", before=before, state_dtype=state_dtype, layout=layout)
