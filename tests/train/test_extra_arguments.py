"""A training step hands on what optimizers read beside gradients."""

import jax.numpy as jnp
import numpy as np
import pytest

import jgd

CLIMB = jgd.chain(jgd.normalize(), jgd.sgd(0.01))
OPTIMIZERS = {
    "sophia": lambda: jgd.sophia(0.05, b1=0.5, gamma=1.0),
    "sam": lambda: jgd.sam(jgd.sgd(0.1), CLIMB, opaque_mode=True),
    "reduce_on_plateau": lambda: jgd.chain(jgd.sgd(0.1), jgd.reduce_on_plateau()),
    "in a chain": lambda: jgd.chain(jgd.clip_by_global_norm(1.0), jgd.momo_adam(0.1)),
    "in a group": lambda: jgd.groups({"*": jgd.lbfgs()}),
}
# They read what one of those above reads.
MORE_OPTIMIZERS = {"lbfgs": jgd.lbfgs, "polyak_sgd": jgd.polyak_sgd, "momo": jgd.momo}


@pytest.mark.parametrize("name", [*OPTIMIZERS, *(pytest.param(n, marks=pytest.mark.slow) for n in MORE_OPTIMIZERS)])
def test_it_trains(name):
    def loss_fn(params, batch):
        return jnp.mean((batch @ params["w"] - 1.0) ** 2)

    optimizer = (OPTIMIZERS | MORE_OPTIMIZERS)[name]()
    step = jgd.make_step(loss_fn, optimizer)
    state = jgd.TrainState.create({"w": np.zeros(2, np.float32)}, optimizer)
    for _ in range(60):
        state, metrics = step(state, np.float32([[1.0, 0.5], [0.2, 1.0]]))
    assert metrics["loss"] < 0.05
