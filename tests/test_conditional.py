import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgd.core import tree_where, when


def grown(carry, operands):
    x, count = carry
    by, power = operands
    return x * by**power, count + 1


@pytest.mark.parametrize("condition", [True, False])
def test_as_a_branch(condition):
    def looped(x, by):
        return when(jnp.array(condition), grown, (x, jnp.int32(3)), (by, jnp.int32(2)))

    def branched(x, by):
        return jax.lax.cond(
            condition, lambda x: grown((x, jnp.int32(3)), (by, jnp.int32(2))), lambda x: (x, jnp.int32(3)), x
        )

    x, by = jnp.arange(1.0, 4), jnp.float32(1.5)
    for function in (looped, jax.jit(looped)):
        for found, expected in zip(function(x, by), branched(x, by), strict=True):
            np.testing.assert_array_equal(found, expected)
            assert (found.dtype, found.weak_type) == (expected.dtype, expected.weak_type)
    for derive in (jax.jacfwd, jax.jacrev):
        found, expected = (derive(lambda *args, f=f: f(*args)[0], argnums=(0, 1))(x, by) for f in (looped, branched))
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)


def test_each_lane_for_itself():
    due = jnp.array([True, False, True])
    found = jax.vmap(lambda due, x: when(due, lambda x, _: 10 * x, x))(due, jnp.arange(3.0))
    np.testing.assert_array_equal(found, [0, 1, 20])


def test_nothing_is_copied_where_nothing_is_done():
    """XLA would copy two arrays through a branch that returns them as they are, and again after it."""

    def step(use, x, y):
        return when(use, lambda carry, _: (carry[0] @ carry[1], carry[1] @ carry[0]), (x, y))

    x = jnp.ones((256, 256))
    compiled = jax.jit(step, donate_argnums=(1, 2)).lower(jnp.array(False), x, x).compile()
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes == 2 * x.nbytes
    assert memory.temp_size_in_bytes < 2.5 * x.nbytes  # the products, before they take the places of x and y
    computations = re.split(r"\n(?=%|ENTRY)", compiled.as_text())
    copying = [text for text in computations if "f32[256,256]{1,0} copy(" in text]
    assert all("dot" in text or "fusion(" in text for text in copying), "only where the products are made"


def test_one_of_two_trees():
    trees = {"a": jnp.arange(2.0), "b": (jnp.int32(1),)}, {"a": jnp.ones(2), "b": (jnp.int32(7),)}
    for choice, tree in zip((True, False), trees, strict=True):
        found = jax.jit(tree_where)(jnp.array(choice), *trees)
        jax.tree.map(np.testing.assert_array_equal, found, tree)


def test_a_leaf_that_both_trees_share_is_not_selected():
    text = jax.jit(lambda c, x, y: tree_where(c, (x, y), (x, 2 * y))).lower(True, 1.0, 2.0).as_text()
    assert text.count("stablehlo.select") == 1
