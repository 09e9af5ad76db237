r"""L-BFGS: quasi-Newton steps from the last few changes of params and gradients, and a line search.

With $s_i = \theta_i - \theta_{i-1}$, $y_i = g_{i+1} - g_i$ and $\rho_i = 1 / \langle y_i, s_i \rangle$ of the last
`memory_size` steps the direction is $-H_t g_t$, where

$$
H^{(i)} = (1 - \rho_i s_i y_i^\top)\, H^{(i-1)}\, (1 - \rho_i y_i s_i^\top) + \rho_i s_i s_i^\top, \qquad
H^{(0)} = \frac{\langle y_t, s_t \rangle}{\lVert y_t \rVert^2}
$$

computed by two loops. The slots are `params` and `updates` of the last call, `diff_params_memory` and
`diff_updates_memory` with one axis more, and `weights_memory` ($\rho$) for the tree. The line search is optax's.

References:
    - Nocedal and Wright, "Numerical optimization", 2nd edition, 2006, Algorithm 7.4.
"""

import inspect
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jgd.core import (
    Array,
    GradientTransformation,
    Hyper,
    LayoutLike,
    Optimizer,
    PyTree,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    TreeRule,
    fixed_int,
    global_norm,
    lift,
    make_optimizer,
    over_floats,
    zeros,
)


def _vdot(xs: Sequence[Array], ys: Sequence[Array]) -> Any:
    high = jax.lax.Precision.HIGHEST
    return sum(jnp.vdot(x, y, precision=high).real for x, y in zip(xs, ys, strict=True))


def _two_loops(
    grads: list[Array], s_memory: list[Array], y_memory: list[Array], rhos: Array, scale: Array | float, order: Array
) -> list[Array]:
    def right(vector: list[Array], i: Array) -> tuple[list[Array], Array]:
        alpha = rhos[i] * _vdot([s[i] for s in s_memory], vector)
        return [v - alpha.astype(y.real.dtype) * y[i] for v, y in zip(vector, y_memory, strict=True)], alpha

    def left(vector: list[Array], i_alpha: tuple[Array, Array]) -> tuple[list[Array], None]:
        i, alpha = i_alpha
        beta = rhos[i] * _vdot([y[i] for y in y_memory], vector)
        return [v + (alpha - beta).astype(s.real.dtype) * s[i] for v, s in zip(vector, s_memory, strict=True)], None

    vector, alphas = jax.lax.scan(right, grads, order, reverse=True)
    vector = [jnp.asarray(scale, v.real.dtype) * v for v in vector]
    return jax.lax.scan(left, vector, (order, alphas))[0]


def lbfgs_rule(memory_size: int, scales: bool) -> TreeRule:
    """The direction; `scales` scales the first Hessian by the last step."""

    def update(
        grads: list[Array], slots: Slots, params: list[Array], hyper: Hyper, step: Array
    ) -> tuple[list[Array], Slots]:
        started, oldest, newest = step > 1, (step - 1) % memory_size, (step - 2) % memory_size
        s = [jnp.where(started, p - q, 0) for p, q in zip(params, slots["params"], strict=True)]
        y = [jnp.where(started, g - h, 0) for g, h in zip(grads, slots["updates"], strict=True)]
        curvature = _vdot(y, s)
        rho = jnp.where(curvature == 0, 0, 1 / jnp.where(curvature == 0, 1, curvature))
        s_memory = [m.at[newest].set(s_leaf) for m, s_leaf in zip(slots["diff_params_memory"], s, strict=True)]
        y_memory = [m.at[newest].set(y_leaf) for m, y_leaf in zip(slots["diff_updates_memory"], y, strict=True)]
        rhos = slots["weights_memory"].at[newest].set(rho.astype(slots["weights_memory"].dtype))
        scale: Array | float = 1.0
        if scales:
            yy, norm = _vdot(y, y), global_norm(jax.lax.stop_gradient(grads))
            later = jnp.where(yy > 0, curvature / jnp.where(yy > 0, yy, 1), 1)
            scale = jnp.where(started, later, jnp.minimum(1, 1 / jnp.where(norm > 0, norm, 1)))
        order = (oldest + jnp.arange(memory_size)) % memory_size
        direction = _two_loops(grads, s_memory, y_memory, rhos, scale, order)
        new_slots = {
            "params": params,
            "updates": grads,
            "diff_params_memory": s_memory,
            "diff_updates_memory": y_memory,
        }
        return [-hyper["learning_rate"] * d for d in direction], new_slots | {"weights_memory": rhos}

    def memory(param: Array) -> Array:
        return jnp.zeros((memory_size, *param.shape), param.dtype)

    return TreeRule(
        update,
        slots={"params": zeros, "updates": zeros, "diff_params_memory": memory, "diff_updates_memory": memory},
        scalars={"weights_memory": lambda _: jnp.zeros(memory_size)},
        needs_params=True,
        exact=("params", "updates", "diff_params_memory", "diff_updates_memory"),
    )


def lbfgs(
    learning_rate: ScalarOrSchedule | None = None,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: GradientTransformation | Literal["zoom"] | None = "zoom",
    *,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """L-BFGS with a line search.

    `update` must be given what the line search requires: `update(grads, state, params, value=loss, grad=grads,
    value_fn=loss_fn)`. `optax.value_and_grad_from_state` saves an evaluation where the search has made it.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: The length of a step along the direction before the line search, at least 0; None for one.
        memory_size: How many steps to remember, at least 1.
        scale_init_precond: Whether to scale the first Hessian by the curvature along the last step.
        linesearch: A transform such as `optax.scale_by_zoom_linesearch`; `"zoom"` for that with 20 steps at most that
            begins at a step of one; None for no line search.

    Returns:
        An optimizer whose state is a pair, of the direction and of the line search.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, `memory_size` is below 1, or
            `update` is called without params or without what the line search requires.

    Examples:
        >>> import jax, jax.numpy as jnp, jgd
        >>> loss = lambda w: jnp.sum((w - jnp.array([1.0, 2.0])) ** 4)
        >>> optimizer, params = jgd.lbfgs(), jnp.zeros(2)
        >>> @jax.jit
        ... def step(params, state):
        ...     value, grads = jax.value_and_grad(loss)(params)
        ...     updates, state = optimizer.update(grads, state, params, value=value, grad=grads, value_fn=loss)
        ...     return jgd.apply_updates(params, updates), state
        >>> state = optimizer.init(params)
        >>> for _ in range(20):
        ...     params, state = step(params, state)
        >>> print(params.round(1))
        [1. 2.]
    """
    memory_size = fixed_int("lbfgs", "memory_size", memory_size, least=1)
    rate = 1.0 if learning_rate is None else learning_rate
    rule = lbfgs_rule(memory_size, scale_init_precond)
    direction = lift(rule, {"learning_rate": rate}, name="lbfgs", state_dtype=state_dtype, layout=layout)
    if isinstance(linesearch, str):
        linesearch = optax.scale_by_zoom_linesearch(max_linesearch_steps=20, initial_guess_strategy="one")
    chained = optax.chain(direction, optax.identity() if linesearch is None else linesearch)

    def init(params: PyTree) -> PyTree:
        # optax's line search starts with weakly typed numbers, which its first update would make strong.
        arrays = jax.tree.map(lambda p: p if hasattr(p, "dtype") else jnp.asarray(p), params)
        return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), chained.init(arrays))

    def update(grads: PyTree, state: PyTree, params: PyTree = None, **extra: Any) -> tuple[PyTree, PyTree]:
        missing = [name for name in _needs(linesearch) if extra.get(name) is None]
        if missing:
            raise TypeError(
                f"lbfgs: the line search reads {', '.join(missing)}: call update(grads, state, params, value=loss,"
                " grad=grads, value_fn=loss_fn), or give linesearch=None and a learning_rate."
            )
        return chained.update(grads, state, params, **extra)

    return over_floats(make_optimizer(init, update, repr(direction)))


def _needs(linesearch: optax.GradientTransformation | None) -> list[str]:
    """The extra arguments that the line search requires."""
    parameters = [] if linesearch is None else inspect.signature(linesearch.update).parameters.values()
    return [each.name for each in parameters if each.kind is each.KEYWORD_ONLY and each.default is each.empty]
