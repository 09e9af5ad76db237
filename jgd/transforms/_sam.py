r"""Sharpness-aware minimization: the gradient is taken where the loss is worst nearby.

$$
\hat\theta = \theta + \rho\, g(\theta) / \lVert g(\theta) \rVert, \qquad
\theta \leftarrow \theta + \operatorname{opt}\bigl(g(\hat\theta)\bigr)
$$

In the transparent mode the climb and the descent are calls of their own, and the params between them are $\hat\theta$.
In the opaque mode `update` calls `grad_fn(params, i)` itself.

References:
    - Foret et al., "Sharpness-aware minimization for efficiently improving generalization",
      https://arxiv.org/abs/2010.01412, 2020, Algorithm 1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jgd.core import (
    Array,
    GradientTransformation,
    Optimizer,
    PyTree,
    apply_updates,
    cast_like,
    fixed_int,
    make_optimizer,
    map_floats,
    transform_text,
    tree_where,
    zero_update,
)


class SAMState(NamedTuple):
    """Calls since the last descent, the states of both optimizers, and the params to come back to."""

    steps_since_sync: Array
    opt_state: PyTree
    adv_state: PyTree
    cache: PyTree


def _where_cast(condition: Array, if_true: PyTree, if_false: PyTree) -> PyTree:
    return tree_where(condition, cast_like(if_true, if_false), if_false)


def _ascent(climb: PyTree) -> PyTree:
    return map_floats(jnp.negative, climb)


def sam(
    optimizer: GradientTransformation,
    adv_optimizer: GradientTransformation,
    sync_period: int = 2,
    reset_state: bool = True,
    opaque_mode: bool = False,
    batch_axis_name: str | None = None,
) -> Optimizer:
    """Sharpness-aware minimization around any optimizer.

    Args:
        optimizer: The one that descends.
        adv_optimizer: The one whose descent is turned into the climb: `chain(normalize(), sgd(rho))` for the paper's.
        sync_period: Calls for one descent, at least 1; one less than it are climbs.
        reset_state: Whether the climbing optimizer's state is reset after each descent.
        opaque_mode: Whether `update` does it all in one call, and is given `grad_fn`.
        batch_axis_name: In the opaque mode, the mapped axis over which gradients are averaged.

    Returns:
        An optimizer whose state is a `SAMState`.

    Raises:
        TypeError, ValueError: An optimizer is not one, `sync_period` is below 1, or `update` lacks `params`, or
            `grad_fn` in the opaque mode.

    Examples:
        >>> import jax, jax.numpy as jnp, jgd
        >>> loss = lambda w: jnp.sum(w**2)
        >>> climb = jgd.chain(jgd.normalize(), jgd.sgd(0.05))
        >>> optimizer, params = jgd.sam(jgd.sgd(0.1), climb, opaque_mode=True), jnp.array([3.0, 4.0])
        >>> state, grad_fn = optimizer.init(params), lambda w, _: jax.grad(loss)(w)
        >>> updates, state = optimizer.update(jax.grad(loss)(params), state, params, grad_fn=grad_fn)
        >>> print(updates.round(2))
        [-0.61 -0.81]
    """
    sync_period = fixed_int("sam", "sync_period", sync_period, least=1)
    inner, climber = optax.with_extra_args_support(optimizer), optax.with_extra_args_support(adv_optimizer)

    def init(params: PyTree) -> SAMState:
        cache = None if opaque_mode else jax.tree.map(lambda p: jnp.array(p, copy=True), params)
        return SAMState(jnp.zeros((), jnp.int32), inner.init(params), climber.init(params), cache)

    def transparent(grads: PyTree, state: SAMState, params: PyTree = None, **extra: Any) -> tuple[PyTree, SAMState]:
        if params is None:
            raise ValueError("sam: it reads the params: call update(grads, state, params); got params=None.")
        is_first, is_last = state.steps_since_sync == 0, state.steps_since_sync == sync_period - 1
        climb, adv_state = climber.update(grads, state.adv_state, params)
        cache = _where_cast(is_first, params, state.cache)
        descent, opt_state = inner.update(grads, state.opt_state, cache, **extra)
        # Back to where the climb began, and down from there.
        updates = map_floats(
            lambda p, c, u, v: jnp.where(is_last, c - p + u, -v).astype(jnp.result_type(v)),
            *(params, cache, descent, climb),
            others=zero_update,
        )
        reset_adv_state = climber.init(params) if reset_state else state.adv_state
        return updates, SAMState(
            steps_since_sync=(state.steps_since_sync + 1) % sync_period,
            opt_state=_where_cast(is_last, opt_state, state.opt_state),
            adv_state=_where_cast(is_last, reset_adv_state, adv_state),
            cache=cache,
        )

    def opaque(
        grads: PyTree,
        state: SAMState,
        params: PyTree = None,
        *,
        grad_fn: Callable[[PyTree, int], PyTree] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, SAMState]:
        if grad_fn is None or params is None:
            raise ValueError("sam: grad_fn must be provided when opaque_mode=True, and params.")
        climbed, adv_state = params, state.adv_state
        for i in range(sync_period - 1):
            climb, adv_state = climber.update(grads, adv_state, climbed)
            climbed = apply_updates(climbed, _ascent(climb))
            grads = grad_fn(climbed, i)
            if batch_axis_name is not None:
                grads = jax.lax.pmean(grads, axis_name=batch_axis_name)
        adv_state = climber.init(params) if reset_state else adv_state
        updates, opt_state = inner.update(grads, state.opt_state, params, **extra)
        return updates, SAMState(jnp.zeros((), jnp.int32), opt_state, adv_state, None)

    label = f"jgd.sam({transform_text(optimizer)}, {transform_text(adv_optimizer)})"
    return make_optimizer(init, opaque if opaque_mode else transparent, label)
