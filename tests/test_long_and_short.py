"""Gradients whose squares overflow or vanish: what divides by a norm, or clips by one, does so rightly.

The oracle is the same call on the same numbers in float64, whose squares are ordinary numbers.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgd
from jgd.core import global_norm, squares

SHAPES = {"matrix": (4, 3), "vector": (5,)}


class Case(NamedTuple):
    """`make` gives an optimizer; `sizes` are those of the gradients that it must be right for."""

    name: str
    make: Callable[[], Any]
    sizes: tuple[float, ...] = (1e-30, 1e-25, 1e20, 3e38)
    params: tuple[float, ...] = (1.0,)
    leaves: tuple[str, ...] = tuple(SHAPES)


CLIPPINGS = [
    Case("clip_by_global_norm", lambda: jgd.clip_by_global_norm(0.7)),
    Case("clip_by_global_norm_far_below", lambda: jgd.clip_by_global_norm(1e-31), sizes=(1e-30, 1.0, 1e20)),
    Case("clip_by_block_rms", lambda: jgd.clip_by_block_rms(0.7)),
    Case("adaptive_grad_clip", lambda: jgd.adaptive_grad_clip(0.3), params=(1.0, 1e20)),
    Case("adaptive_grad_clip_axis", lambda: jgd.adaptive_grad_clip(0.3, axis=-1)),
    Case("clip_update_rms", lambda: jgd.clip_update_rms(jgd.sgd(1.0), 0.7)),
    Case("mars", lambda: jgd.mars(jgd.sgd(1.0)), sizes=(1e-30, 1e20, 1e38)),
]
NORMS = [
    Case("normalize", jgd.normalize),
    Case("trust_ratio", lambda: jgd.trust_ratio(jgd.sgd(0.1)), params=(1.0, 1e20, 1e-15)),
    Case("hyperball", lambda: jgd.hyperball(jgd.sgd(0.1)), sizes=(1e-3, 1e20, 3e38), params=(1.0, 1e20)),
    Case(
        "orthogonal_gradient",
        lambda: jgd.orthogonal_gradient(jgd.sgd(0.1)),
        sizes=(1e-30, 1e-25, 1e20, 1e38),
        params=(1.0, 1e20, 1e-20),
    ),
]
_FOR_MUON = (1e-25, 1e20, 1e38)
RULES = [
    Case("lars", lambda: jgd.lars(0.1, trust_coefficient=0.5), params=(1.0, 1e20)),
    Case("lamb", lambda: jgd.lamb(0.1, weight_decay=1e-3), sizes=(1e-3, 1e15), params=(1.0, 1e22)),
    Case("fromage", lambda: jgd.fromage(0.1, min_norm=0.0), params=(1.0, 1e20)),
    Case("adafactor", lambda: jgd.adafactor(0.1), sizes=(1e-3, 1e15), params=(1.0, 1e20)),
    Case("adamp", lambda: jgd.adamp(0.1, weight_decay=1e-2), sizes=(1e-3, 1e15), params=(1.0, 1e20)),
    Case("sgd_sai", lambda: jgd.sgd_sai(0.1, eps=0.0, weight_decay=0.0), sizes=(1e-30, 1e20, 1e37)),
    Case("muon", lambda: jgd.muon(0.1, eps=1e-32), _FOR_MUON, leaves=("matrix",)),
    *(
        Case(
            f"muon_{kind}",
            functools.partial(jgd.muon, 0.1, eps=0.0, preconditioning=kind),
            _FOR_MUON,
            leaves=("matrix",),
        )
        for kind in ("spectral", "aol", "schatten")
    ),
    Case("lbfgs", lambda: jgd.lbfgs(0.1, linesearch=None), sizes=(1e-3, 1e20, 1e37)),
    Case("polyak_sgd", lambda: jgd.polyak_sgd(f_min=-1e3), sizes=(1e-3, 1e20, 1e25)),
]
CASES = CLIPPINGS + NORMS


def _numbers(key: int, size: float, dtype: Any) -> dict[str, np.ndarray]:
    """Numbers of about that size, none larger, all of which the dtype holds."""
    rng = np.random.default_rng(key)
    draw = {name: rng.uniform(0.3, 1, shape) * rng.choice([-1, 1], shape) for name, shape in SHAPES.items()}
    return {name: np.array(jnp.asarray(size * x, jnp.float32).astype(dtype)) for name, x in draw.items()}


def _update(optimizer: Any, grads: Any, params: Any) -> Any:
    return optimizer.update(grads, optimizer.init(params), params, value=jnp.ones(()))[0]


def _wide(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def _rows() -> list[Any]:
    """Rules are rounded to bfloat16 by what lifts them, the same for all: for them that is slow enough to wait."""
    rules = [pytest.param(case, "bfloat16", id=f"bfloat16-{case.name}", marks=pytest.mark.slow) for case in RULES]
    quick = [(case, dtype) for dtype in ("float32", "bfloat16") for case in CASES] + [
        (case, "float32") for case in RULES
    ]
    return [pytest.param(case, dtype, id=f"{dtype}-{case.name}") for case, dtype in quick] + rules


@pytest.mark.parametrize(("case", "dtype"), _rows())
def test_the_update_is_that_of_float64(case: Case, dtype: str):
    optimizer = case.make()
    jitted = jax.jit(lambda grads, params: _update(optimizer, grads, params))
    rtol = 2.0**-7 if dtype == "bfloat16" else 2e-6
    for size, param in itertools.product(case.sizes, case.params):
        grads, params = _numbers(0, size, dtype), _numbers(1, param, dtype)
        with jax.enable_x64(True):
            expected = jax.tree.map(np.asarray, _update(case.make(), _wide(grads), _wide(params)))
        for name, right in ((name, expected[name]) for name in case.leaves):
            largest, found = np.max(np.abs(right)), np.asarray(jitted(grads, params)[name], np.float64)
            assert 0 < largest < np.inf
            np.testing.assert_allclose(found, right, rtol=0, atol=rtol * largest, err_msg=f"{size} {param} {name}")
    eager = _update(optimizer, grads, params)
    for found, right in zip(*map(jax.tree.leaves, (eager, jitted(grads, params))), strict=True):
        np.testing.assert_allclose(found, right, rtol=0, atol=rtol * float(jnp.max(jnp.abs(right))))


@pytest.mark.parametrize(
    ("make", "ordinary"), [(lambda: jgd.dion(0.1), 1.0), (lambda: jgd.kron(0.1), 1e8)], ids=["dion", "kron"]
)
@pytest.mark.parametrize("size", [1e20])
def test_random_rules_step_as_for_ordinary_gradients(make: Callable[[], Any], ordinary: float, size: float):
    params, optimizer = _numbers(1, 1.0, "float32"), make()
    run = jax.jit(lambda grads, state: optimizer.update(grads, state, params))
    state = other = optimizer.init(params)
    for key in range(2):
        direction, state = run(_numbers(key, size, "float32"), state)
        expected, other = run(_numbers(key, ordinary, "float32"), other)
        np.testing.assert_allclose(direction["matrix"], expected["matrix"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_visible(case: Case, bad: float):
    grads, params = _numbers(0, 1.0, "float32"), _numbers(1, 1.0, "float32")
    grads["matrix"][1, 1] = bad
    found = _update(case.make(), grads, params)["matrix"]
    assert not np.isfinite(found).all()
    assert np.isnan(found).all() or np.isinf(bad) or "adaptive" in case.name  # that one treats rows apart


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_derivative_at_zero_is_finite(case: Case):
    params, optimizer = _numbers(1, 1.0, "float32"), case.make()
    zeros = jax.tree.map(jnp.zeros_like, params)
    for derive in (jax.jacfwd, jax.jacrev):
        for point in (zeros, zeros | {"vector": params["vector"]}):
            found = derive(lambda grads: _update(optimizer, grads, params))(point)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize("case", CLIPPINGS[:6], ids=lambda case: case.name)
def test_the_derivative_of_a_clipping_at_zero_is_one(case: Case):
    params, optimizer = _numbers(1, 1.0, "float32"), case.make()
    zeros = jax.tree.map(jnp.zeros_like, params)
    sign = -1 if case.name == "clip_update_rms" else 1
    found = jax.jacrev(lambda grads: _update(optimizer, grads, params))(zeros)["matrix"]["matrix"]
    np.testing.assert_array_equal(found.reshape(12, 12), sign * np.eye(12))


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1.0, 1e20, 1e37])
def test_the_norm_and_its_derivatives_under_every_transformation(size: float):
    x = np.float32(size) * np.array([3.0, 0.0, -4.0], np.float32)
    unit = x / np.float64(5 * size)
    for norm in (global_norm, jax.jit(global_norm), jax.jit(jax.jit(global_norm))):
        np.testing.assert_allclose(norm(x), 5 * size, rtol=1e-6)
        np.testing.assert_allclose(jax.grad(norm)(x), unit, rtol=1e-6)
        np.testing.assert_allclose(jax.jvp(norm, (x,), (x,))[1], 5 * size, rtol=1e-6)
        np.testing.assert_allclose(jax.vmap(norm)(np.stack([x, x / size, 0 * x])), [5 * size, 5, 0], rtol=1e-6)
        if 1e-20 < size < 1e30:  # second derivatives are of the size of its inverse, and squares of that on the way
            hessian = np.float32(5 * size) * jax.hessian(norm)(x)
            np.testing.assert_allclose(hessian, np.eye(3) - np.outer(unit, unit), atol=1e-6)
    np.testing.assert_allclose(jax.lax.scan(lambda c, y: (c, global_norm(y)), 0, x[None])[1], [5 * size], rtol=1e-6)
    np.testing.assert_allclose(global_norm({"a": x, "b": 1j * x}), 5 * size * np.sqrt(2), rtol=1e-6)
    across = squares([jnp.stack([x, x / size]).astype(jnp.float32)], (1,))
    np.testing.assert_allclose(across.length / across.scale, [[5 * size], [5]], rtol=1e-6)


def test_the_norm_of_sharded_numbers():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    norm = jax.shard_map(
        lambda x: jax.lax.pmax(global_norm(x), "data"), mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P()
    )
    np.testing.assert_allclose(jax.jit(norm)(np.array([3e20, 4e20], np.float32)), 5e20, rtol=1e-6)


def test_the_norm_in_float64_and_of_several_dtypes():
    with jax.enable_x64(True):
        for size in (1e-300, 1e-160, 1.0, 1e160, 1e300):
            x = size * np.array([3.0, -4.0])
            np.testing.assert_allclose(global_norm(x), 5 * size, rtol=1e-14)
            np.testing.assert_allclose(jax.grad(global_norm)(x), [0.6, -0.8], rtol=1e-14)
        mixed = [np.array([3e20], np.float32), np.array([4e20]), np.array([1], np.float16)]
        np.testing.assert_allclose(global_norm(mixed), 5e20, rtol=1e-6)
    assert global_norm([]) == 0


def test_ordinary_norms_are_the_plain_ones_bit_for_bit():
    x = jax.random.normal(jax.random.key(0), (1000,))
    for size in (1e-8, 1.0, 1e15):
        assert global_norm(size * x) == jnp.sqrt(jnp.sum(jnp.square(size * x)))


@pytest.mark.parametrize("size", [1e-30, 1e20, 1e37])
def test_examples_are_clipped_and_not_lost(size: float):
    aggregate: Any = jgd.differentially_private_aggregate(1.0, 0.0, key=0)
    grads = np.array([[3 * size, 4 * size], [0.3, 0.4]], np.float32)
    found = _update(aggregate, grads, None)
    shortened = np.array([0.6, 0.8]) * min(1, 5 * size)
    np.testing.assert_allclose(found, (shortened + [0.3, 0.4]) / 2, rtol=1e-6)


@pytest.mark.parametrize("size", [np.nan, np.inf, 1e20])
def test_a_per_example_norm_that_overflows_is_seen(size: float):
    run: Any = jgd.clipped_grad(lambda params, batch: jnp.mean(params * batch), 1.0)
    assert np.isnan(run(jnp.array(1.0), np.array([size, 1.0], np.float32)))


@pytest.mark.parametrize("make", [jgd.adam, jgd.adamw, jgd.rmsprop, jgd.adagrad], ids=lambda make: make.__name__)
def test_a_square_that_overflows_stops_its_own_parameter_alone_unless_it_is_clipped(make: Callable[..., Any]):
    params = jnp.zeros(2)

    def last_update(optimizer: Any) -> Any:
        state = optimizer.init(params)
        for grads in (jnp.array([1e20, 1.0]), jnp.ones(2), jnp.ones(2)):
            updates, state = optimizer.update(grads, state, params)
        return updates

    found = last_update(make(0.1))
    assert found[0] == 0
    assert found[1] < -0.01
    assert (last_update(jgd.chain(jgd.clip_by_global_norm(1.0), make(0.1))) < -0.01).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
def test_an_example_that_cannot_be_clipped_is_seen(bad: float):
    aggregate = jgd.differentially_private_aggregate(1.0, 0.0, key=0)
    found = _update(aggregate, np.array([[bad, bad], [0.3, 0.4]], np.float32), None)
    assert np.isnan(found).all()


@pytest.mark.parametrize("make", [jgd.sgd_sai, jgd.kron, jgd.muon, jgd.apollo], ids=lambda make: make.__name__)
def test_the_derivative_of_a_rule_with_a_norm_is_finite_at_zero(make: Callable[..., Any]):
    params, optimizer = jnp.ones((3, 2)), make(0.1)
    found = jax.jacfwd(lambda grads: _update(optimizer, grads, params))(jnp.zeros((3, 2)))
    assert np.isfinite(found).all()
