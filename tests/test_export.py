"""Every rule's update, and a training step with it, exports for every platform from this one."""

import jax
import jax.numpy as jnp
from cases import RULES
from small_problem import quadratic, small_params
from tiers import over

import jgd

PLATFORMS = ["cpu", "cuda", "tpu"]


@over("rule", RULES, fast=lambda rule: rule.stands_for)
def test_its_update_exports(rule):
    optimizer, params = rule.make(), small_params()

    def update(grads, state, params):
        return optimizer.update(grads, state, params, **rule.extra(quadratic, params, grads))

    state = jax.eval_shape(optimizer.init, params)
    exported = jax.export.export(jax.jit(update), platforms=PLATFORMS)(params, state, params)
    assert exported.platforms == tuple(PLATFORMS)


@over("rule", RULES, fast=lambda rule: rule.name in ("adamw", "muon"))
def test_a_training_step_with_it_exports(rule):
    optimizer = rule.make()
    step = jgd.make_step(lambda params, batch: quadratic(params) * jnp.mean(batch), optimizer, donate=False)
    state = jgd.TrainState.create(small_params(), optimizer)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (state, jnp.ones(2)))
    exported = jax.export.export(jax.jit(lambda s, b: step.advance(s, b, jnp.array(True))), platforms=PLATFORMS)(
        *shapes
    )
    assert exported.platforms == tuple(PLATFORMS)
