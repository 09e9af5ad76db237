"""Many steps as one program, and one step in several parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgd

RNG = np.random.default_rng(0)
STEPS = 100
BATCHES = {"x": RNG.normal(size=(STEPS, 16, 8)).astype(np.float32), "y": RNG.integers(0, 4, size=(STEPS, 16))}
FIRST = jax.tree.map(lambda leaf: leaf[0], BATCHES)


def params():
    rng = np.random.default_rng(1)
    shapes = {"w1": (8, 16), "b1": (16,), "w2": (16, 4), "b2": (4,)}
    return {name: np.asarray(0.3 * rng.normal(size=shape), np.float32) for name, shape in shapes.items()}


def mlp(p, batch):
    hidden = jnp.tanh(batch["x"] @ p["w1"] + p["b1"])
    log_probs = jax.nn.log_softmax(hidden @ p["w2"] + p["b2"])
    return -jnp.mean(jnp.take_along_axis(log_probs, batch["y"][:, None], axis=1))


def noisy_mlp(p, batch, key):
    return mlp(p, batch | {"x": batch["x"] + 0.1 * jax.random.normal(key, batch["x"].shape)})


def stateful_mlp(p, mean, batch):
    return mlp(p, batch), (0.9 * mean + 0.1 * jnp.mean(batch["x"], axis=0), {"mean": jnp.mean(mean)})


def noisy_stateful_mlp(p, mean, batch, key):
    return noisy_mlp(p, batch, key), stateful_mlp(p, mean, batch)[1]


CASES = {
    "chain": (mlp, jgd.chain(jgd.clip_by_global_norm(0.5), jgd.sgd(0.1, momentum=0.9)), {}, {}),
    "all_at_once": (
        noisy_stateful_mlp,
        jgd.adam(1e-2),
        {"accumulate": 2, "on_nonfinite": "skip"},
        {"key": 3, "model_state": np.zeros(8, np.float32)},
    ),
}
# One thing at a time.
MORE_CASES = {
    "adamw": (mlp, jgd.adamw(1e-2), {}, {}),
    "muon": (mlp, jgd.muon(1e-2), {}, {}),
    "lion_skipping": (mlp, jgd.lion(1e-3), {"on_nonfinite": "skip"}, {}),
    "adam_ignoring": (mlp, jgd.adam(1e-2), {"on_nonfinite": "ignore"}, {}),
    "with_a_key": (noisy_mlp, jgd.adam(1e-2), {}, {"key": 3}),
    "with_model_state": (stateful_mlp, jgd.adam(1e-2), {}, {"model_state": np.zeros(8, np.float32)}),
    "accumulating": (mlp, jgd.adam(1e-2), {"accumulate": 4}, {}),
}


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in MORE_CASES)])
def test_a_hundred_steps_in_one_program_equal_a_hundred_calls_bit_for_bit(case):
    loss_fn, optimizer, options, start = (CASES | MORE_CASES)[case]
    step = jgd.make_step(loss_fn, optimizer, **options)
    looped, metrics = jgd.TrainState.create(params(), optimizer, **start), []
    for i in range(STEPS):
        looped, found = step(looped, jax.tree.map(lambda leaf, i=i: leaf[i], BATCHES))
        metrics.append(found)
    scanned, stacked = jgd.scan_steps(step)(jgd.TrainState.create(params(), optimizer, **start), BATCHES)
    if looped.key is not None:
        looped, scanned = (state._replace(key=jax.random.key_data(state.key)) for state in (looped, scanned))
    jax.tree.map(np.testing.assert_array_equal, looped, scanned)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda *rows: np.stack(rows), *metrics), stacked)


def test_a_convolution_in_one_program_equals_the_calls_to_rounding():
    def conv(kernel, batch):
        image = batch["x"].reshape(-1, 4, 2, 1)
        return jnp.mean(
            jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) ** 2
        )

    optimizer = jgd.gradient_descent(0.05)
    step = jgd.make_step(conv, optimizer)
    kernel = np.asarray(np.random.default_rng(2).normal(size=(3, 3, 1, 2)), np.float32)
    looped = jgd.TrainState.create(kernel, optimizer)
    for i in range(10):
        looped, _ = step(looped, jax.tree.map(lambda leaf, i=i: leaf[i], BATCHES))
    few = jax.tree.map(lambda leaf: leaf[:10], BATCHES)
    scanned, _ = jgd.scan_steps(step)(jgd.TrainState.create(kernel, optimizer), few)
    # XLA on CPU compiles convolutions in loops to other code, with sums in another order: some ulp a step.
    np.testing.assert_allclose(scanned.params, looped.params, atol=1e-5)


@pytest.mark.parametrize("rule", ["sgd", pytest.param("adam", marks=pytest.mark.slow)])
def test_four_parts_equal_the_full_batch(rule):
    optimizer = getattr(jgd, rule)(0.05)
    states = []
    for parts in (1, 4):
        step, state = jgd.make_step(mlp, optimizer, accumulate=parts), jgd.TrainState.create(params(), optimizer)
        for _ in range(10):
            state, metrics = step(state, FIRST)
        states.append((state.params, metrics["loss"], metrics["grad_norm"]))
        assert int(state.opt_state.count) == 10  # one update for all parts
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), *states)


def test_parts_are_averaged_in_float32():
    # The parts' gradients are 256 and 1, 1, 1: in bfloat16 256 + 1 is 256, and the mean would be 64.
    def loss(w, batch):
        return jnp.mean(batch.astype(jnp.bfloat16) * w)

    optimizer = jgd.gradient_descent(1.0)
    step = jgd.make_step(loss, optimizer, accumulate=4)
    state = jgd.TrainState.create(jnp.zeros((), jnp.bfloat16), optimizer)
    _, metrics = step(state, jnp.array([256.0, 1.0, 1.0, 1.0]))
    assert float(metrics["grad_norm"]) == 64.75


def test_what_the_parts_report_comes_together_as_for_the_full_batch():
    def loss(w, batch):
        right = batch > 0
        return jnp.mean((w - batch) ** 2), {"share": jnp.mean(right), "count": jnp.sum(right), "each": w - batch}

    optimizer = jgd.sgd(0.0)
    batch = np.random.default_rng(3).normal(size=12).astype(np.float32)
    found = []
    for parts in (1, 3):
        step = jgd.make_step(loss, optimizer, has_aux=True, accumulate=parts)
        found.append(step(jgd.TrainState.create(jnp.zeros(()), optimizer), batch)[1]["aux"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *found)


def test_each_part_has_a_key_of_its_own_and_the_model_state_of_the_part_before():
    def loss(w, calls, batch, key):
        return w * jnp.mean(batch), (calls + 1, {"noise": jax.random.normal(key, (1,)), "calls": calls[None]})

    optimizer = jgd.sgd(0.1)
    step = jgd.make_step(loss, optimizer, accumulate=3)
    state = jgd.TrainState.create(jnp.ones(()), optimizer, key=0, model_state=jnp.zeros(()))
    state, metrics = step(state, jnp.ones(6))
    assert len(set(np.asarray(metrics["aux"]["noise"]).tolist())) == 3
    np.testing.assert_array_equal(metrics["aux"]["calls"], [0, 1, 2])
    assert float(state.model_state) == 3


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"x": jnp.ones((6, 2))}, r"accumulate=4: the batch leaf at \['x'\] has 6 examples; expected a multiple of 4"),
        ({"x": jnp.ones(8), "y": jnp.ones(4)}, r"the batch leaf at \['y'\] has 4 examples; expected 8, as the first"),
        ({"x": jnp.ones(())}, r"the batch leaf at \['x'\] is a scalar; expected an array whose first axis"),
        ({}, r"accumulate=4: the batch holds no arrays"),
    ],
)
def test_a_batch_that_cannot_be_divided(batch, message):
    optimizer = jgd.sgd(0.1)
    step = jgd.make_step(lambda w, batch: w * 1.0, optimizer, accumulate=4)
    with pytest.raises(ValueError, match=message):
        step(jgd.TrainState.create(jnp.ones(()), optimizer), batch)


def test_batches_that_do_not_agree():
    optimizer = jgd.sgd(0.1)
    run = jgd.scan_steps(jgd.make_step(lambda w, batch: w * 1.0, optimizer, donate=False))
    state = jgd.TrainState.create(jnp.ones(()), optimizer)
    with pytest.raises(ValueError, match=r"must have the steps as its first axis; got \[0\] \[2\], \[1\] \[3\]"):
        run(state, (jnp.ones(2), jnp.ones(3)))
    with pytest.raises(ValueError, match=r"batches holds no steps"):
        run(state, jnp.ones((0, 4)))
    with pytest.raises(ValueError, match=r"must have the steps as its first axis; got no leaves"):
        run(state, {})
    with pytest.raises(TypeError, match=r"scan_steps: step must be a jgd\.Step; got the function <lambda>"):
        jgd.scan_steps(lambda state, batch: (state, {}))


def test_one_batch_in_the_place_of_a_stack_of_them():
    def loss(w, batch):
        return jnp.mean((batch["x"] @ w - batch["y"]) ** 2)

    optimizer, batch = jgd.sgd(0.1), {"x": np.ones((8, 3), np.float32), "y": np.ones(8, np.float32)}
    step = jgd.make_step(loss, optimizer, donate=False)
    state = jgd.TrainState.create(jnp.zeros(3), optimizer)
    once, _ = step(state, batch)
    with pytest.raises(ValueError, match=r"has the axes of one batch.*\['x'\] \[8, 3\], \['y'\] \[8\].*leaf\[None\]"):
        jgd.scan_steps(step)(state, batch)
    scanned, _ = jgd.scan_steps(step)(state, jax.tree.map(lambda leaf: leaf[None], batch))
    np.testing.assert_array_equal(scanned.params, once.params)
    jax.vmap(step, (None, 0))(state, jax.tree.map(lambda leaf: np.stack([leaf, leaf]), batch))  # a part is no stack
    jgd.scan_steps(step)(state, jax.tree.map(lambda leaf: leaf[None], batch))


def test_batches_that_are_no_arrays():
    step = jgd.make_step(lambda w, batch: jnp.mean((w - batch["x"]) ** 2), jgd.sgd(0.1), donate=False)
    state = jgd.TrainState.create(jnp.zeros(3), jgd.sgd(0.1))
    for leaf, found in (("text", "'text'"), (np.array(["a"]), "an array of shape"), (object, "the class object")):
        for run, name in ((step, "step: the leaf of batch"), (jgd.scan_steps(step), "scan_steps: the leaf of batches")):
            with pytest.raises(TypeError, match=rf"{name} at \['x'\] is {found}.*expected an array of NumPy or JAX"):
                run(state, {"x": leaf})
    with pytest.raises(ValueError, match=r"step: the leaf of batch at \['x'\] is 10+, which int32 does not hold"):
        step(state, {"x": 10**30})


def test_parts_tell_the_noise_scale():
    def loss(w, batch):
        return jnp.mean((w - batch) ** 2)

    batch = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    step = jgd.make_step(loss, jgd.sgd(0.1), accumulate=4, donate=False)
    state = jgd.TrainState.create(jnp.zeros(()), jgd.sgd(0.1))
    _, metrics = step(state, batch.reshape(24))
    grads = -2 * batch.mean(1)
    small, big = (np.asarray(metrics[name]) ** 2 for name in ("micro_grad_norm", "grad_norm"))
    np.testing.assert_allclose(small, np.mean(grads**2), rtol=1e-5)
    found = jax.jit(lambda small, big: jgd.noise_scale(small, big, 6, 24))(small, big)
    np.testing.assert_allclose(found.trace, 6 * np.var(grads, ddof=1), rtol=1e-4)
    without = jgd.make_step(loss, jgd.sgd(0.1), accumulate=4, norms=False)
    assert "micro_grad_norm" not in jax.eval_shape(without, state, batch.reshape(24))[1]
