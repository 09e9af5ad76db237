"""Per-example gradients and what is made of them, against a plain Python loop over the examples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.gradients._budget import auto_chunk_size
from jgd.gradients._clipping import ClippedMean, ClippedSum, clip_factors
from jgd.gradients._padding import Padded, pad_batch, real_rows
from jgd.gradients._per_example import clipped_grad, clipped_value_and_grad, per_example_grads
from jgd.gradients._reduce import reduce_per_example
from jgd.gradients._reductions import CosineToMean, Gradients, Mean, Norms, Reduction, SecondMoment, Sum, Variance

SIZE = 11
CHUNKS = (1, 3, 7, SIZE)
MAX_NORM = 1.5


def draw(rng, shapes):
    return {name: jnp.asarray(0.5 * rng.normal(size=shape)) for name, shape in shapes.items()}


def mlp(p, batch):
    hidden = jnp.tanh(batch["x"] @ p["w"] + p["b"])
    return jnp.mean((hidden @ p["v"] - batch["y"]) ** 2)


def cnn(p, batch):
    x = batch["x"].reshape(-1, 4, 2, 1)
    x = jax.lax.conv_general_dilated(x, p["k"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jnp.mean((jnp.tanh(x).mean((1, 2)) @ p["w"] - batch["y"]) ** 2)


def transformer(p, batch):
    x = p["table"][(batch["x"] > 0).astype(jnp.int32)]  # [B, T, 4], and the table is the last layer, too
    q, k, v = (x @ p[name] for name in ("q", "k", "v"))
    x = x + jax.nn.softmax(q @ k.swapaxes(1, 2)) @ v
    logits = (x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * p["gain"]) @ p["table"].T
    return jnp.mean(jax.nn.logsumexp(logits, -1) - logits[..., 0] * batch["y"][:, None])


MODELS = {
    "mlp": (mlp, {"w": (8, 6), "b": (6,), "v": (6,)}),
    "cnn": (cnn, {"k": (3, 3, 1, 3), "w": (3,)}),
    "transformer": (transformer, {"table": (2, 4), "q": (4, 4), "k": (4, 4), "v": (4, 4), "gain": (4,)}),
}
REDUCTIONS = {
    "sum": Sum(),
    "mean": Mean(),
    "clipped": ClippedMean(MAX_NORM),
    "per_leaf": ClippedSum(0.3, per="leaf"),
    "norms": Norms(),
    "leaf_norms": Norms("leaf"),
    "second": SecondMoment(),
    "variance": Variance(),
    "cosine": CosineToMean(),
    "grads": Gradients(),
}

FEW = ("sum", "clipped", "norms")


def a_batch(rng, size=SIZE):
    return {"x": jnp.asarray(rng.normal(size=(size, 8))), "y": jnp.asarray(4 * rng.normal(size=size))}


value_and_grad = functools.cache(lambda loss: jax.jit(jax.value_and_grad(loss)))


def by_loop(loss, params, batch, rows):
    """Everything from one gradient after the other, in NumPy."""
    rows_of = jax.tree.map(np.asarray, batch)
    found = [value_and_grad(loss)(params, jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], rows_of)) for i in rows]
    grads = [{name: np.asarray(g) for name, g in grad.items()} for _, grad in found]
    names = list(params)
    flat = np.stack([np.concatenate([g[name].ravel() for name in names]) for g in grads])
    norms = np.sqrt((flat**2).sum(1))
    leaf_norms = {name: np.array([np.sqrt((g[name] ** 2).sum()) for g in grads]) for name in names}
    mean = flat.mean(0)

    def tree(vector):
        sizes = np.cumsum([np.size(params[name]) for name in names])[:-1]
        parts = zip(names, np.split(vector, sizes), strict=True)
        return {name: part.reshape(np.shape(params[name])) for name, part in parts}

    return {
        "losses": np.array([float(loss) for loss, _ in found]),
        "sum": tree(flat.sum(0)),
        "mean": tree(mean),
        "clipped": tree((flat * np.minimum(1, MAX_NORM / norms)[:, None]).mean(0)),
        "per_leaf": {
            name: sum(g[name] * min(1, 0.3 / n) for g, n in zip(grads, leaf_norms[name], strict=True)) for name in names
        },
        "norms": norms,
        "leaf_norms": leaf_norms,
        "second": tree((flat**2).mean(0)),
        "variance": tree(flat.var(0, ddof=1)),
        "cosine": flat @ mean / (norms * np.linalg.norm(mean)),
        "grads": {name: np.stack([g[name] for g in grads]) for name in names},
    }


def close(found, expected, tolerance):
    def one(path, a, b):
        scale = max(np.abs(b).max(initial=0), 1e-3)
        np.testing.assert_allclose(np.asarray(a) / scale, b / scale, rtol=0, atol=tolerance, err_msg=str(path))

    jax.tree_util.tree_map_with_path(one, found, expected)


def as_dict(found, rows=slice(None)):
    """The results, those of single examples at the given rows."""
    results = dict(found.results)
    for name in ("norms", "leaf_norms", "cosine", "grads"):
        results[name] = jax.tree.map(lambda leaf: leaf[rows], results[name])
    return results | {"losses": found.losses[rows]}


def of_models(*fast, chunks=None):
    """Each model, with each of its chunk sizes if there are such; those that are not named are slow."""
    rows = [(model, *size) for model in MODELS for size in ([()] if chunks is None else [(c,) for c in chunks(model)])]
    marks = [() if row in fast else pytest.mark.slow for row in rows]
    return [pytest.param(*row, marks=mark) for row, mark in zip(rows, marks, strict=True)]


# Sums over the first two models are taken in two ways. The third is like the second, and compiles for long.
@pytest.mark.parametrize("model", of_models(("mlp",), ("cnn",)))
def test_all_reductions_equal_a_loop_over_the_examples_in_float64(model, x64, rng):
    loss, shapes = MODELS[model]
    params, batch = draw(rng, shapes), a_batch(rng)
    mask = np.arange(SIZE) % 3 != 1
    broken = {name: np.where(mask.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, np.nan) for name, leaf in batch.items()}
    found = reduce_per_example(loss, REDUCTIONS, chunk_size=3)(params, Padded(broken, mask))
    close(as_dict(jax.tree.map(np.asarray, found), mask), by_loop(loss, params, batch, np.flatnonzero(mask)), 1e-12)
    assert not np.any(np.asarray(found.losses)[~mask])
    assert not np.any(np.asarray(found.results["norms"])[~mask])


@pytest.mark.parametrize(("model", "chunk_size"), of_models(("mlp", 7), ("mlp", SIZE), chunks=lambda _: (1, 7, SIZE)))
def test_sum_clipped_mean_and_norms_equal_a_loop_in_float64(model, chunk_size, x64, rng):
    loss, shapes = MODELS[model]
    params, batch = draw(rng, shapes), a_batch(rng)
    expected = by_loop(loss, params, batch, range(SIZE))
    found = reduce_per_example(loss, {name: REDUCTIONS[name] for name in FEW}, chunk_size=chunk_size)(params, batch)
    close(found.results, {name: expected[name] for name in FEW}, 1e-12)


@pytest.mark.parametrize(
    ("model", "chunk_size"), of_models(chunks=lambda model: CHUNKS if model == "mlp" else (3, SIZE))
)
def test_sum_clipped_mean_and_norms_equal_a_loop_in_float32(model, chunk_size, rng):
    loss, shapes = MODELS[model]
    params, batch = draw(rng, shapes), a_batch(rng)
    expected = by_loop(loss, params, batch, range(SIZE))
    few = {name: REDUCTIONS[name] for name in FEW}
    found = reduce_per_example(loss, few, chunk_size=chunk_size)(params, pad_batch(batch, 13)).results
    close(found | {"norms": found["norms"][:SIZE]}, {name: expected[name] for name in FEW}, 1e-6)


@pytest.mark.parametrize("model", of_models(("mlp",)))
def test_the_clipped_mean_and_all_gradients_equal_a_loop_in_float32(model, rng):
    loss, shapes = MODELS[model]
    params, batch = draw(rng, shapes), a_batch(rng)
    expected = by_loop(loss, params, batch, range(SIZE))
    losses, grads = clipped_value_and_grad(loss, MAX_NORM, chunk_size=4)(params, batch)
    close((losses, grads), (expected["losses"], expected["clipped"]), 1e-6)
    close(per_example_grads(loss, chunk_size=3)(params, batch)[1], expected["grads"], 1e-6)


@settings(max_examples=6)
@given(
    shapes=st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=3),
    size=st.integers(1, 5),
    chunk_size=st.integers(1, 6),
)
def test_any_tree_any_size_any_chunk(shapes, size, chunk_size):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        params = [jnp.asarray(rng.normal(size=shape)) for shape in shapes]
        batch = rng.normal(size=size)
        found = reduce_per_example(
            lambda p, batch: sum(jnp.sum(jnp.sin(leaf * jnp.mean(batch))) for leaf in p),
            {"clipped": ClippedSum(0.5), "norms": Norms()},
            chunk_size=chunk_size,
        )(params, batch)
        grads = [[x * np.cos(np.asarray(leaf) * x) for leaf in params] for x in np.asarray(batch)]
        norms = np.array([np.sqrt(sum((g**2).sum() for g in grad)) for grad in grads])
        factors = np.minimum(1, 0.5 / np.maximum(norms, 1e-9))
        expected = [sum(f * np.asarray(grad[i]) for f, grad in zip(factors, grads)) for i in range(len(params))]
        close(found.results, {"clipped": expected, "norms": norms}, 1e-12)


@pytest.mark.parametrize("reductions", [REDUCTIONS, {"mean": Mean()}, {"clipped": ClippedMean(1.0)}], ids=len)
def test_the_loss_is_traced_once(reductions, rng):
    traces = []

    def loss(p, batch):
        traces.append(1)
        return mlp(p, batch)

    params, batch = draw(rng, MODELS["mlp"][1]), a_batch(rng)
    run = reduce_per_example(loss, {k: v for k, v in reductions.items() if k != "cosine"}, chunk_size=2)
    for _ in range(2):
        jax.eval_shape(run, params, batch)
        assert len(traces) == 1


def test_a_second_call_traces_nothing():
    traces = []

    def loss(w, batch):
        traces.append(1)
        return jnp.mean(batch * w)

    run = reduce_per_example(loss, Mean(), chunk_size=2)
    for _ in range(2):
        run(np.float32(1), np.ones(4, np.float32))
        assert len(traces) == 1


def largest(jaxpr):
    """The most numbers in one array of a program."""
    most = 0
    for equation in jaxpr.eqns:
        most = max([most, *(getattr(out.aval, "size", 0) for out in equation.outvars)])
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            most = max(most, largest(inner)) if hasattr(inner, "eqns") else most
    return most


def test_no_more_than_a_chunk_of_gradients_is_alive():
    params, batch = np.ones((50, 40), np.float32), np.ones((SIZE, 50), np.float32)
    run = reduce_per_example(lambda w, x: jnp.mean((x @ w) ** 2), ClippedMean(1.0), chunk_size=3)
    assert largest(jax.make_jaxpr(run)(params, batch).jaxpr) <= 3 * params.size


@pytest.mark.parametrize("chunk_size", [3, *(pytest.param(c, marks=pytest.mark.slow) for c in (1, 7))])
def test_each_example_has_its_own_randomness_whatever_the_chunk(chunk_size):
    def loss(w, batch, key):
        return jnp.mean(batch) * w, {"draw": jax.random.normal(key, (2,))}

    def draws(**options):
        return np.asarray(run(np.float32(1), batch, key=key, **options).aux["draw"])

    key, batch, ids = jax.random.key(4), np.arange(7, dtype=np.float32), np.array([5, 3, 8, 0, 1, 2, 9])
    run = reduce_per_example(loss, Mean(), chunk_size=chunk_size, has_aux=True)
    draw_of = jax.jit(lambda i: jax.random.normal(jax.random.fold_in(key, i), (2,)))
    expected = np.stack([draw_of(i) for i in ids])
    np.testing.assert_array_equal(draws(ids=ids), expected)
    np.testing.assert_array_equal(draws(ids=ids[::-1].copy()), expected[::-1])
    if chunk_size == 3:
        np.testing.assert_array_equal(draws()[3], draw_of(np.int64(3)))


@pytest.mark.parametrize(  # sums over the two models are taken in two ways
    ("model", "chunk_size", "bad"),
    [
        ("mlp", 3, np.nan),
        ("cnn", None, np.inf),
        pytest.param("mlp", None, np.inf, marks=pytest.mark.slow),
        pytest.param("cnn", None, np.nan, marks=pytest.mark.slow),
    ],
)
def test_a_bad_example_is_dropped_counted_and_named(model, chunk_size, bad, rng):
    loss, shapes = MODELS[model]
    params, batch = draw(rng, shapes), jax.tree.map(np.array, a_batch(rng))
    batch["x"][4] = bad
    good = [i for i in range(SIZE) if i != 4]
    expected = by_loop(loss, params, batch, good)
    names = ("sum", "mean", "clipped", "per_leaf", "variance")
    reductions = {name: REDUCTIONS[name] for name in names}
    found = reduce_per_example(loss, reductions, chunk_size=chunk_size, on_nonfinite="drop")(params, batch)
    close(found.results, {name: expected[name] for name in names}, 2e-6)
    assert int(found.count) == SIZE - 1
    assert np.flatnonzero(found.dropped).tolist() == [4]


def test_an_example_that_is_infinite_and_nowhere_nan_is_dropped_as_well():
    run = reduce_per_example(lambda w, x: jnp.mean(x) * w, Sum(), on_nonfinite="drop")
    found = run(np.float32(1), np.float32([1, np.inf, 3]))
    assert float(found.results) == 4
    np.testing.assert_array_equal(found.dropped, [False, True, False])


def test_a_bad_example_that_is_kept_is_seen_in_every_sum():
    reductions = {name: REDUCTIONS[name] for name in ("sum", "mean", "clipped", "per_leaf", "variance")}
    run = reduce_per_example(lambda p, batch: jnp.mean(batch) * p["w"], reductions, chunk_size=3)
    found = run({"w": np.float32(1)}, np.float32([1, 2, 3, 4, np.nan]))
    assert int(found.count) == 5
    assert {name for name, result in found.results.items() if np.isnan(result["w"])} == set(reductions)


def test_what_is_not_longer_than_the_limit_is_not_shortened():
    norms = np.float32([0, 0.3, 0.6, 1.2, 1.8, 2.4])
    for limit in (0.5, 1.5):
        expected = np.minimum(1, limit / np.maximum(norms, 1e-9))
        np.testing.assert_allclose(clip_factors(jnp.asarray(norms**2), limit), expected, rtol=1e-6)


def test_rows_that_are_not_real_are_copies_of_the_first_that_is():
    found = real_rows(np.float32([np.nan, 2, np.nan, 3]), jnp.array([False, True, False, True]))
    np.testing.assert_array_equal(found, [2, 2, 2, 3])


def test_a_norm_that_is_not_finite_is_not_hidden():
    _, grad = clipped_value_and_grad(lambda w, x: w * jnp.mean(x), 1.0)(jnp.ones(()), jnp.array([1.0, 1e30]))
    assert np.isnan(grad)


def test_nothing_left_is_zero_not_nan():
    batch = Padded(jnp.full((4,), jnp.nan), jnp.zeros(4, bool))
    found = reduce_per_example(lambda w, x: w * jnp.mean(x), {"m": Mean(), "c": ClippedMean(1.0)})(jnp.ones(()), batch)
    assert (int(found.count), float(found.results["m"]), float(found.results["c"])) == (0, 0, 0)
    run = reduce_per_example(lambda w, x: w * jnp.mean(x), ClippedMean(1.0), on_nonfinite="drop", chunk_size=2)
    assert float(run(jnp.ones(()), jnp.full((4,), jnp.nan)).results) == 0


def test_a_gradient_of_zero_and_its_derivative_are_finite():
    run = clipped_value_and_grad(lambda w, x: jnp.mean(x) * jnp.sum(w**2), 1.0, chunk_size=2)
    value, slope = jax.jit(jax.value_and_grad(lambda w: jnp.sum(run(w, jnp.zeros(3))[1])))(jnp.ones(2))
    assert float(value) == 0
    np.testing.assert_array_equal(slope, [0, 0])


def linear(p, batch):
    return jnp.mean((batch["x"] @ p["w"] + p["b"] - batch["y"]) ** 2)


def test_the_clipped_gradient_can_be_differentiated(x64, rng):
    shapes = {"w": (8,), "b": ()}
    params, batch, along = draw(rng, shapes), a_batch(rng), draw(rng, shapes)
    run = clipped_value_and_grad(linear, 10 * MAX_NORM, chunk_size=4)

    def total(p):
        return sum(jnp.vdot(a, g) for a, g in zip(jax.tree.leaves(along), jax.tree.leaves(run(p, batch)[1])))

    compiled = jax.jit(jax.value_and_grad(total))
    params, along = (jax.tree.map(np.asarray, tree) for tree in (params, along))
    slope = sum(np.vdot(along[name], slopes) for name, slopes in compiled(params)[1].items())
    ahead, behind = (compiled({name: p + s * along[name] for name, p in params.items()})[0] for s in (1e-5, -1e-5))
    np.testing.assert_allclose(slope, (float(ahead) - float(behind)) / 2e-5, rtol=1e-6)


def test_float16_gradients_do_not_overflow_in_norm_or_sum():
    batch = jnp.full((8, 1), 2e4, jnp.float16)
    found = reduce_per_example(
        lambda w, x: jnp.mean(x) * jnp.sum(w), {"sum": Sum(), "clipped": ClippedMean(1.0), "norms": Norms()}
    )(jnp.ones(16, jnp.float16), batch)
    np.testing.assert_allclose(found.results["norms"], 8e4, rtol=1e-3)
    np.testing.assert_allclose(found.results["sum"], 1.6e5, rtol=1e-3)
    np.testing.assert_allclose(found.results["clipped"], 0.25, rtol=1e-3)


def test_groups_of_leaves_are_clipped_on_their_own(rng):
    params, batch = draw(rng, MODELS["mlp"][1]), a_batch(rng)
    limits = {"re:w|b": 0.5, "v": 0.1}
    reductions = {"clipped": ClippedSum(limits), "norms": Norms(tuple(limits))}
    found = reduce_per_example(mlp, reductions, chunk_size=4)(params, batch).results
    expected = by_loop(mlp, params, batch, range(SIZE))
    norms = {"re:w|b": np.hypot(*(expected["leaf_norms"][k] for k in "wb")), "v": expected["leaf_norms"]["v"]}
    close(found["norms"], norms, 1e-6)
    for leaf, group in {"w": "re:w|b", "b": "re:w|b", "v": "v"}.items():
        factors = np.minimum(1, limits[group] / norms[group])
        close(found["clipped"][leaf], np.tensordot(factors, expected["grads"][leaf], 1), 2e-6)
    with pytest.raises(ValueError, match=r"the leaf 'b' matches none of 'w', 'v'"):
        reduce_per_example(mlp, ClippedSum({"w": 1.0, "v": 1.0}))(params, batch)


def test_a_reduction_of_ones_own(rng):
    class Spread(Reduction):
        def init(self, params):
            return jnp.zeros(())

        def add(self, carry, chunk):
            return jnp.maximum(carry, jnp.max(jnp.where(chunk.used, chunk.squared_norms, 0)))

        def each(self, chunk):
            return chunk.losses * 2

        def finish(self, carry, each, end):
            return jnp.sqrt(carry), jnp.sum(each), end.count

    params, batch = draw(rng, MODELS["mlp"][1]), a_batch(rng)
    expected = by_loop(mlp, params, batch, range(SIZE))
    most, total, count = reduce_per_example(mlp, Spread(), chunk_size=4)(params, batch).results
    np.testing.assert_allclose((most, total), (expected["norms"].max(), 2 * expected["losses"].sum()), rtol=1e-5)
    assert int(count) == SIZE


def test_it_maps_over_params_and_runs_under_jit(rng):
    batch = a_batch(rng)
    several = {"w": rng.normal(size=(3, 8)).astype(np.float32), "b": np.zeros(3, np.float32)}
    run = clipped_value_and_grad(linear, 10 * MAX_NORM, chunk_size=4)
    mapped = jax.jit(jax.vmap(run, (0, None)))(several, batch)
    mapped = jax.tree.map(np.asarray, mapped)
    for i in range(3):
        one = run(jax.tree.map(lambda leaf, i=i: leaf[i], several), batch)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=2e-5, atol=1e-6), mapped, one)


def test_integer_leaves_are_left_alone_and_complex_ones_have_norms():
    def loss(p, x):
        return jnp.mean(x) * (jnp.real(p["z"]) + 2 * jnp.imag(p["z"])) * p["n"]

    found = reduce_per_example(loss, {"sum": Sum(), "norms": Norms(), "cosine": CosineToMean()}, chunk_size=2)(
        {"z": jnp.array(1 + 1j), "n": jnp.array(3)}, jnp.array([1.0, -2.0, 3.0])
    )
    np.testing.assert_allclose(found.results["norms"], 3 * np.sqrt(5) * np.array([1, 2, 3]), rtol=1e-6)
    np.testing.assert_allclose(found.results["cosine"], [1, -1, 1], rtol=1e-6)
    assert found.results["sum"]["n"].dtype == jnp.int32


def test_the_loss_may_see_an_example_without_its_axis_and_return_aux():
    def loss(w, x):
        assert x.shape == (2,)
        return jnp.sum(w * x), {"twice": 2 * x}

    run = per_example_grads(loss, has_aux=True, keep_batch_dim=False, chunk_size=2)
    (losses, aux), grads = run(np.ones(2, np.float32), np.arange(6, dtype=np.float32).reshape(3, 2))
    np.testing.assert_array_equal(losses, [1, 5, 9])
    np.testing.assert_array_equal(aux["twice"], 2 * np.asarray(grads))


@pytest.mark.usefixtures("as_compiled_for_users")
def test_the_largest_chunk_that_fits_is_taken():
    def needs(c):
        return 100 + 10 * c

    assert auto_chunk_size(64, 10_000, needs) == 64
    assert auto_chunk_size(64, 500, needs) == 32
    assert auto_chunk_size(64, 419, needs) == 16
    assert auto_chunk_size(64, 115, needs) == 1
    assert auto_chunk_size(64, 500, lambda c: 100 + 10 * c + (c > 8) * 1000) == 8  # not affine: looked at again
    with pytest.raises(ValueError, match="one example at a time takes 110 bytes"):
        auto_chunk_size(64, 50, needs)
    params, batch = jnp.ones((32, 32)), jnp.ones((SIZE, 32))
    run = clipped_value_and_grad(
        lambda w, x: jnp.mean((x @ w) ** 2), 1.0, chunk_size="auto", memory=5 * 4 * params.size
    )
    assert largest(jax.make_jaxpr(run)(params, batch).jaxpr) < 8 * params.size


@pytest.mark.parametrize(
    ("options", "batch", "message"),
    [
        ({"chunk_size": 0}, None, r"chunk_size must be a whole number of at least 1, None or 'auto'; got 0"),
        ({"memory": 5}, None, r"memory=5 is a budget for chunk_size='auto'"),
        ({"on_nonfinite": "skip"}, None, r"on_nonfinite must be one of 'keep', 'drop'"),
        ({}, {"x": jnp.ones((3, 8)), "y": jnp.ones(2)}, r"the batch leaf at \['y'\] has 2 examples; expected 3"),
        ({}, {"x": jnp.ones(())}, r"the batch leaf at \['x'\] is a scalar"),
        ({}, Padded({"x": jnp.ones((3, 8))}, jnp.ones(2, bool)), r"the mask of the padded batch has shape \(2,\)"),
        ({"keep_batch_dim": False}, {"x": jnp.ones((3, 8)), "y": jnp.ones((3, 8))}, r"expected a scalar loss; got"),
    ],
)
def test_what_cannot_be_is_refused(options, batch, message):
    def loss(p, batch):
        return jnp.mean((p - batch["x"]) ** 2, axis=0) if not options.get("keep_batch_dim", True) else jnp.sum(p)

    def call():
        reduce_per_example(lambda p, b: loss(p, b)[..., None].sum(-1), Mean(), **options)(jnp.ones((8, 8)), batch)

    with pytest.raises(ValueError, match=message):
        call()
    with pytest.raises(ValueError, match="max_norm must be above 0; got 0"):
        clipped_value_and_grad(loss, 0)
    with pytest.raises(TypeError, match=r"Call it: Mean\(\)"):
        reduce_per_example(loss, {"mean": Mean})


def test_a_loss_of_one_example_gets_the_example():
    def of_one(w, example):
        return (jnp.dot(w, example["x"]) - example["y"]) ** 2  # a batch of one would give shape (1,), or none at all

    def of_batches(w, batch):
        return jnp.mean((batch["x"] @ w - batch["y"]) ** 2)

    batch = {"x": jnp.arange(6.0).reshape(3, 2), "y": jnp.ones(3)}
    w = jnp.array([0.5, -1.0])
    for found, expected in zip(per_example_grads(of_one)(w, batch), per_example_grads(of_batches)(w, batch)):
        np.testing.assert_allclose(found, expected)
    with pytest.raises(TypeError, match="contracting dimensions"):
        per_example_grads(of_one, keep_batch_dim=True)(w, batch)


def test_the_clipped_gradient_alone():
    def loss(w, batch):
        return jnp.mean((batch - w) ** 2), batch

    batch = jnp.array([0.0, 1.25, 3.0])
    (losses, aux), expected = clipped_value_and_grad(loss, 1.0, has_aux=True)(jnp.array(1.0), batch)
    grads, same = clipped_grad(loss, 1.0, has_aux=True)(jnp.array(1.0), batch)
    np.testing.assert_array_equal(grads, expected)
    np.testing.assert_array_equal(same, aux)
    np.testing.assert_array_equal(clipped_grad(lambda w, b: loss(w, b)[0], 1.0)(jnp.array(1.0), batch), expected)
    assert losses.shape == (3,)
