"""DoG, L-DoG and DoWG: the factories. The formulas are those of `jgd.rules._distance`."""

from typing import Any, Literal

from jgd.core import Mask, Optimizer, Scalar, ScalarOrSchedule, check_hyperparam, lift
from jgd.rules._distance import dog_rule, dowg_rule, ldog_rule
from jgd.rules._weight_decay import coupled_decay

_KINDS = ("distance", "learning_rate", "heuristic")


def dog(
    learning_rate: ScalarOrSchedule = 1.0,
    init_step: tuple[Literal["distance", "learning_rate", "heuristic"], Any] = ("heuristic", 1e-6),
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    *,
    state_dtype: Any = None,
    layout: Any = "auto",
) -> Optimizer:
    """DoG: distance over gradients, a learning rate found by itself.

    Args:
        learning_rate: A factor on the steps, at least 0; one is what the method is for.
        init_step: What the first step is: `("distance", r)`, a length; `("heuristic", share)`, that share of one plus
            the norm of the params; or `("learning_rate", rate)`.
        eps: Added to the sum of squared norms, at least 0.
        weight_decay: How much of each parameter is added to its gradient, at least 0; None for none.
        mask: Which leaves decay; as for `jgd.adamw`.
        state_dtype: The dtype of all slots; None for float32, wider where the param is wider.
        layout: How leaves are laid out while the update runs, see `jgd.core.lift`.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `eps` (and `weight_decay`, `init_step`), the slot
        `init_params`, one number a parameter, and the slots `max_dist` and `sum_sq_norm_grads`, numbers of the tree.

    Raises:
        TypeError, ValueError: A hyperparameter is no finite number or outside its range, `init_step` is not known, the
            mask does not fit, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.dog(init_step=("distance", 0.5)), jnp.zeros(2)
        >>> updates, state = optimizer.update(jnp.array([3.0, 4.0]), optimizer.init(params), params)
        >>> print(updates.round(1))
        [-0.3 -0.4]
    """
    kind, first = init_step
    if kind not in _KINDS:
        known = ", ".join(map(repr, _KINDS))
        raise ValueError(f"dog: init_step must be a pair of one of {known} and a number; got {init_step!r}.")
    if kind != "learning_rate":
        check_hyperparam("dog", "init_step", first, changes=False)
    hyperparams = {"learning_rate": learning_rate, "eps": eps}
    hyperparams |= {"init_step": first} if kind == "learning_rate" else {}
    hyperparams |= {} if weight_decay is None else {"weight_decay": weight_decay}
    before = None if weight_decay is None else coupled_decay("dog", mask)
    rule = dog_rule(kind, first)
    return lift(rule, hyperparams, name="dog", before=before, state_dtype=state_dtype, layout=layout)


def ldog(
    learning_rate: ScalarOrSchedule = 1.0,
    init_step: Scalar = 1e-6,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    *,
    state_dtype: Any = None,
    layout: Any = "auto",
) -> Optimizer:
    """L-DoG: `dog` for each leaf by itself.

    Args:
        learning_rate: A factor on the steps, at least 0; one is what the method is for.
        init_step: The first distance, a share of one plus the norm of the leaf.
        eps: Added to the sum of squared norms, at least 0.
        weight_decay: How much of each parameter is added to its gradient, at least 0; None for none.
        mask: Which leaves decay; as for `jgd.adamw`.
        state_dtype: The dtype of all slots; None for float32, wider where the param is wider.
        layout: How leaves are laid out while the update runs, see `jgd.core.lift`.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `eps` (and `weight_decay`), the slot `init_params`, one
        number a parameter, and the slots `max_dist` and `sum_sq_norm_grads`, one number a leaf.

    Raises:
        TypeError, ValueError: A hyperparameter is no finite number or outside its range, the mask does not fit, or
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
    init_estim_sq_dist: Any = None,
    eps: ScalarOrSchedule = 1e-4,
    weight_decay: ScalarOrSchedule | None = None,
    mask: Mask = None,
    *,
    state_dtype: Any = None,
    layout: Any = "auto",
) -> Optimizer:
    """DoWG: distance over weighted gradients.

    Args:
        learning_rate: A factor on the steps, at least 0; one is what the method is for.
        init_estim_sq_dist: The first squared distance, above 0; None for `eps`.
        eps: Added to the root of the weighted sum, at least 0.
        weight_decay: How much of each parameter is added to its gradient, at least 0; None for none.
        mask: Which leaves decay; as for `jgd.adamw`.
        state_dtype: The dtype of all slots; None for float32, wider where the param is wider.
        layout: How leaves are laid out while the update runs, see `jgd.core.lift`.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `eps` (and `weight_decay`), the slot `init_params`, one
        number a parameter, and the slots `estim_sq_dist` and `weighted_sq_norm_grads`, numbers of the tree.

    Raises:
        TypeError, ValueError: A hyperparameter is no finite number or outside its range, the mask does not fit, or
            `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.dowg(init_estim_sq_dist=0.25), jnp.zeros(2)
        >>> updates, state = optimizer.update(jnp.array([3.0, 4.0]), optimizer.init(params), params)
        >>> print(updates.round(1))
        [-0.3 -0.4]
    """
    first = eps if init_estim_sq_dist is None else init_estim_sq_dist
    if init_estim_sq_dist is None:
        check_hyperparam("dowg", "eps", eps, changes=False)
    hyperparams = {"learning_rate": learning_rate, "eps": eps}
    hyperparams |= {} if weight_decay is None else {"weight_decay": weight_decay}
    before = None if weight_decay is None else coupled_decay("dowg", mask)
    return lift(dowg_rule(first), hyperparams, name="dowg", before=before, state_dtype=state_dtype, layout=layout)
