"""What the rules with a formula in `formulas.py` owe their users beside what `check_optimizer` asks of every rule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES
from tiers import over

import jgd

every_case = over("case", CASES)


def wide_gradients(rng, shape, steps=20):
    """Gradients over eight decades, exact zeros among them: what exposes an epsilon in the wrong place."""
    grads = rng.normal(size=(steps, *shape)) * 10.0 ** rng.uniform(-6, 2, size=(steps, *shape))
    return np.where(rng.uniform(size=grads.shape) < 0.05, 0.0, grads)


def params_of(dtype="float32"):
    rng = np.random.default_rng(1)
    tree = {"kernel": rng.normal(size=(4, 3)), "layers": [rng.normal(size=3), rng.normal(size=(2, 2, 3))], "s": 0.5}
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


def descend(optimizer, params, grads):
    """All steps as one scan over stacked gradients."""

    def body(carry, grad):
        params, state = carry
        updates, state = optimizer.update(grad, state, params)
        return (jgd.apply_updates(params, updates), state), None

    return jax.lax.scan(body, (params, optimizer.init(params)), grads)[0]


@every_case
def test_it_equals_the_formula_of_its_paper(case, rng, x64):
    param, grads = rng.normal(size=(5, 7)), wide_gradients(rng, (5, 7))
    expected_param, expected_slots = case.expected(param, grads)
    found_param, state = descend(case.optimizer(), jnp.asarray(param), jnp.asarray(grads))
    # 1e-9 is the promise of DESIGN; float64 leaves four more digits for the Newton-Schulz iteration.
    np.testing.assert_allclose(found_param, expected_param, rtol=1e-9, atol=1e-12)
    for slot, value in expected_slots.items():
        np.testing.assert_allclose(state.slots[slot], value, rtol=1e-9, atol=1e-14)


@over(
    "case",
    [case for case in CASES if not (case.written.real_only or case.written.for_matrices)],
)
def test_it_equals_the_formula_on_complex_leaves(case, rng, x64):
    param = rng.normal(size=6) + 1j * rng.normal(size=6)
    grads = wide_gradients(rng, (6,)) + 1j * wide_gradients(rng, (6,))
    expected, _ = case.expected(param, grads)
    found, state = descend(case.optimizer(), jnp.asarray(param), jnp.asarray(grads))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert "nu" not in state.slots or not jnp.iscomplexobj(state.slots["nu"])


def test_a_state_made_from_an_array_does_not_take_that_array_along():
    rate = jnp.array(0.1)
    assert jgd.sgd(rate).init(jnp.zeros(1)).hyperparams["learning_rate"] is not rate


@every_case
def test_names_and_nesting_do_not_matter(case, rng):
    optimizer = case.optimizer()
    leaves = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((3, 2), (4,), ())]
    flat, _ = optimizer.update(leaves, optimizer.init(leaves), leaves)
    nested = {"z": leaves[0], "a": {"k": (leaves[1], [leaves[2]])}}
    other, _ = optimizer.update(nested, optimizer.init(nested), nested)
    for found, expected in zip((other["z"], other["a"]["k"][0], other["a"]["k"][1][0]), flat, strict=True):
        np.testing.assert_array_equal(found, expected)


@every_case
@pytest.mark.parametrize(
    "params",
    [
        jax.ShapeDtypeStruct((3, 2), jnp.float32),
        {},
        {"a": None, "b": np.ones(2, np.float32)},
        {"n": np.arange(3), "w": np.ones(2, np.float32), "flag": np.array(True)},
        {"empty": np.zeros((0, 3), np.float32)},
    ],
    ids=["abstract", "no_leaves", "none", "integers", "zero_size"],
)
def test_its_slots_have_their_names_whatever_the_params(case, params):
    state = jax.eval_shape(case.optimizer().init, params)
    assert set(state.slots) == set(case.written.slots)
    assert all(leaf.dtype != jnp.float64 for leaf in jax.tree.leaves(state))


def test_random_keys_among_the_params_are_left_alone():
    optimizer, params = jgd.adamw(0.1), {"w": jnp.ones(2), "key": jax.random.key(0)}
    grads = {"w": jnp.ones(2), "key": np.zeros((), jax.dtypes.float0)}
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    new = jgd.apply_updates(params, updates)
    assert new["key"] is params["key"]
    assert np.all(new["w"] != params["w"])


@every_case
def test_the_types_of_the_state_hold_in_float64(case, x64):
    optimizer, params = case.optimizer(), {"a": np.ones((2, 2)), "b": np.ones(3, np.float32)}
    state = jax.eval_shape(optimizer.init, params)
    updates, after = jax.eval_shape(optimizer.update, params, state, params)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), (state, updates)) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), (after, jax.eval_shape(lambda: params))
    )


@every_case
def test_optax_finds_its_way_in_the_state(case):
    optimizer, params = case.optimizer(), {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    state = optimizer.init(params)
    assert int(optax.tree.get(state, "count")) == 0
    assert float(optax.tree.get(state, "learning_rate")) == pytest.approx(case.settings["learning_rate"])
    for slot in case.written.slots:
        assert optax.tree.get(state, slot) is state.slots[slot]
    doubled = optax.tree.map_params(optimizer, lambda leaf: leaf + 1, state)
    assert jax.tree.structure(doubled) == jax.tree.structure(state)
    assert all(np.all(leaf == 1) for leaf in jax.tree.leaves(doubled.slots))


@every_case
def test_slots_are_float32_unless_asked_otherwise(case):
    params = jax.eval_shape(lambda: params_of("bfloat16"))
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(case.optimizer().init, params).slots)}
    assert dtypes <= {jnp.dtype("float32")}
    state = jax.eval_shape(case.optimizer(state_dtype="bfloat16").init, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.slots)} <= {jnp.dtype("bfloat16")}


@pytest.mark.parametrize(("make", "slot"), [(jgd.adam, "mu"), (jgd.adamw, "mu"), (jgd.lion, "mu"), (jgd.muon, "mu")])
def test_mu_dtype_none_means_what_it_means_in_optax(make, slot):
    state = make(0.1, mu_dtype=None).init(jnp.ones((2, 2), jnp.bfloat16))
    assert state.slots[slot].dtype == jnp.bfloat16
    assert make(0.1, mu_dtype="float16").init(jnp.ones((2, 2))).slots[slot].dtype == jnp.float16


def test_the_second_moment_does_not_stall_for_bfloat16_params():
    params = jnp.ones(4, jnp.bfloat16)
    _, state = descend(jgd.adam(1e-3), params, jnp.ones((2000, 4), jnp.bfloat16))
    np.testing.assert_allclose(state.slots["nu"], 1 - 0.999**2000, rtol=1e-4)


@over("case", CASES, fast=lambda case: case.name in ("adam", "muon"))
@pytest.mark.parametrize(
    "wrap",
    [
        lambda opt: optax.chain(optax.clip(1.0), opt),
        lambda opt: optax.MultiSteps(opt, 2),
        lambda opt: optax.masked(opt, {"kernel": True, "layers": [True, False], "s": False}),
        lambda opt: optax.apply_if_finite(opt, 3),
        lambda opt: jgd.chain(optax.clip(1.0), opt),
    ],
    ids=["optax.chain", "MultiSteps", "masked", "apply_if_finite", "jgd.chain"],
)
def test_it_works_inside_of_what_optax_wraps_around_it(case, wrap):
    optimizer, params = wrap(case.optimizer()), params_of()
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = jax.jit(optimizer.update)(params, state, params)
    assert np.any(updates["kernel"] != 0)
