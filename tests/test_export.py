"""Every rule's update, and a training step with it, exports for every platform from this one."""

import jax
import jax.numpy as jnp
import pytest
from every_rule import FACTORIES, extra, make, quadratic, small_params

import jgd

PLATFORMS = ["cpu", "cuda", "tpu"]


@pytest.mark.parametrize("name", FACTORIES)
def test_its_update_exports(name):
    optimizer, params = make(name), small_params()

    def update(grads, state, params):
        return optimizer.update(grads, state, params, **extra(name, quadratic, params, grads))

    state = jax.eval_shape(optimizer.init, params)
    exported = jax.export.export(jax.jit(update), platforms=PLATFORMS)(params, state, params)
    assert exported.platforms == tuple(PLATFORMS)


@pytest.mark.parametrize("name", FACTORIES)
def test_a_training_step_with_it_exports(name):
    optimizer = make(name)
    step = jgd.make_step(lambda params, batch: quadratic(params) * jnp.mean(batch), optimizer, donate=False)
    state = jgd.TrainState.create(small_params(), optimizer)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (state, jnp.ones(2)))
    exported = jax.export.export(jax.jit(lambda s, b: step.advance(s, b, jnp.array(True))), platforms=PLATFORMS)(
        *shapes
    )
    assert exported.platforms == tuple(PLATFORMS)
