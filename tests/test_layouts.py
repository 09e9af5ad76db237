"""The design carries layouts and storages: the same rules, unchanged, under each of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import over

import jgd
from jgd.core import Storage
from jgd.core._layouts import LONGEST, SMALL, auto, packed, resolve_layout, stacked

STEPS = 5
NAMES = ["alone", "packed", "stacked"]


def problem():
    rng = np.random.default_rng(0)
    shapes = {"a": (3, 2), "b": (3, 2), "c": (4,), "d": (), "e": (2, 3), "f": (4,)}
    params = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    grads = [
        {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()} for _ in range(STEPS)
    ]
    return params, grads


def run(optimizer):
    params, grads = problem()
    state = optimizer.init(params)
    step = jax.jit(optimizer.update)
    for grad in grads:
        updates, state = step(grad, state, params)
        params = jgd.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("layout", NAMES)
@over("case", CASES, fast=lambda case: case.name in ("adamw", "muon"))
def test_a_layout_changes_no_result(case, layout):
    plain, laid_out = run(case.optimizer()), run(case.optimizer(layout=layout))
    assert jax.tree.structure(plain) == jax.tree.structure(laid_out)
    # Compiled another way, products and sums may be contracted otherwise, which moves the last bits; the Newton-Schulz
    # iteration amplifies that.
    tolerance = 1e-4 if case.written.for_matrices else 1e-6
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=1e-7), plain, laid_out)


@pytest.mark.parametrize("layout", ["packed", "stacked"])
def test_leaves_of_two_dtypes_keep_theirs(layout, x64):
    params = {name: jax.ShapeDtypeStruct((2, 3), name) for name in ("bfloat16", "float32", "float64")}

    def one_step(params, layout):
        optimizer = jgd.adam(0.1, layout=layout)
        return optimizer.update(params, optimizer.init(params), params)

    expected, found = (jax.eval_shape(lambda p, x=x: one_step(p, x), params) for x in ("alone", layout))
    assert expected == found
    assert jax.tree.map(lambda leaf: leaf.dtype.name, found[0]) == {name: name for name in params}


@pytest.mark.parametrize(
    ("make", "layout", "expected"),
    [
        (lambda **more: jgd.adam(0.1, **more), "auto", [1, 1, 1, 1, 1, 1]),
        (lambda **more: jgd.adam(0.1, **more), "stacked", [1, 1, 2, 2]),
        (lambda **more: jgd.adam(0.1, **more), "packed", [6]),
        (lambda **more: jgd.lamb(0.1, **more), "packed", [1, 1, 2, 2]),
        (lambda **more: jgd.muon(0.1, **more), "auto", [1, 1, 1]),  # of its matrices: the first rule
        (lambda **more: jgd.muon(0.1, **more), "stacked", [1, 2]),
    ],
)
def test_a_layout_really_runs_leaves_together(make, layout, expected):
    calls = []

    def counting(rule, leaves):
        blocks = resolve_layout(layout)(rule, leaves)
        calls.append(sorted(len(block.indices) for block in blocks))
        return blocks

    run(make(layout=counting))
    assert calls[0] == expected


ELEMENTWISE = [case for case in CASES if not case.written.for_matrices]
SHAPES = st.lists(st.sampled_from([(), (1,), (3,), (2, 3), (3, 2), (0,), (2, 1, 2)]), min_size=1, max_size=6)


@pytest.mark.parametrize("examples", [8, pytest.param(40, marks=pytest.mark.slow)])
def test_elementwise_rules_give_the_same_bits_on_random_trees(examples):
    @settings(max_examples=examples)
    @given(shapes=SHAPES, layout=st.sampled_from(["packed", "stacked"]), case=st.sampled_from(ELEMENTWISE))
    def check(shapes, layout, case):
        # Operation by operation. A compiler may contract a product and a sum in one program and not in another.
        rng = np.random.default_rng(len(shapes))
        params = {f"leaf{i}": jnp.asarray(rng.normal(size=shape), jnp.float32) for i, shape in enumerate(shapes)}
        grads = jax.tree.map(lambda p: jnp.cos(7 * p), params)

        def one_step(optimizer):
            return optimizer.update(grads, optimizer.init(params), params)

        with jax.disable_jit():
            jax.tree.map(
                np.testing.assert_array_equal,
                one_step(case.optimizer(layout="alone")),
                one_step(case.optimizer(layout=layout)),
            )

    check()


@given(
    sizes=st.lists(st.sampled_from([1, 7, SMALL, SMALL + 1]), max_size=3 * LONGEST),
    layout=st.sampled_from([auto, packed, stacked]),
    kind=st.sampled_from(["elementwise", "leaf", "matrix"]),
)
@settings(max_examples=60, deadline=None)
def test_a_layout_places_every_leaf_once_and_no_block_is_long(sizes, layout, kind):
    leaves = [jax.ShapeDtypeStruct((size,), "float32" if i % 3 else "bfloat16") for i, size in enumerate(sizes)]
    blocks = layout(jgd.core.Rule(lambda *_: None, kind=kind), leaves)
    assert sorted(i for block in blocks for i in block.indices) == list(range(len(sizes)))
    assert all(len(block.indices) <= LONGEST for block in blocks)


def test_matrices_of_one_shape_compile_one_iteration_between_them():
    params = {f"w{i}": jnp.ones((6, 5)) for i in range(16)}

    def products(layout):
        optimizer = jgd.muon(0.1, layout=layout)
        state = optimizer.init(params)
        return jax.jit(optimizer.update).lower(params, state, params).compile().as_text().count(" dot(")

    assert products("auto") * 16 == products("alone")


def test_an_unknown_layout_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"layout must be one of 'auto', 'alone', 'packed', 'stacked'.*'flat'"):
        jgd.adam(0.1, layout="flat")


def scaled_half():
    """Float16 numbers under one float32 scale: a stored form that is a tree of its own."""

    def create(value, param_dtype):
        del param_dtype
        return {"half": value.astype(jnp.float16), "scale": jnp.ones((), jnp.float32)}

    def load(stored):
        return stored["half"].astype(jnp.float32) * stored["scale"]

    def save(value, stored, seed):
        del stored, seed
        scale = jnp.maximum(jnp.max(jnp.abs(value), initial=0.0), 1e-30)
        return {"half": (value / scale).astype(jnp.float16), "scale": scale}

    return Storage(create, load, save)


@over(
    "case",
    [case for case in ELEMENTWISE if case.written.slots],
    fast=lambda case: case.name in ("adam", "lion"),
)
def test_a_storage_changes_results_by_its_own_rounding_alone(case):
    params, _ = run(case.optimizer())
    stored_params, state = run(case.optimizer(state_dtype=scaled_half()))
    for slot in case.written.slots:
        assert state.slots[slot]["a"]["half"].dtype == jnp.float16
    # Float16 keeps three digits and a half; a step moves by 0.03 at most. Where a sign decides, it may flip: 5 x 0.04.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=0.2 if case.name == "lion" else 2e-2), params, stored_params
    )


def test_a_stored_form_keeps_its_structure_inside_a_scan():
    optimizer = jgd.adam(0.1, state_dtype=scaled_half())
    params = {"a": jnp.ones(3), "b": jnp.ones((2, 2))}

    def body(carry, _):
        params, state = carry
        updates, state = optimizer.update(params, state, params)
        return (jgd.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(body, (params, optimizer.init(params)), length=20)
    assert float(jnp.max(jnp.abs(params["a"]))) < 1.0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_state_dtype_holds_for_every_slot_and_step(dtype):
    _, state = run(jgd.adamw(0.1, state_dtype=dtype))
    assert {leaf.dtype for leaf in jax.tree.leaves(state.slots)} == {jnp.dtype(dtype)}
