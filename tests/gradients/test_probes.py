"""Norms and weighted sums through probed operations, against the gradient of every example."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.gradients import probes
from jgd.gradients._padding import Padded, pad_batch
from jgd.gradients.probes import _check, _parts

B, V, T, D = 5, 7, 4, 6


def mlp(params, batch, probe=None):
    x = jnp.tanh(probes.bias(probes.dense(batch["x"], params["w1"], probe), params["b1"], probe))
    x = probes.bias(probes.dense(x, params["w2"], probe), params["b2"], probe)
    return jnp.sum((x - 1) ** 2, axis=1)


def cnn(params, batch, probe=None):
    x = jnp.sin(probes.conv(batch["x"], params["w1"], probe, 2, "SAME"))
    x = jnp.sin(probes.conv(x, params["w2"], probe, padding=[(1, 0), (0, 2)], dilation=(1, 2), groups=2))
    x = jnp.sin(probes.conv(x, params["w3"], probe, padding="VALID"))
    return jnp.sum(probes.dense(x.reshape(len(x), -1), params["w"], probe) ** 2, axis=1)


def transformer(params, batch, probe=None):
    ids = batch["ids"]
    x = probes.bias(probes.embed(ids, params["table"], probe), params["places"], probe)
    x = probes.scale(x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6), params["gain"], probe)
    q, k, v = (probes.dense(x, params[name], probe) for name in "qkv")  # [D, heads, width]
    mixed = jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k)), v)
    x = x + probes.dense(mixed, params["out"], probe, axes=2)
    logits = probes.dense(x, params["table"], probe, transposed=True)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), ids[:, ::-1, None], -1)[..., 0], axis=1)


def tied(params, batch, probe=None):
    """A transformer without its attention: one table at both ends, kernels of three axes."""
    x = probes.bias(probes.embed(batch["ids"], params["table"], probe), params["places"], probe)
    x = probes.dense(jnp.sin(probes.scale(x, params["gain"], probe)), params["q"], probe)  # [B, T, heads, width]
    x = probes.dense(x, params["out"], probe, axes=2)
    return jnp.sum(jnp.sin(probes.dense(x, params["table"], probe, transposed=True)), axis=(1, 2))


def recurrent(params, batch, probe=None):
    h = jnp.zeros((len(batch["x"]), D), batch["x"].dtype)
    for t in range(batch["x"].shape[1]):
        h = jnp.tanh(probes.dense(h, params["w"], probe) + probes.dense(batch["x"][:, t], params["u"], probe))
        h = probes.scale(probes.bias(h, params["b"], probe), params["gain"], probe)
    return jnp.sum(h**2, axis=1)


def used_twice(params, batch, probe=None):
    x = jnp.tanh(probes.dense(batch["x"], params["w"], probe, transposed=True))
    x = jnp.tanh(probes.dense(x, params["w"], probe))
    return jnp.sum(probes.bias(probes.scale(x, params["w"], probe), params["w"], probe) ** 2, axis=(1, 2))


def convolved_twice(params, batch, probe=None):
    for groups in (1, 1):
        batch = {"x": jnp.tanh(probes.conv(batch["x"], params["w"], probe, groups=groups))}
    return jnp.sum(batch["x"] ** 2, axis=(1, 2))


def two_tables(params, batch, probe=None):
    x = probes.embed(batch["ids"], params["table"], probe) * probes.embed(
        batch["ids"][:, :2] - V, params["table"], probe
    )
    return jnp.sum(jnp.sin(x), axis=(1, 2))


def broadcast(params, batch, probe=None):
    x = probes.scale(batch["x"][..., None], params["gain"], probe)  # [B, T, D, 1] and [D, 2]
    x = probes.bias(x, params["b"], probe)
    return jnp.sum(jnp.sin(probes.scale(x, params["one"], probe)), axis=(1, 2, 3))


def by_function(params, batch, probe=None):
    x = probes.each(lambda x, w: jnp.sin(x @ w @ w), batch["x"], params["w"], probe)
    return jnp.sum(probes.dense(x, params["w"], probe) ** 2, axis=(1, 2))


class Case(NamedTuple):
    losses_fn: Any
    shapes: dict[str, tuple[int, ...]]
    x: tuple[int, ...] | None  # of one example; None for ids


CASES = {
    "mlp": Case(mlp, {"w1": (D, 8), "b1": (8,), "w2": (8, 3), "b2": (3,)}, (D,)),
    "cnn": Case(cnn, {"w1": (3, 3, 2, 4), "w2": (2, 2, 2, 6), "w3": (2, 2, 6, 2), "w": (8, 3)}, (6, 6, 2)),
    "transformer": Case(
        transformer,
        {"table": (V, D), "places": (T, D), "gain": (D,), "out": (2, 3, D)} | dict.fromkeys("qkv", (D, 2, 3)),
        None,
    ),
    "tied": Case(tied, {"table": (V, D), "places": (T, D), "gain": (D,), "q": (D, 2, 3), "out": (2, 3, D)}, None),
    "recurrent": Case(recurrent, {"w": (D, D), "u": (3, D), "b": (D,), "gain": (D,)}, (2, 3)),
    "used_twice": Case(used_twice, {"w": (T, T)}, (T, T)),
    "convolved_twice": Case(convolved_twice, {"w": (3, 2, 2)}, (5, 2)),
    "two_tables": Case(two_tables, {"table": (V, D)}, None),
    "broadcast": Case(broadcast, {"gain": (D, 2), "b": (1, 2), "one": ()}, (T, D)),
    "by_function": Case(by_function, {"w": (D, D)}, (T, D)),
}


def some(*fast, of):
    """Those named, and the rest in the slow tier."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in of]


def make(case, size=B, dtype=None):
    rng = np.random.default_rng(0)
    params = {name: jnp.asarray(rng.normal(size=shape) / 2, dtype) for name, shape in case.shapes.items()}
    if case.x is None:
        batch = {"ids": jnp.asarray(rng.integers(0, V, (size, 2 if case.losses_fn is two_tables else T)))}
    else:
        batch = {"x": jnp.asarray(rng.normal(size=(size, *case.x)), dtype)}
    return params, batch


@functools.partial(jax.jit, static_argnums=0)
def example_grads(losses_fn, params, batch):
    """The reference: `vmap(grad)` over batches of one example."""

    def loss(params, example):
        return losses_fn(params, jax.tree.map(lambda leaf: leaf[None], example), None)[0]

    return jax.vmap(jax.grad(loss), (None, 0))(params, batch)


def squared(grads):
    return sum(
        np.sum(np.square(np.asarray(g, np.float64)), axis=tuple(range(1, g.ndim))) for g in jax.tree.leaves(grads)
    )


def weighted(grads, weights):
    return jax.tree.map(lambda g: np.einsum("b,b...->...", weights, np.asarray(g, np.float64)), grads)


def assert_trees_close(found, expected, rtol):
    for name in expected:
        limit = rtol * np.max(np.abs(expected[name]))
        np.testing.assert_allclose(np.asarray(found[name], np.float64), expected[name], rtol=rtol, atol=limit)


def clip_factors(norms, limit):
    return np.minimum(1, limit / np.sqrt(norms))


@pytest.mark.parametrize("name", some(*CASES.keys() - {"transformer"}, of=CASES))  # it compiles for long
def test_norms_and_clipped_gradients_are_those_of_every_example(name, x64):
    losses_fn = CASES[name].losses_fn
    params, batch = make(CASES[name])

    @jax.jit
    def everything(params, batch, limit):
        kept, pulled = (
            probes.clipped_value_and_grad(losses_fn, limit, keep_cotangents=keep, with_norms=True)
            for keep in (True, False)
        )
        reference = losses_fn(params, batch), example_grads(losses_fn, params, batch)
        return reference, kept(params, batch), pulled(params, batch)

    norms = squared(everything(params, batch, 1.0)[0][1])
    limit = float(np.sqrt(np.median(norms)))
    (losses, grads), *runs = everything(params, batch, limit)
    for (found_losses, found), clipped in runs:
        np.testing.assert_allclose(found_losses, losses, rtol=1e-12)
        np.testing.assert_allclose(found, norms, rtol=1e-10)
        assert_trees_close(clipped, weighted(grads, clip_factors(norms, limit) / B), 1e-10)


@pytest.mark.parametrize("name", some("mlp", of=("mlp", "cnn", "transformer")))
def test_norms_in_float32_are_those_in_float64(name, x64):
    losses_fn = CASES[name].losses_fn
    params, batch = make(CASES[name])
    single = jax.tree.map(lambda a: np.asarray(a, np.float32 if a.dtype == jnp.float64 else a.dtype), (params, batch))
    found = probes.norms(losses_fn)(*single)[1]
    assert found.dtype == jnp.float32
    expected = squared(example_grads(losses_fn, params, batch))
    np.testing.assert_allclose(np.sqrt(found), np.sqrt(expected), rtol=1e-5)


@settings(max_examples=8)
@given(st.data())
def test_both_ways_to_a_norm_agree_with_the_sum_of_the_parts(data):
    number = st.integers(1, 4)
    size, inputs, outputs, groups = (data.draw(number) for _ in range(4))
    offsets = data.draw(st.integers(1, 2))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    def a_product():
        positions = data.draw(number)
        xs = tuple(normal(size * groups, positions, inputs) for _ in range(offsets))
        return xs, normal(size * groups, positions, outputs)

    def some_rows():
        positions = data.draw(number)
        return rng.integers(0, inputs, (size, positions)), normal(size, positions, outputs)

    shape = (offsets, inputs, groups * outputs)
    products, rows = [a_product() for _ in range(data.draw(st.integers(1, 2)))], []
    if groups == offsets == 1:
        shape = shape[1:]
        rows = [some_rows() for _ in range(data.draw(st.integers(0, 2)))]

    @jax.jit
    def both_ways(products, rows):
        parts = [_parts.Products(*each, groups) for each in products] + [_parts.Rows(*each) for each in rows]
        found = []
        for writing in (0, 10**6):  # the first favors the products themselves, the second inner products of positions
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(_parts, "WRITING", writing)
                found.append(_parts.squared_norms(parts, shape))
        return [_parts.materialized(part, shape) for part in parts], found

    materialized, norms = both_ways(products, rows)
    expected = np.sum(np.square(sum(map(np.asarray, materialized))).reshape(size, -1), axis=1)
    for found in norms:
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_table_smaller_than_the_sequence_is_laid_out():
    rng = np.random.default_rng(0)
    ids, d = rng.integers(0, 2, (3, 40)), rng.normal(size=(3, 40, 2)).astype(np.float32)
    assert not _parts._rows_by_pairs(None, _parts.Rows(ids, d), (2, 2))

    @jax.jit
    def table_and_norms(part):
        return _parts.materialized(part, (2, 2)), _parts.squared_norms([part], (2, 2))

    table, norms = map(np.asarray, table_and_norms(_parts.Rows(ids, d)))
    for i in range(3):
        for row in range(2):
            np.testing.assert_allclose(table[i, row], np.sum(d[i][ids[i] == row], 0), rtol=1e-5)
    np.testing.assert_allclose(norms, np.sum(table**2, (1, 2)), rtol=1e-5)


@pytest.fixture(scope="module")
def unchunked():
    """`mlp` in float64 and in one piece: params, batch, losses with norms and clipped gradients."""
    with jax.enable_x64(True):
        params, batch = make(CASES["mlp"])
        found = probes.clipped_value_and_grad(mlp, 3.0, with_norms=True)(params, batch)
    return params, batch, *jax.tree.map(np.asarray, found)


def padded_with_nan(batch):
    """The batch with three rows of padding."""
    padded = pad_batch(batch, 8)
    x = np.array(padded.batch["x"])
    x[B:] = np.nan
    return Padded({"x": x}, padded.mask)


@pytest.mark.parametrize("chunk_size", some(3, of=(1, 3, B, 8)))
def test_chunks_change_no_gradient(chunk_size, unchunked, x64):
    params, batch, values, grads = unchunked
    found = probes.clipped_value_and_grad(mlp, 3.0, chunk_size=chunk_size, with_norms=True)(params, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14), found, (values, grads))


@pytest.mark.parametrize("chunk_size", some(3, 8, of=(1, 3, B, 8)))
def test_chunks_change_no_norm(chunk_size, unchunked, x64):
    params, batch, values, _ = unchunked
    norms = probes.norms(mlp, chunk_size=chunk_size)(params, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), norms, values)


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_padding_changes_nothing_whatever_it_holds(chunk_size, unchunked, x64):
    params, batch, expected, expected_grads = unchunked
    run = probes.clipped_value_and_grad(mlp, 3.0, chunk_size=chunk_size, with_norms=True)
    (losses, norms), grads = run(params, padded_with_nan(batch))
    np.testing.assert_allclose(losses, [*expected[0], 0, 0, 0], rtol=1e-12)
    np.testing.assert_allclose(norms, [*expected[1], 0, 0, 0], rtol=1e-12)
    assert_trees_close(grads, expected_grads, 1e-12)


def test_padding_changes_no_norms_and_no_products(unchunked, x64):
    params, batch, (_, norms), _ = unchunked
    padded = padded_with_nan(batch)
    np.testing.assert_allclose(probes.norms(mlp)(params, padded)[1], [*norms, 0, 0, 0], rtol=1e-12)
    run = probes.dot_with_mean(mlp)
    np.testing.assert_allclose(run(params, padded)[1], [*run(params, batch)[1].tolist(), 0, 0, 0], rtol=1e-12)


def test_a_batch_of_padding_alone_has_a_zero_gradient():
    params, batch = make(CASES["mlp"])
    grads = probes.clipped_value_and_grad(mlp, 1.0)(params, Padded(batch, jnp.zeros(B, bool)))[1]
    assert all(not np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(grads))


def test_any_weighted_sum(x64):
    params, batch = make(CASES["mlp"])
    grads = example_grads(mlp, params, batch)
    run = probes.weighted_grad(mlp, lambda losses, norms: losses - norms)
    weights = np.asarray(jax.jit(mlp)(params, batch)) - squared(grads)
    assert_trees_close(run(params, batch)[2], weighted(grads, weights), 1e-10)


def test_dot_with_mean_goes_through_any_operation(x64):
    def losses_fn(params, batch, probe):
        return mlp(params, batch, probe) + jnp.sum(jnp.cos(batch["x"] @ params["w1"].T.T), axis=1)

    params, batch = make(CASES["mlp"])
    flat = np.concatenate(
        [np.asarray(g).reshape(B, -1) for g in jax.tree.leaves(example_grads(losses_fn, params, batch))], 1
    )
    losses, dots = probes.dot_with_mean(losses_fn)(params, batch)
    np.testing.assert_allclose(dots, flat @ flat.mean(0), rtol=1e-10)
    np.testing.assert_allclose(losses, jax.jit(losses_fn)(params, batch, None), rtol=1e-12)


def test_jit_and_eager_agree_and_one_array_may_be_two_leaves(x64):
    w = jnp.asarray(np.random.default_rng(0).normal(size=(D, D)))

    def losses_fn(params, batch, probe):
        return jnp.sum(probes.dense(probes.dense(batch, params[0], probe), params[1], probe), axis=1)

    batch = jnp.asarray(np.random.default_rng(1).normal(size=(B, D)))
    run = probes.clipped_value_and_grad(losses_fn, 1.0, with_norms=True)
    jitted = run((w, w), batch)
    with jax.disable_jit():
        eager = run((w, w), batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), eager, jitted)
    np.testing.assert_allclose(eager[0][1], squared(example_grads(losses_fn, (w, w), batch)), rtol=1e-12)


def test_low_precision_accumulates_in_float32():
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(D, 3)), jnp.float32), "b": jnp.ones(3, jnp.bfloat16)}
    batch = jnp.asarray(rng.normal(size=(B, 9, D)), jnp.float32)

    def losses_fn(params, batch, probe):
        x = probes.bias(probes.dense(batch, params["w"], probe, dtype=jnp.bfloat16), params["b"], probe)
        return jnp.sum(x.astype(jnp.float32) ** 2, axis=(1, 2))

    (_, norms), grads = probes.clipped_value_and_grad(losses_fn, 1.0, with_norms=True)(params, batch)
    assert norms.dtype == jnp.float32
    assert jax.tree.map(lambda g: g.dtype, grads) == {"w": jnp.float32, "b": jnp.bfloat16}
    np.testing.assert_allclose(norms, squared(example_grads(losses_fn, params, batch)), rtol=2e-2)  # of 8 bits
    large = jnp.full((B, 9, D), 2e4, jnp.float16)  # the sum over positions is above the largest float16
    sums = probes.norms(lambda w, x, probe: jnp.sum(probes.dense(x, w, probe), (1, 2)).astype(jnp.float32))
    np.testing.assert_allclose(sums(jnp.zeros((D, 3), jnp.float16), large)[1], 3 * D * (9 * 2e4) ** 2, rtol=1e-3)


def test_a_gradient_that_cancels_has_no_negative_norm():
    rng = np.random.default_rng(0)
    x, d = (rng.normal(size=(200, 2, 50)).astype(np.float32) for _ in range(2))
    x, d = np.concatenate([x, x, x], axis=1), np.concatenate([d, 0.3 * d, -1.3 * d], axis=1, dtype=np.float32)
    found = np.asarray(jax.jit(lambda x, d: _parts.squared_norms([_parts.Products((x,), d)], (50, 50)))(x, d))
    assert np.all(found >= 0)
    assert np.all(found < 1e-2)  # each of the terms is about 2500


def test_leaves_that_are_not_floats_are_left_alone(x64):
    params, batch = make(CASES["mlp"])
    run = probes.clipped_value_and_grad(mlp, 1.0)
    losses, grads = run(params | {"count": np.array(3)}, batch)
    expected = run(params, batch)
    np.testing.assert_array_equal(losses, expected[0])
    assert int(grads.pop("count")) == 0
    assert_trees_close(grads, expected[1], 1e-12)


def test_without_a_probe_each_operation_is_the_plain_one():
    rng = np.random.default_rng(0)
    x, w = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 3, 4), (4, 5)))
    image, kernel = jnp.ones((2, 5, 5, 3)), jnp.asarray(rng.normal(size=(3, 3, 3, 4)), jnp.float32)
    np.testing.assert_array_equal(probes.dense(x, w), x @ w)
    np.testing.assert_array_equal(probes.dense(x, w.T, transposed=True), x @ w)
    np.testing.assert_array_equal(probes.bias(x, w[:, 0]), x + w[:, 0])
    np.testing.assert_array_equal(probes.scale(x, w[:, 0]), x * w[:, 0])
    np.testing.assert_array_equal(probes.embed(jnp.array([[3, 1]]), w), w[jnp.array([[3, 1]])])
    np.testing.assert_array_equal(probes.each(jnp.matmul, x, w), x @ w)
    plain = jax.lax.conv_general_dilated(image, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_array_equal(probes.conv(image, kernel, strides=2), plain)
    assert probes.dense(x, w, dtype=jnp.bfloat16).dtype == jnp.bfloat16
    primitives = [eqn.primitive.name for eqn in jax.make_jaxpr(lambda w: probes.dense(x, w))(w).eqns]
    assert primitives == ["dot_general"]


@pytest.mark.usefixtures("as_compiled_for_users")
def test_the_norms_cost_no_weight_gradient():
    shapes = {"w1": (64, 64), "b1": (64,), "w2": (64, 64), "b2": (64,)}
    params, batch = make(Case(mlp, shapes, (64,)), size=32)
    flops = probes.norms(mlp).lower(params, batch).compile().cost_analysis()["flops"]
    product = 2 * 32 * 64 * 64
    assert 3 * product < flops < 4 * product  # two products forward, one back: to the input of the second layer


def test_the_loss_is_traced_twice():
    calls = []

    def losses_fn(params, batch, probe):
        calls.append(probe)
        return mlp(params, batch, probe)

    probes.clipped_value_and_grad(losses_fn, 1.0).lower(*make(CASES["mlp"]))
    assert len(calls) == 2


def quadratic(w, batch, probe):
    return probes.dense(batch, w, probe)[:, 0] ** 2


W, X = jnp.ones((2, 1)), jnp.ones((4, 2))


def in_scan(w, x, probe):
    return jax.lax.scan(lambda h, _: (h + probes.dense(x, w, probe), None), jnp.zeros((4, 1)), length=2)[0][:, 0]


WRONG = {
    "transposed": (lambda w, x, p: probes.dense(x, w.T.T, p)[:, 0], "not a float leaf of params as it stands"),
    "scan": (in_scan, "inside another transformation"),
    "outside": (lambda w, x, p: quadratic(w, x, p) + jnp.sum(w**2), "uses the params at the root outside of probes"),
    "positions": (lambda w, x, p: probes.dense(x.reshape(8, 1), w[:1], p)[:4, 0], "not a float leaf"),
    "axis": (lambda w, x, p: probes.dense(jnp.tile(x, (2, 1)), w, p)[:4, 0], "expected the 4 examples of the batch"),
    "mean": (lambda w, x, p: jnp.mean(quadratic(w, x, p)), r"returned shape \(\); expected \(4,\)"),
    "shape": (lambda w, x, p: probes.dense(x[:, :1], w, p)[:, 0], "expected the last 1 axes of x"),
    "scale": (lambda w, x, p: probes.scale(x, w, p)[:, 0], "fewer axes than x"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_would_be_wrong_is_refused(name):
    losses_fn, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(probes.norms(losses_fn), W, X)


def test_what_cannot_be_is_refused():
    with pytest.raises(TypeError, match="complex"):
        probes.norms(quadratic)(W + 0j, X)
    with pytest.raises(TypeError, match="returned dtype int32"):
        probes.norms(lambda w, x, probe: jnp.zeros(4, jnp.int32))(W, X)
    with pytest.raises(ValueError, match="max_norm=0"):
        probes.clipped_value_and_grad(quadratic, 0)
    with pytest.raises(ValueError, match="chunk_size=0"):
        probes.norms(quadratic, chunk_size=0)(W, X)
    with pytest.raises(ValueError, match=r"weights_fn returned \(\)"):
        probes.weighted_grad(quadratic, lambda losses, norms: 1.0)(W, X)
    with pytest.raises(TypeError, match="ids have dtype float32"):
        probes.embed(X, W)
    with pytest.raises(ValueError, match="table is a scalar"):
        probes.embed(jnp.zeros(3, int), 1.0)
    with pytest.raises(ValueError, match=r"expected \[B, \*spatial, C\]"):
        probes.conv(X, W)
    image, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((2, 2, 2, 2))
    with pytest.raises(ValueError, match="groups=2"):
        probes.conv(image, kernel, groups=2)
    with pytest.raises(ValueError, match="strides="):
        probes.conv(image, kernel, strides=(1, 2, 3))
    with pytest.raises(ValueError, match="2 pairs"):
        probes.conv(image, kernel, padding=[(0, -1), (0, 0)])


def test_what_has_no_gradient_is_no_use():
    found = probes.norms(lambda w, x, probe: quadratic(w, x, probe) + jnp.sum(jax.lax.stop_gradient(w)))(W, X)[1]
    np.testing.assert_array_equal(found, probes.norms(quadratic)(W, X)[1])


@pytest.mark.parametrize("name", some("mlp", of=("mlp", "used_twice")))
def test_the_check_passes_where_all_is_right(name):
    params, batch = make(CASES[name], dtype=jnp.float32)
    given = pad_batch(batch, 8) if name == "mlp" else batch
    report = probes.check_per_example(CASES[name].losses_fn, params, given, rtol=1e-4)
    assert report.norms.shape == (B,)
    assert len(report.errors) == len(params)
    assert max(report.errors.values()) < 1e-4
    expected = squared(example_grads(CASES[name].losses_fn, params, batch))
    np.testing.assert_allclose(np.asarray(report.norms) ** 2, expected, rtol=1e-5)


def mixed_up(params, batch, probe):
    """Hands the examples over in another order, and puts the outputs back in order."""
    x = probes.dense(batch["x"][::-1], params["w"], probe)
    return jnp.sum(x[::-1] ** 2, axis=(1, 2))


def plain(params, batch):
    return jnp.sum((batch["x"] @ params["w"]) ** 2, axis=(1, 2))


def coupled(params, batch, probe):
    x = probes.dense(batch["x"], params["w"], probe)
    return jnp.sum((x - jnp.mean(x, axis=0)) ** 2, axis=(1, 2))


def neighbors(params, batch, probe):
    losses = jnp.sum(probes.dense(batch["x"], params["w"], probe) ** 2, axis=(1, 2))
    return losses.at[2].add(losses[3])


def uncovered(params, batch, probe):
    return jnp.sum((probes.dense(batch["x"], params["w"], probe) * params["gain"]) ** 2, axis=(1, 2))


def another_loss(params, batch, probe):
    return plain(params, batch) if probe is None else 2 * jnp.sum(probes.dense(batch["x"], params["w"], probe), (1, 2))


FAULTS = {
    "mixed_up": (mixed_up, r"wrong gradient norms at \['w'\] \(example 0"),
    "coupled": (coupled, "the loss of example .* changes when other examples do"),
    "neighbors": (neighbors, "the loss of example 2 changes"),
    "uncovered": (uncovered, r"not covered: \['gain'\]"),
    "another_loss": (another_loss, "with a probe the losses are"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_check_finds_what_is_wrong(name):
    losses_fn, message = FAULTS[name]
    params, batch = make(Case(losses_fn, {"w": (D, D), "gain": (D,)}, (T, D)), dtype=jnp.float32)
    with pytest.raises(probes.PerExampleCheckError, match=message):
        probes.check_per_example(losses_fn, params, batch)


def test_the_check_finds_a_wrong_sum(monkeypatch):
    params, batch = make(CASES["mlp"], dtype=jnp.float32)
    monkeypatch.setattr(_check, "book_kept", lambda found, leaves, weights: [2 * g for g in found.pull(weights)])
    with pytest.raises(probes.PerExampleCheckError, match=r"from kept cotangents is wrong at \['b1'\]"):
        probes.check_per_example(mlp, params, batch)
