"""Runs an optax-like optimizer over the seeded problem of the golden traces, all steps as one scan."""

import jax
import jax.numpy as jnp
import numpy as np
from problem import RECORDED, gradient, leaf_loss, problem


def run_trace(optimizer, row, read=None):
    """The params after each recorded step, all leaves in one vector; `read(state, params)` in their place if given."""
    start, target, curvature, noise = jax.tree.map(jnp.asarray, problem(row.leaves))

    def loss_of(params, noise_t):
        return sum(leaf_loss(params[name], noise_t[name], target[name], curvature[name]) for name in row.leaves)

    def body(carry, noise_t):
        params, state = carry
        grads = {name: gradient(params[name], noise_t[name], target[name], curvature[name]) for name in row.leaves}

        def objective(p):
            return loss_of(p, noise_t)

        known = {
            "value": lambda: objective(params),
            "grad": lambda: grads,
            "value_fn": lambda: objective,
            "obj_fn": lambda: objective,
            "grad_fn": lambda: lambda p, _: jax.grad(objective)(p),
        }
        extra = {name: known[name]() for name in row.extra}
        updates, state = optimizer.update(grads, state, params, **extra)
        params = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, updates)
        return (params, state), params if read is None else read(state, params)

    _, history = jax.jit(lambda carry: jax.lax.scan(body, carry, noise))((start, optimizer.init(start)))
    return {
        step: np.concatenate([np.asarray(history[name][step - 1], np.float64).ravel() for name in row.leaves])
        for step in RECORDED
    }
