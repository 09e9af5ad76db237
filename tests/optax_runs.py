"""A small problem on which optax's optimizers and jgd's run side by side."""

import functools

import jax
import jax.numpy as jnp
import optax

CURVATURE = {"w": jnp.arange(1.0, 7.0).reshape(2, 3), "b": jnp.array([0.5, 2.0, 3.0])}


def loss_fn(params):
    leaves = jax.tree.map(lambda c, p: jnp.sum(c * (p - 0.3) ** 2), CURVATURE, params)
    return sum(jax.tree.leaves(leaves))


def first_params(dtype=None):
    return {"w": jnp.linspace(0.5, 2.0, 6, dtype=dtype).reshape(2, 3), "b": jnp.ones(3, dtype)}


@functools.cache
def make_step(optimizer, *names):
    """One step, compiled once; the update is given what it reads beside the gradients."""
    optimizer = optax.with_extra_args_support(optimizer)

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(loss_fn)(params)
        known = {"value": value, "grad": grads, "value_fn": loss_fn, "obj_fn": loss_fn}
        extra = {name: known[name] for name in names}
        updates, state = optimizer.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    return step


def run(optimizer, params, state, steps, *names):
    step = make_step(optimizer, *names)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def largest_difference(a, b):
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
