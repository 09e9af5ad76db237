"""Every flag on every rule: finite, jitted, donated, with a state that keeps its types."""

import jax
import jax.numpy as jnp
import pytest
from every_rule import FACTORIES, FLAGS, extra, make, quadratic, small_params

import jgd


def types_of(tree):
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), leaf.dtype, getattr(leaf, "weak_type", False)), tree)


@pytest.mark.parametrize("name", FACTORIES)
def test_every_flag_works_on_it(name):
    # All flags in one program: what costs here is compilation.
    optimizers = {flag: wrapper(make(name)) for flag, wrapper in FLAGS.items()}
    traces = []

    def steps(params, states):
        traces.append(name)
        new_params, new_states = {}, {}
        for flag, optimizer in optimizers.items():
            p = params[flag]
            value, grads = jax.value_and_grad(quadratic)(p)
            del value
            updates, new_states[flag] = optimizer.update(grads, states[flag], p, **extra(name, quadratic, p, grads))
            new_params[flag] = jgd.apply_updates(p, updates)
        return new_params, new_states

    step = jax.jit(steps, donate_argnums=(0, 1))
    params = {flag: small_params() for flag in FLAGS}
    states = {flag: optimizer.init(params[flag]) for flag, optimizer in optimizers.items()}
    before = types_of((params, states))
    for _ in range(3):
        params, states = step(params, states)
    assert len(traces) == 1
    for flag in FLAGS:
        assert types_of((params[flag], states[flag])) == (before[0][flag], before[1][flag]), flag
        leaves = [
            leaf for leaf in jax.tree.leaves((params[flag], states[flag])) if jnp.issubdtype(leaf.dtype, jnp.inexact)
        ]
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves), flag
        evaluated = jgd.eval_params(states[flag], params[flag])
        assert jax.tree.structure(evaluated) == jax.tree.structure(params[flag])
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(evaluated)), flag
