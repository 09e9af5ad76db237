"""Clipping, decay, scaling, and putting things in a row."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import jgd

# Subnormal numbers are left out: XLA flushes them to zero, whatever is computed with them.
numbers = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
finite = hnp.arrays(np.float32, hnp.array_shapes(max_dims=2, max_side=4), elements=numbers)


def clip(tree, max_norm):
    transform = jgd.clip_by_global_norm(max_norm)
    return transform.update(tree, transform.init(tree))[0]


@given(leaves=st.lists(finite, min_size=1, max_size=3), max_norm=st.floats(1e-3, 1e6))
def test_the_norm_is_at_most_the_limit(leaves, max_norm):
    tree = [jnp.asarray(leaf) for leaf in leaves]
    # A few roundings of float32: the norm, the quotient, the product.
    assert float(jgd.global_norm(clip(tree, max_norm))) <= max_norm * (1 + 1e-5)


@given(leaves=st.lists(finite, min_size=1, max_size=3))
def test_a_tree_inside_the_limit_comes_out_bit_for_bit(leaves):
    tree = [jnp.asarray(leaf) for leaf in leaves]
    for found, given_leaf in zip(clip(tree, 1e8), tree, strict=True):
        np.testing.assert_array_equal(found, given_leaf)


@given(leaves=st.lists(finite, min_size=1, max_size=3), max_norm=st.floats(1e-2, 1e3))
def test_clipping_equals_optax(leaves, max_norm):
    tree = [jnp.asarray(leaf) for leaf in leaves]
    expected, _ = optax.clip_by_global_norm(max_norm).update(tree, optax.EmptyState())
    for found, wanted in zip(clip(tree, max_norm), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_the_norm_of_low_precision_leaves_neither_overflows_nor_stalls(dtype):
    # 300^2 is beyond float16, and a sum of a thousand ones stalls at 256 in bfloat16.
    np.testing.assert_allclose(jgd.global_norm(jnp.full(1000, 300.0, dtype)), 300 * np.sqrt(1000), rtol=1e-2)
    clipped = clip({"a": jnp.full(1000, 300.0, dtype)}, 1.0)["a"]
    assert clipped.dtype == dtype
    np.testing.assert_allclose(jgd.global_norm(clipped), 1.0, rtol=1e-2)


def test_what_is_clipped_is_rounded_once():
    # In bfloat16 the factor 0.7525 / 1.5 would be 0.5.
    assert float(clip(jnp.array(1.5, jnp.bfloat16), 0.7525)) == 0.75390625  # the number next to 0.7525


def test_a_gradient_that_is_not_a_number_is_not_hidden():
    clipped = clip({"a": jnp.array([jnp.nan, 1.0]), "b": jnp.ones(2)}, 1.0)
    assert all(bool(jnp.all(jnp.isnan(leaf))) for leaf in clipped.values())


def test_clipping_a_zero_tree_is_smooth():
    np.testing.assert_array_equal(clip(jnp.zeros(3), 1.0), np.zeros(3))
    derivative = jax.jacobian(lambda g: clip(g, 1.0))(jnp.zeros(3))
    np.testing.assert_array_equal(derivative, np.eye(3))


def test_integer_leaves_pass_through_clipping_and_scaling():
    tree = {"n": jnp.arange(3), "w": jnp.full(2, 3.0)}
    optimizer = jgd.chain(jgd.clip_by_global_norm(1.0), jgd.scale_by_learning_rate(1.0))
    updates, _ = optimizer.update(tree, optimizer.init(tree))
    np.testing.assert_array_equal(updates["n"], [0, 1, 2])
    np.testing.assert_allclose(updates["w"], -np.sqrt(0.5), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_decay_and_scaling_equal_optax_and_keep_the_dtype(dtype):
    params = {"a": jnp.array([1.0, -2.0], dtype), "b": jnp.array(3.0, dtype)}
    grads = jax.tree.map(lambda p: (0.5 * p).astype(dtype), params)
    mask = {"a": True, "b": False}
    ours = jgd.chain(jgd.add_decayed_weights(0.25, mask), jgd.scale_by_learning_rate(0.5))
    theirs = optax.chain(optax.add_decayed_weights(0.25, mask), optax.scale_by_learning_rate(0.5))
    found, _ = ours.update(grads, ours.init(params), params)
    expected, _ = theirs.update(grads, theirs.init(params), params)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == dtype
        np.testing.assert_array_equal(a, b)  # every number here is exact in binary


def test_the_mask_of_matrices_decays_what_has_two_axes_and_more():
    params = [jnp.ones((2,) * axes) for axes in range(4)]
    decay = jgd.add_decayed_weights(0.25, "matrices")
    updates, _ = decay.update(jax.tree.map(jnp.zeros_like, params), decay.init(params), params)
    assert [float(jnp.max(leaf)) for leaf in updates] == [0, 0, 0.25, 0.25]


def test_climbing_is_descending_with_the_sign_kept():
    transform = jgd.scale_by_learning_rate(0.5, flip_sign=False)
    np.testing.assert_array_equal(transform.update(jnp.ones(2), transform.init(None))[0], [0.5, 0.5])


def test_a_chain_passes_extra_arguments_to_those_who_take_them():
    optimizer = jgd.chain(optax.clip(1.0), optax.polyak_sgd(), jgd.scale_by_learning_rate(1.0, flip_sign=False))
    params = jnp.array([3.0])
    updates, _ = optimizer.update(2 * params, optimizer.init(params), params, value=jnp.sum(params**2))
    assert np.all(np.isfinite(updates))


def test_a_chain_shows_its_parts_and_is_a_tuple_like_any_of_optax():
    optimizer = jgd.chain(optax.clip(1.0), jgd.clip_by_global_norm(2.0), jgd.sgd(0.1))
    shown = "jgd.chain(<optax transform>, jgd.clip_by_global_norm(max_norm=2.0), jgd.sgd(learning_rate=0.1))"
    assert repr(optimizer) == shown
    init, update = optimizer
    assert len(init(jnp.ones(1))) == 3
    assert callable(update)
    assert isinstance(optimizer, optax.GradientTransformationExtraArgs)
    hash(optimizer)


def test_clipping_before_a_rule_equals_optax_over_many_steps():
    rng = np.random.default_rng(0)
    params = theirs_params = {"a": jnp.ones((3, 2)), "b": jnp.ones(4)}
    ours = jgd.chain(jgd.clip_by_global_norm(1.0), jgd.adamw(0.01))
    theirs = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.01))
    state, their_state = ours.init(params), theirs.init(params)
    for _ in range(20):
        grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape) * 3, jnp.float32), params)
        updates, state = ours.update(grads, state, params)
        params = jgd.apply_updates(params, updates)
        updates, their_state = theirs.update(grads, their_state, theirs_params)
        theirs_params = optax.apply_updates(theirs_params, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), params, theirs_params)
