"""Small leaves packed from step to step: nothing is lost, and what would change under it is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jgd

LEAVES = st.sampled_from(
    [
        ((), "float32"),
        ((3,), "float32"),
        ((2, 3), "bfloat16"),
        ((0, 2), "float32"),
        ((4,), "int32"),
        ((5,), "complex64"),
        ((50,), "float32"),
    ]
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from("abcd"), inner), st.tuples(inner, st.none())
    ),
    max_leaves=60,
)


def fill(tree):
    rng = np.random.default_rng(0)

    def is_spec(node):
        return isinstance(node, tuple) and len(node) == 2 and isinstance(node[1], str)

    return jax.tree.map(lambda spec: jnp.asarray(10 * rng.normal(size=spec[0])).astype(spec[1]), tree, is_leaf=is_spec)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@given(spec=TREES, max_size=st.sampled_from([0, 3, 10, 1000]))
@settings(max_examples=60, deadline=None)
def test_unpack_gives_back_what_pack_took(spec, max_size):
    tree = fill(spec)
    assert_same(jgd.unpack(jgd.pack(tree, max_size=max_size)), tree)


def test_a_thousand_small_leaves_become_few_buffers_and_large_ones_stay():
    params = {f"w{i:04d}": jnp.full(8, float(i)) for i in range(1000)} | {"large": jnp.ones((200, 200))}
    packed = jgd.pack(params)
    assert len(jax.tree.leaves(packed)) == 26
    assert packed.rest["['large']"] is params["large"]
    assert_same(jgd.unpack(packed), params)


def test_a_leaf_of_the_largest_size_is_packed():
    packed = jgd.pack({"a": np.ones(3, np.float32), "b": np.ones(4, np.float32)}, max_size=3)
    assert list(packed.rest) == ["['b']"]


def loss_fn(params, batch):
    hidden = jnp.tanh(batch["x"] @ params["kernel"] + params["bias"])
    return jnp.mean((hidden @ params["out"] * params["gain"] - batch["y"]) ** 2)


def make_params():
    rng = np.random.default_rng(1)
    shapes = {"kernel": (4, 300), "bias": (300,), "out": (300,), "gain": ()}
    return {name: jnp.asarray(0.3 * rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


BATCH = {"x": jnp.linspace(-1, 1, 32).reshape(8, 4), "y": jnp.linspace(0, 1, 8)}
OPTIMIZERS = {
    "adamw": lambda: jgd.adamw(0.01),
    "clip and momentum": lambda: jgd.chain(jgd.clip_by_global_norm(0.1), jgd.sgd(0.1, momentum=0.9)),
    "lookahead": lambda: jgd.lookahead(jgd.grams(jgd.adam(0.01)), 2, 0.5),
    "optax": lambda: __import__("optax").adam(0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("norms", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_training_packed_is_training(name, norms):
    optimizer = OPTIMIZERS[name]()
    step = jgd.make_step(loss_fn, optimizer, norms=norms)
    plain = jgd.TrainState.create(make_params(), optimizer)
    packed = jgd.TrainState.create(jgd.pack(make_params(), max_size=500), optimizer)
    for _ in range(5):
        plain, plain_metrics = step(plain, BATCH)
        packed, packed_metrics = step(packed, BATCH)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), plain, jgd.unpack(packed))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6), plain_metrics, packed_metrics)
    assert jax.tree.structure(jgd.unpack(packed)) == jax.tree.structure(plain)


def test_a_run_may_be_packed_in_the_middle():
    optimizer = jgd.adamw(0.01)
    step = jgd.make_step(loss_fn, optimizer, donate=False)
    state = jgd.TrainState.create(make_params(), optimizer)
    state, _ = step(state, BATCH)
    packed = jgd.pack(state, like=state.params, max_size=500)
    assert set(packed.opt_state.slots["mu"].vectors) == {"float32 0"}
    assert_same(jgd.unpack(packed), state)
    packed, _ = step(packed, BATCH)
    state, _ = step(state, BATCH)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state, jgd.unpack(packed))


def test_packed_params_are_mapped_over_like_any_others():
    packed = jax.vmap(lambda scale: jgd.pack(jax.tree.map(lambda p: scale * p, make_params())))(jnp.arange(3.0))
    unpacked = jgd.unpack(packed)
    np.testing.assert_allclose(unpacked["bias"][2], 2 * make_params()["bias"])
    assert unpacked["kernel"].shape == (3, 4, 300)


WHOLE_LEAVES = {
    "lamb": lambda: jgd.lamb(0.1),
    "muon": lambda: jgd.muon(0.1),
    "prodigy": lambda: jgd.prodigy(),
    "cautious": lambda: jgd.cautious(jgd.sgd(0.1)),
    "trust_ratio": lambda: jgd.trust_ratio(jgd.sgd(0.1)),
    "a mask": lambda: jgd.adamw(0.1, mask="matrices"),
    "groups": lambda: jgd.groups({"*bias*": jgd.sgd(0.1), "*": jgd.sgd(0.2)}),
    "int8": lambda: jgd.adam(0.1, state_dtype="int8"),
    "blocks": lambda: jgd.chain(jgd.clip_by_block_rms(0.1), jgd.sgd(0.1)),
}


@pytest.mark.parametrize("name", WHOLE_LEAVES)
def test_what_looks_at_whole_leaves_refuses_packed_params(name):
    with pytest.raises(ValueError, match=r"which packed params hide; expected params that jgd\.pack did not pack"):
        WHOLE_LEAVES[name]().init(jgd.pack(make_params()))


def test_errors():
    with pytest.raises(ValueError, match="max_size must be at least 0; got -1"):
        jgd.pack({"a": jnp.ones(2)}, max_size=-1)
    with pytest.raises(ValueError, match="holds no tree of the structure and shapes of like"):
        jgd.pack({"a": jnp.ones(2)}, like={"b": jnp.ones(3)})
    optimizer = jgd.sgd(0.1)
    step = jgd.make_step(loss_fn, optimizer, norms=False)
    with pytest.raises(ValueError, match="tol is compared with the gradient norm"):
        jgd.fit(jgd.TrainState.create(make_params(), optimizer), step, [BATCH], epochs=1, tol=1e-3)


def test_update_params_is_update_and_apply():
    for make in OPTIMIZERS.values():
        optimizer, params = make(), make_params()
        grads = jax.grad(loss_fn)(params, BATCH)
        state = optimizer.init(params)
        updates, expected_state = optimizer.update(grads, state, params)
        new, new_state = jgd.update_params(optimizer, grads, state, params)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), new, jgd.apply_updates(params, updates)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), new_state, expected_state)


def test_update_params_rounds_a_bfloat16_param_once():
    # The update is 0.00390625 + 0.0000152: rounded to bfloat16 first, it loses what tips the sum over the tie.
    optimizer, params = jgd.sgd(1.0), jnp.array(1.0, jnp.bfloat16)
    grad = -jnp.array(0.00390625, jnp.bfloat16)
    new, _ = jgd.update_params(optimizer, grad, optimizer.init(params), params)
    assert new.dtype == jnp.bfloat16
    decayed = jgd.sgd(1.0 + 2.0**-8)
    new, _ = jgd.update_params(decayed, grad, decayed.init(params), params)
    updates, _ = decayed.update(grad, decayed.init(params), params)
    assert float(new) == 1.0078125  # 1 + 0.003922 is nearer to it than to 1
    assert float(jgd.apply_updates(params, updates)) == 1.0


def test_integer_leaves_stay_under_update_params():
    params = {"w": jnp.ones(2), "n": jnp.array(3)}
    optimizer = jgd.adamw(0.1)
    new, _ = jgd.update_params(optimizer, jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    assert int(new["n"]) == 3
