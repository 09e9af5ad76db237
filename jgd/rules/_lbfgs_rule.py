"""The direction of L-BFGS: two loops over the last steps and changes of the gradient."""

from typing import Any

import jax
import jax.numpy as jnp

from jgd.core import Array, Hyper, Slots, TreeRule, global_norm, zeros


def _vdot(xs: Any, ys: Any) -> Any:
    high = jax.lax.Precision.HIGHEST
    return sum(jnp.vdot(x, y, precision=high).real for x, y in zip(xs, ys, strict=True))


def _two_loops(grads: list[Array], steps: Any, changes: Any, weights: Array, scale: Any, order: Array) -> list[Array]:
    def right(vector: list[Array], i: Array) -> tuple[list[Array], Array]:
        alpha = weights[i] * _vdot([s[i] for s in steps], vector)
        return [v - alpha.astype(y.real.dtype) * y[i] for v, y in zip(vector, changes, strict=True)], alpha

    def left(vector: list[Array], i_alpha: tuple[Array, Array]) -> tuple[list[Array], None]:
        i, alpha = i_alpha
        beta = weights[i] * _vdot([y[i] for y in changes], vector)
        return [v + (alpha - beta).astype(s.real.dtype) * s[i] for v, s in zip(vector, steps, strict=True)], None

    vector, alphas = jax.lax.scan(right, grads, order, reverse=True)
    vector = [jnp.asarray(scale, v.real.dtype) * v for v in vector]
    return jax.lax.scan(left, vector, (order, alphas))[0]


def lbfgs_rule(memory_size: int, scales: bool) -> TreeRule:
    """The direction, with or without a first Hessian scaled by the last step."""

    def update(
        grads: list[Array], slots: Slots, params: list[Array], hyper: Hyper, step: Array
    ) -> tuple[list[Array], Slots]:
        started, now, last = step > 1, (step - 1) % memory_size, (step - 2) % memory_size
        move = [jnp.where(started, p - q, 0) for p, q in zip(params, slots["params"], strict=True)]
        change = [jnp.where(started, g - h, 0) for g, h in zip(grads, slots["updates"], strict=True)]
        curvature = _vdot(change, move)
        weight = jnp.where(curvature == 0, 0, 1 / jnp.where(curvature == 0, 1, curvature))
        steps = [m.at[last].set(s) for m, s in zip(slots["diff_params_memory"], move, strict=True)]
        changes = [m.at[last].set(y) for m, y in zip(slots["diff_updates_memory"], change, strict=True)]
        weights = slots["weights_memory"].at[last].set(weight.astype(slots["weights_memory"].dtype))
        scale: Any = 1.0
        if scales:
            square, norm = _vdot(change, change), global_norm(jax.lax.stop_gradient(grads))
            later = jnp.where(square > 0, curvature / jnp.where(square > 0, square, 1), 1)
            scale = jnp.where(started, later, jnp.minimum(1, 1 / jnp.where(norm > 0, norm, 1)))
        order = (now + jnp.arange(memory_size)) % memory_size
        direction = _two_loops(grads, steps, changes, weights, scale, order)
        new = {"params": params, "updates": grads, "diff_params_memory": steps, "diff_updates_memory": changes}
        return [-hyper["learning_rate"] * d for d in direction], new | {"weights_memory": weights}

    def memory(param: Array) -> Array:
        return jnp.zeros((memory_size, *param.shape), param.dtype)

    return TreeRule(
        update,
        slots={"params": zeros, "updates": zeros, "diff_params_memory": memory, "diff_updates_memory": memory},
        scalars={"weights_memory": lambda _: jnp.zeros(memory_size)},
        needs_params=True,
        exact=("params", "updates", "diff_params_memory", "diff_updates_memory"),
    )
