"""The training state and the training step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jgd

BATCH = {"x": np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32), "y": np.arange(8, dtype=np.float32) / 8}
METRICS = {"loss", "grad_norm", "update_norm", "param_norm", "learning_rate", "finite"}


def params():
    return {"w": jnp.asarray(np.float32([0.5, -1.0, 2.0])), "b": jnp.asarray(np.float32(0.1))}


def loss_fn(p, batch):
    return jnp.mean((batch["x"] @ p["w"] + p["b"] - batch["y"]) ** 2)


def trees_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_state_has_six_fields_and_owns_its_memory():
    mine = params()
    optimizer = jgd.adam(0.1)
    state = jgd.TrainState.create(mine, optimizer, key=0)
    assert state._fields == ("step", "params", "opt_state", "key", "model_state", "guard")
    step = jgd.make_step(lambda p, batch, key: loss_fn(p, batch), optimizer)
    step(state, BATCH)
    np.testing.assert_array_equal(mine["w"], [0.5, -1.0, 2.0])  # donating the state has left it alone


SHARING = {
    "dog": optax.contrib.dog(),
    "prodigy": optax.contrib.prodigy(),
    "cocob": optax.contrib.cocob(),
    "lbfgs": optax.lbfgs(linesearch=None),
    "adam": optax.adam(0.1),
}


@pytest.mark.parametrize("name", SHARING)
def test_no_buffer_is_in_a_state_twice_where_optimizers_of_optax_share_theirs(name):
    state = jgd.TrainState.create(params(), SHARING[name])
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(pointers)) == len(pointers)


@pytest.mark.parametrize(
    "name", ["prodigy", *(pytest.param(n, marks=pytest.mark.slow) for n in SHARING if n != "prodigy")]
)
def test_optimizers_of_optax_that_share_buffers_can_be_donated_too(name):
    step, state = jgd.make_step(loss_fn, SHARING[name]), jgd.TrainState.create(params(), SHARING[name])
    for _ in range(2):
        state, metrics = step(state, BATCH)
    assert np.isfinite(metrics["loss"])
    assert np.isnan(metrics["learning_rate"])  # these keep none in their state


def test_the_metrics_are_those_of_the_step():
    optimizer = jgd.gradient_descent(lambda count: 0.1 + 0.1 * count)
    step = jgd.make_step(loss_fn, optimizer, donate=False)
    state = jgd.TrainState.create(params(), optimizer)
    new, metrics = step(state, BATCH)
    loss, grads = jax.jit(jax.value_and_grad(loss_fn))(state.params, BATCH)
    assert set(metrics) == METRICS

    def norm(tree):
        return np.linalg.norm(np.append(np.asarray(tree["w"], np.float64), tree["b"]))

    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], norm(grads), rtol=1e-6)
    np.testing.assert_allclose(metrics["update_norm"], 0.1 * norm(grads), rtol=1e-6)
    np.testing.assert_allclose(metrics["param_norm"], norm(new.params), rtol=1e-6)
    assert float(metrics["learning_rate"]) == pytest.approx(0.1)
    assert float(step(new, BATCH)[1]["learning_rate"]) == pytest.approx(0.2)
    assert bool(metrics["finite"])
    assert int(new.step) == 1


def test_many_steps_equal_a_loop_written_by_hand_with_optax():
    ours, theirs = jgd.adamw(0.05), optax.adamw(0.05)
    step, state = jgd.make_step(loss_fn, ours), jgd.TrainState.create(params(), ours)
    p, s = params(), theirs.init(params())

    @jax.jit
    def by_hand(p, s):
        updates, s = theirs.update(jax.grad(loss_fn)(p, BATCH), s, p)
        return optax.apply_updates(p, updates), s

    for _ in range(30):
        state, _ = step(state, BATCH)
        p, s = by_hand(p, s)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), state.params, p)


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(optax.sgd(0.1), marks=pytest.mark.slow),
        optax.chain(optax.clip(1.0), jgd.sgd(0.1)),
        optax.polyak_sgd(1.0),
    ],
)
def test_any_optimizer_of_optax_goes_into_a_step(optimizer):
    step, state = jgd.make_step(loss_fn, optimizer), jgd.TrainState.create(params(), optimizer)
    losses = []
    for _ in range(5):
        state, metrics = step(state, BATCH)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]


def test_a_key_in_the_state_gives_each_step_a_key_of_its_own():
    seen = []

    def noisy(p, batch, key):
        noise = jax.random.normal(key)
        return loss_fn(p, batch) + 0 * noise, noise

    optimizer = jgd.sgd(0.1)
    step = jgd.make_step(noisy, optimizer, has_aux=True)
    state = jgd.TrainState.create(params(), optimizer, key=7)
    for _ in range(3):
        state, metrics = step(state, BATCH)
        seen.append(float(metrics["aux"]))
    noise_of = jax.jit(lambda t: jax.random.normal(jax.random.fold_in(jax.random.key(7), t)))
    np.testing.assert_allclose(seen, [float(noise_of(t)) for t in range(3)], rtol=1e-6)
    np.testing.assert_array_equal(jax.random.key_data(state.key), jax.random.key_data(jax.random.key(7)))


@pytest.mark.parametrize("with_key", [False, True])
def test_a_model_state_goes_in_and_comes_out(with_key):
    def counting(p, model_state, batch, *key):
        assert len(key) == with_key
        return loss_fn(p, batch), ({"calls": model_state["calls"] + 1}, {"seen": model_state["calls"]})

    optimizer = jgd.sgd(0.1)
    step = jgd.make_step(counting, optimizer)
    state = jgd.TrainState.create(
        params(), optimizer, key=0 if with_key else None, model_state={"calls": jnp.zeros(())}
    )
    for _ in range(3):
        state, metrics = step(state, BATCH)
    assert (float(state.model_state["calls"]), float(metrics["aux"]["seen"])) == (3.0, 2.0)


@jax.tree_util.register_pytree_with_keys_class
class Unequal:
    """As Equinox's `State`: two of them are never equal, whatever they hold."""

    def __init__(self, calls):
        self.calls = calls

    def tree_flatten_with_keys(self):
        return [(jax.tree_util.GetAttrKey("calls"), self.calls)], None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


@pytest.mark.parametrize("parts", [1, 2])
def test_model_states_are_compared_by_what_they_hold(parts):
    def counting(p, model_state, batch):
        return loss_fn(p, batch), (Unequal(model_state.calls + 1), None)

    optimizer = jgd.sgd(0.1)
    step = jgd.make_step(counting, optimizer, accumulate=parts, on_nonfinite="skip")
    state = jgd.TrainState.create(params(), optimizer, model_state=Unequal(jnp.zeros(())))
    state, _ = step(state, BATCH)
    assert float(state.model_state.calls) == parts
    wrong = jgd.make_step(lambda p, m, batch: (loss_fn(p, batch), (Unequal(jnp.int32(1)), None)), optimizer)
    with pytest.raises(ValueError, match=r"at \.calls got int32\[\], expected float32\[\]"):
        wrong(state, BATCH)


def test_params_that_are_python_numbers_become_arrays_like_any_others():
    state = jgd.TrainState.create({"w": 2.0}, jgd.sgd(0.1))
    assert jax.typeof(state.params["w"]) == jax.typeof(jnp.zeros((), jnp.float32))  # a second step compiles nothing


def test_a_step_is_traced_once():
    traces = []

    def counted(p, batch):
        traces.append(1)
        return loss_fn(p, batch)

    optimizer = jgd.chain(jgd.clip_by_global_norm(1.0), jgd.adamw(0.1))
    step, state = jgd.make_step(counted, optimizer), jgd.TrainState.create(params(), optimizer)
    for rate in (0.1, 0.2, 0.3):
        state, _ = step(jgd.set_hyperparams(state, learning_rate=rate), BATCH)
    assert len(traces) == 1


def test_a_donated_state_says_what_happened_and_what_to_do():
    optimizer = jgd.gradient_descent(0.1)
    step, state = jgd.make_step(loss_fn, optimizer), jgd.TrainState.create(params(), optimizer)
    step(state, BATCH)
    with pytest.raises(RuntimeError, match=r"given to an earlier step, which reused its memory.*donate=False"):
        step(state, BATCH)
    kept = jgd.TrainState.create(params(), optimizer)
    keeping = jgd.make_step(loss_fn, optimizer, donate=False)
    trees_equal(keeping(kept, BATCH)[0], keeping(kept, BATCH)[0])


def test_integer_leaves_and_low_precision_go_along():
    def loss(p, batch):
        return loss_fn({"w": p["w"].astype(jnp.float32), "b": 0.0}, batch) * p["n"]

    optimizer = jgd.chain(jgd.clip_by_global_norm(1.0), jgd.adam(0.1))
    step = jgd.make_step(loss, optimizer)
    state = jgd.TrainState.create({"w": jnp.ones(3, jnp.bfloat16), "n": jnp.array(2)}, optimizer)
    state, metrics = step(state, BATCH)
    assert (state.params["w"].dtype, int(state.params["n"])) == (jnp.bfloat16, 2)
    assert np.isfinite(metrics["grad_norm"])


def test_a_step_goes_under_vmap_jit_and_grad():
    optimizer = jgd.gradient_descent(0.1)
    step = jgd.make_step(loss_fn, optimizer)

    def final(rate):
        state = jgd.set_hyperparams(jgd.TrainState.create(params(), optimizer), learning_rate=rate)
        for _ in range(3):
            state, metrics = step(state, BATCH)
        return metrics["loss"]

    rates = np.float32([0.01, 0.05])
    swept = jax.jit(jax.vmap(final))(rates)
    np.testing.assert_allclose(swept, [final(rate) for rate in rates], rtol=1e-5)
    assert float(jax.grad(final)(0.01)) < 0  # not compiled as a whole: each step meets arrays that others hold


# Errors


@pytest.mark.parametrize(
    ("returned", "options", "error", "message"),
    [
        (lambda loss: jnp.ones(4) * loss, {}, ValueError, r"expected a scalar loss; got shape \(4,\).*jnp\.mean"),
        (lambda loss: (loss, {}), {}, TypeError, r"expected one scalar; got a tuple of 2.*has_aux=True"),
        (lambda loss: loss, {"has_aux": True}, TypeError, r"with has_aux=True expected \(loss, aux\)"),
        (lambda loss: jnp.int32(1), {}, TypeError, r"expected a real float loss; got dtype int32\. Whole numbers"),
        (lambda loss: None, {}, TypeError, r"expected a scalar array as the loss; got a NoneType.*return loss"),
        (lambda loss: (None, {}), {"has_aux": True}, TypeError, r"expected a scalar array as the loss; got a NoneType"),
        (lambda loss: loss * 1j, {}, TypeError, r"expected a real float loss; got dtype complex64"),
        (lambda loss: "low", {}, TypeError, r"expected a scalar array as the loss; got a str"),
    ],
    ids=["vector", "aux_unasked", "no_aux", "integer", "none", "none_and_aux", "complex", "text"],
)
def test_a_loss_that_returns_something_else(returned, options, error, message):
    optimizer = jgd.sgd(0.1)
    step = jgd.make_step(lambda p, batch: returned(loss_fn(p, batch)), optimizer, **options)
    with pytest.raises(error, match=message):
        step(jgd.TrainState.create(params(), optimizer), BATCH)


def test_a_model_state_of_another_shape_and_a_loss_that_returns_none():
    optimizer = jgd.sgd(0.1)
    state = jgd.TrainState.create(params(), optimizer, model_state=jnp.zeros(2))
    with pytest.raises(ValueError, match=r"the new model state must equal the old in structure, shapes and dtypes"):
        jgd.make_step(lambda p, m, batch: (loss_fn(p, batch), (jnp.zeros(3), None)), optimizer, donate=False)(
            state, BATCH
        )
    with pytest.raises(ValueError, match=r"the new model state and the old one differ: the old one has a leaf"):
        jgd.make_step(lambda p, m, batch: (loss_fn(p, batch), ({"a": m}, None)), optimizer, donate=False)(state, BATCH)
    with pytest.raises(TypeError, match=r"with a model state expected \(loss, \(new_model_state, aux\)\)"):
        jgd.make_step(lambda p, m, batch: loss_fn(p, batch), optimizer, donate=False)(state, BATCH)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_nonfinite": "stop"}, r"on_nonfinite must be one of 'raise', 'skip', 'ignore'; got 'stop'"),
        ({"accumulate": 0}, r"accumulate must be a whole number of at least 1; got 0"),
        ({"accumulate": 2.0}, r"accumulate must be an integer; got 2\.0"),
        ({"accumulate": 1.5}, r"accumulate must be an integer; got 1\.5"),
        ({"has_aux": np.ones(2)}, r"has_aux must be True or False; got an array"),
        ({"gradient": "clipped"}, r"gradient must be a function or None; got 'clipped'"),
    ],
)
def test_an_option_that_cannot_be(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        jgd.make_step(loss_fn, jgd.sgd(0.1), **options)


def test_a_state_that_is_none():
    with pytest.raises(TypeError, match=r"expected a jgd\.TrainState, made by TrainState\.create; got a dict"):
        jgd.make_step(loss_fn, jgd.sgd(0.1))({"params": params()}, BATCH)
    with pytest.raises(TypeError, match=r"TrainState\.create: the leaf at \['act'\] is a .* not an array"):
        jgd.TrainState.create({"act": jax.nn.relu}, jgd.sgd(0.1))


def test_gradients_and_metrics_of_ones_own_that_are_none():
    optimizer, state = jgd.sgd(0.1), jgd.TrainState.create(params(), jgd.sgd(0.1))
    text = jgd.make_step(
        loss_fn, optimizer, gradient=lambda loss: lambda p, batch, key: (loss(p, batch), p | {"w": "g"}, {})
    )
    with pytest.raises(TypeError, match=r"the gradient of gradient\(loss_fn\) at \['w'\] is a str; expected an array"):
        text(state, BATCH)
    with pytest.raises(ValueError, match=r"events_of: expected the metrics of a step of jgd\.make_step; got loss"):
        jgd.events_of({"loss": 1.0}, step=0)
    with pytest.raises(ValueError, match=r"the leaf of params at \['n'\] is 10+, which int32 does not hold"):
        jgd.TrainState.create({"n": 10**30}, optimizer)
    with pytest.raises(TypeError, match=r"TrainState\.create: model_state must be a tree of arrays; got"):
        jgd.TrainState.create(params(), optimizer, model_state={"act": jax.nn.relu})
