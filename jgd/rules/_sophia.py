"""Sophia: the factory. The formula is that of `jgd.rules._sophia_rule`."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jgd.core import Array, Mask, Optimizer, OptState, PyTree, ScalarOrSchedule, make_optimizer, over_floats
from jgd.rules._curvature import hutchinson
from jgd.rules._sophia_rule import print_win_rate, sophia_rule
from jgd.rules._weight_decay import DecayForm, lift_decayed

HUTCHINSON = hutchinson()


def sophia(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.965,
    b2: ScalarOrSchedule = 0.99,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    weight_decay_mask: Mask = None,
    gamma: ScalarOrSchedule = 0.01,
    clip_threshold: ScalarOrSchedule | None = 1.0,
    update_interval: ScalarOrSchedule = 10,
    hessian_diagonal_fn: optax.GradientTransformation = HUTCHINSON,
    mu_dtype: Any = "auto",
    verbose: bool = False,
    print_win_rate_every_n_steps: ScalarOrSchedule = 0,
    *,
    decay_form: DecayForm = "scaled",
    state_dtype: Any = None,
    layout: Any = "auto",
) -> Optimizer:
    """Sophia: second-order clipped stochastic optimization.

    `update` must be given what the estimator asks for; the default one: `update(grads, state, params, obj_fn=loss)`.

    Args:
        learning_rate: The largest size of a step in each parameter over `clip_threshold`, at least 0.
        b1: Decay rate of the average of gradients, in [0, 1).
        b2: Decay rate of the average of curvatures, in [0, 1).
        eps: The smallest curvature to divide by, at least 0.
        weight_decay: The share of each parameter, times the learning rate, that a step takes away; at least 0.
        weight_decay_mask: Which leaves decay; as `mask` of `jgd.adamw`.
        gamma: A factor on the curvature; smaller clips more.
        clip_threshold: The largest entry of a direction, above 0; None for no bound.
        update_interval: After how many steps the curvature is estimated anew.
        hessian_diagonal_fn: The estimator, a transform whose update returns the diagonal.
        mu_dtype: The dtype of the slot `mu`; as for `jgd.adam`.
        verbose: Whether to print the share of entries that are not clipped.
        print_win_rate_every_n_steps: How often to.
        decay_form: How the decay enters; as for `jgd.adamw`.
        state_dtype: The dtype of all slots; None for float32, wider where the param is wider.
        layout: How leaves are laid out while the update runs, see `jgd.core.lift`.

    Returns:
        An optimizer with the hyperparameters of the numbers above and the slots `mu`, `nu`, two numbers a parameter,
        and `hessian_state`.

    Raises:
        TypeError, ValueError: A hyperparameter is no finite number or outside its range, a leaf is complex, the
            mask does not fit, or `update` is called without params.

    Examples:
        >>> import jax, jax.numpy as jnp, jgd
        >>> loss = lambda w: jnp.sum(jnp.array([1.0, 50.0]) * w**2)
        >>> optimizer, params = jgd.sophia(0.02, b1=0.9, gamma=1.0), jnp.array([1.0, 1.0])
        >>> state = optimizer.init(params)
        >>> step = jax.jit(lambda params, state: optimizer.update(jax.grad(loss)(params), state, params, obj_fn=loss))
        >>> for _ in range(100):
        ...     updates, state = step(params, state)
        ...     params = jgd.apply_updates(params, updates)
        >>> print(bool(jnp.all(jnp.abs(params) < 0.2)))
        True
    """
    estimator = optax.with_extra_args_support(hessian_diagonal_fn)
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "gamma": gamma}
    hyperparams |= {"update_interval": update_interval}
    hyperparams |= {} if clip_threshold is None else {"clip_threshold": clip_threshold}
    inner = lift_decayed(
        sophia_rule(clip_threshold is not None),
        hyperparams,
        weight_decay,
        weight_decay_mask,
        decay_form,
        name="sophia",
        slot_dtypes={"mu": mu_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )

    def init(params: PyTree) -> OptState:
        state: Any = inner.init(params)
        return state._replace(slots=state.slots | {"hessian_state": estimator.init(params)})

    def update(grads: PyTree, state: OptState, params: PyTree = None, **extra: Any) -> tuple[PyTree, OptState]:
        slots = dict(state.slots)
        hessian_state = slots.pop("hessian_state")
        new: Any
        updates, new = inner.update(grads, state._replace(slots=slots), params)
        hyper = new.hyperparams

        def estimate() -> tuple[PyTree, PyTree]:
            found, found_state = estimator.update(grads, hessian_state, params=params, **extra)

            def mix(old: Array, diagonal: Array) -> Array:
                b2_ = hyper["b2"].astype(old.dtype)
                return b2_ * old + (1 - b2_) * diagonal.astype(old.dtype)

            return jax.tree.map(mix, slots["nu"], found), found_state

        due = jnp.mod(state.count, hyper["update_interval"].astype(jnp.int32)) == 0
        nu, hessian_state = jax.lax.cond(due, estimate, lambda: (slots["nu"], hessian_state))
        if verbose:
            print_win_rate(updates, new, print_win_rate_every_n_steps)
        return updates, new._replace(slots=new.slots | {"nu": nu, "hessian_state": hessian_state})

    return over_floats(make_optimizer(init, update, repr(inner)))
