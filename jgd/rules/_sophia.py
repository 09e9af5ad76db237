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
import optax

from jgd.core import (
    Array,
    GradientTransformation,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    OptState,
    PyTree,
    Rule,
    ScalarOrSchedule,
    SlotDtype,
    Slots,
    StateDtype,
    debias,
    make_optimizer,
    over_floats,
    zeros,
)
from jgd.rules._curvature import hutchinson
from jgd.rules.parts._weight_decay import DecayForm, lift_decayed


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


def print_win_rate(updates: PyTree, state: OptState, every: ScalarOrSchedule) -> None:
    """Prints the share of entries that are not clipped, every so many steps."""
    limit = state.hyperparams["learning_rate"] * state.hyperparams.get("clip_threshold", jnp.inf)
    leaves = jax.tree.leaves(updates)
    rate = sum(jnp.sum(jnp.abs(u) < 0.999 * limit) for u in leaves) / max(sum(u.size for u in leaves), 1)
    due = jnp.mod(state.count, jnp.maximum(jnp.asarray(every, jnp.int32), 1)) == 0
    jax.lax.cond(due, lambda: jax.debug.print("sophia: share of entries not clipped {}", rate), lambda: None)


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
    hessian_diagonal_fn: GradientTransformation = HUTCHINSON,
    mu_dtype: SlotDtype | None = "auto",
    verbose: bool = False,
    print_win_rate_every_n_steps: ScalarOrSchedule = 0,
    *,
    decay_form: DecayForm = "scaled",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Sophia: second-order clipped stochastic optimization.

    `update` must be given what the estimator requires; the default one: `update(grads, state, params, obj_fn=loss)`.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: The largest size of a step in each parameter over `clip_threshold`, at least 0.
        b1: Decay rate of the average of gradients, in [0, 1).
        b2: Decay rate of the average of curvatures, in [0, 1).
        eps: The smallest curvature to divide by, at least 0.
        weight_decay_mask: Which leaves decay; as `mask` of `jgd.adamw`.
        gamma: A factor on the curvature; smaller clips more.
        clip_threshold: The largest entry of a direction, above 0; None for no bound.
        update_interval: Steps between two estimates of the curvature.
        hessian_diagonal_fn: The estimator, a transform whose update returns the diagonal.
        verbose: Whether to print the share of entries that are not clipped.
        print_win_rate_every_n_steps: Steps between two prints.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `b1`, `b2`, `eps`, `gamma`, `update_interval`,
        `weight_decay` (and `clip_threshold`), the slots `mu`, `nu`, two numbers a parameter, and `hessian_state`.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, a leaf is complex, the
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
        new_state: Any
        updates, new_state = inner.update(grads, state._replace(slots=slots), params)
        hyper = new_state.hyperparams

        def estimate() -> tuple[PyTree, PyTree]:
            diagonals, new_hessian_state = estimator.update(grads, hessian_state, params=params, **extra)

            def average(old: Array, diagonal: Array) -> Array:
                b2_ = hyper["b2"].astype(old.dtype)
                return b2_ * old + (1 - b2_) * diagonal.astype(old.dtype)

            return jax.tree.map(average, slots["nu"], diagonals), new_hessian_state

        due = jnp.mod(state.count, hyper["update_interval"].astype(jnp.int32)) == 0
        nu, hessian_state = jax.lax.cond(due, estimate, lambda: (slots["nu"], hessian_state))
        if verbose:
            print_win_rate(updates, new_state, print_win_rate_every_n_steps)
        return updates, new_state._replace(slots=new_state.slots | {"nu": nu, "hessian_state": hessian_state})

    return over_floats(make_optimizer(init, update, repr(inner)))
