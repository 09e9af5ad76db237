"""jgd against optax: random trees, random hyperparameters, a hundred steps, params and moments."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import RULES
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import over

import jgd

STEPS = 100
SLOTS = ("mu", "nu", "nu_max", "trace")


@st.composite
def trees(draw):
    """A nested tree of shapes: the same few shapes, so that compiled programs are few, in any nesting."""
    shapes = st.sampled_from([(), (3,), (2, 4), (2, 3, 2, 2)])
    return draw(
        st.recursive(
            shapes.map(np.zeros),
            lambda inner: st.one_of(
                st.lists(inner, min_size=1, max_size=3),
                st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
                st.tuples(inner, inner),
            ),
            max_leaves=4,
        )
    )


RANDOM = [rule for rule in RULES if rule.ranges]


def settings_of(rule):
    """Random hyperparameters from the ranges of the rule's row."""
    return st.fixed_dictionaries(
        {name: st.booleans() if bounds is bool else st.floats(*bounds) for name, bounds in rule.ranges.items()}
    )


def problem(shapes, seed):
    """Params around one and gradients over four decades, in float64; float32 takes them rounded."""
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)
    grads = jax.tree.map(
        lambda leaf: rng.normal(size=(STEPS, *leaf.shape)) * 10.0 ** rng.uniform(-3, 1, size=leaf.shape), shapes
    )
    # Both precisions get the same numbers, so that only the arithmetic differs.
    return jax.tree.map(lambda leaf: leaf.astype(np.float32).astype(np.float64), (params, grads))


def run(optimizer, params, grads, dtype):
    params, grads = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (params, grads))

    def body(carry, grad):
        params, state = carry
        updates, state = optimizer.update(grad, state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, state), _ = jax.lax.scan(body, (params, optimizer.init(params)), grads)
    found = {slot: optax.tree.get(state, slot) for slot in SLOTS}
    return {"params": params} | {slot: tree for slot, tree in found.items() if tree is not None}


def worst_difference(found, expected):
    """Relative to the largest entry of the leaf: an entry that happens to be near zero has no digits to compare."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return max(np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-12) for a, b in pairs)


def compare(rule, dtype, seed, examples, tolerance):
    """Holds jgd's run to optax's on random trees with random hyperparameters."""

    @settings(max_examples=examples)  # each example compiles two programs
    @given(chosen=settings_of(rule), shapes=trees())
    def check(chosen, shapes):
        params, grads = problem(shapes, seed)
        with jax.enable_x64(dtype == jnp.float64):
            found = run(rule.factory(**chosen), params, grads, dtype)
            expected = run(getattr(optax, rule.name)(**chosen), params, grads, dtype)
            for name in expected:
                assert worst_difference(found[name], expected[name]) < tolerance, name

    check()


EXAMPLES = pytest.mark.parametrize("examples", [4, pytest.param(20, marks=pytest.mark.slow)])


@EXAMPLES
@over("rule", RANDOM)
def test_it_equals_optax_in_float64(rule, examples):
    compare(rule, jnp.float64, 1, examples, 1e-12)


@EXAMPLES
@over("rule", RANDOM)
def test_it_equals_optax_in_float32(rule, examples):
    compare(rule, jnp.float32, 2, examples, 2e-5)


def median_errors(rule):
    """For each quantity the median distance to optax's float64 result of jgd in float32 and of optax in float32."""
    chosen = dict(rule.median) | {"learning_rate": 0.01}
    params, grads = problem([np.zeros(4000)], seed=3)
    with jax.enable_x64(True):
        truth = jax.tree.map(np.asarray, run(getattr(optax, rule.name)(**chosen), params, grads, jnp.float64))

    def errors(library):
        found = run(getattr(library, rule.name)(**chosen), params, grads, jnp.float32)
        pairs = {name: (np.asarray(found[name][0], np.float64), truth[name][0]) for name in truth}
        return {name: np.median(np.abs(value - exact) / np.abs(exact)) for name, (value, exact) in pairs.items()}

    return errors(jgd), errors(optax)


# A compiler is free to contract a product and a sum into one rounding, in either program: MARGIN is what that may do to
# a median. Between jax 0.10 and 0.12 it moved one of them by 1.2%; 1 - b taken of the rounded b moves four by 20% and
# more.
MARGIN = 1.03


@pytest.mark.usefixtures("as_compiled_for_users")
@over("rule", [rule for rule in RULES if rule.median])
def test_in_the_median_float32_is_no_further_from_the_truth_than_optax_is(rule):
    ours, theirs = median_errors(rule)
    for name in theirs:
        assert ours[name] <= MARGIN * theirs[name], (
            f"{rule.name} {name}: jgd {ours[name]:.2e}, optax {theirs[name]:.2e}"
        )
