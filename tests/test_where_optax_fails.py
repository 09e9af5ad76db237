"""Where optax 0.2.8 is known to fail, one test each; `check_optimizer` asks the rest of every rule."""

import jax
import jax.numpy as jnp
import numpy as np

import jgd


def test_the_second_moment_of_adam_does_not_stall_in_bfloat16():
    params = jnp.ones(8, jnp.bfloat16)
    optimizer = jgd.adam(1e-3, b2=0.999)

    def body(state, _):
        return optimizer.update(jnp.ones(8, jnp.bfloat16), state, params)[1], None

    state = jax.jit(lambda s: jax.lax.scan(body, s, length=3000)[0])(optimizer.init(params))
    # optax keeps it in bfloat16, where 0.999 rounds to one: it stops at 0.5 instead of approaching one.
    np.testing.assert_allclose(state.slots["nu"], 1 - 0.999**3000, rtol=1e-4)


def test_accumulation_recovers_from_a_micro_batch_of_nan():
    optimizer, params = jgd.accumulate(jgd.adam(0.1), 2), jnp.zeros(2)
    state = optimizer.init(params)
    for grad in (1.0, np.nan, 3.0):
        updates, state = optimizer.update(jnp.full(2, grad), state, params)
    expected, _ = jgd.adam(0.1).update(jnp.full(2, 2.0), jgd.adam(0.1).init(params), params)
    np.testing.assert_allclose(updates, expected, rtol=1e-6)


def test_accumulation_runs_the_inner_optimizer_once_in_k_calls():
    calls = []

    def counted(updates, state, params=None, **extra):
        jax.debug.callback(lambda: calls.append(1))
        return updates, state

    inner = jgd.chain(jgd.Optimizer(lambda params: (), counted), jgd.sgd(0.1))
    optimizer = jgd.accumulate(inner, 4)
    state, step = optimizer.init(jnp.zeros(2)), jax.jit(optimizer.update)
    for _ in range(8):
        _, state = step(jnp.ones(2), state, jnp.zeros(2))
    jax.effects_barrier()
    assert len(calls) == 2


def test_the_global_norm_of_float16_does_not_overflow():
    grads = jnp.full(1000, 300.0, jnp.float16)
    updates, _ = jgd.clip_by_global_norm(1.0).update(grads, jgd.clip_by_global_norm(1.0).init(None))
    np.testing.assert_allclose(jnp.linalg.norm(updates.astype(jnp.float32)), 1.0, rtol=1e-2)


def test_muon_takes_a_stack_for_a_stack_of_matrices(rng):
    stack = {"layers": jnp.asarray(rng.normal(size=(3, 4, 5)), jnp.float32)}
    stacked = jgd.muon(0.1, muon_weight_dimension_numbers="stacks")
    updates, _ = stacked.update(stack, stacked.init(stack), stack)
    alone = jgd.muon(0.1)
    for i in range(3):
        matrix = {"layers": stack["layers"][i]}
        expected, _ = alone.update(matrix, alone.init(matrix), matrix)
        np.testing.assert_allclose(updates["layers"][i], expected["layers"], rtol=1e-4, atol=1e-6)
