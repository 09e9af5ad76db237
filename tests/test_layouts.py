"""The design carries layouts and storages: the same rules, unchanged, under each of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES

import jgd
from jgd.core import Block, Storage

STEPS = 5


def stacked(rule, leaves):
    """Leaves of one shape and dtype side by side under one `vmap`."""
    del rule
    groups = {}
    for i, leaf in enumerate(leaves):
        groups.setdefault((leaf.shape, leaf.dtype), []).append(i)

    def over_the_stack(run):
        return jax.vmap(run, in_axes=(None, None, 0, 0, 0))

    return [Block(tuple(group), jnp.stack, list, over_the_stack) for group in groups.values()]


def packed(rule, leaves):
    """All leaves of an elementwise rule in one vector; other rules leaf by leaf."""
    if rule.kind != "elementwise":
        return stacked(rule, leaves)
    shapes = [leaf.shape for leaf in leaves]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])

    def pack(arrays):
        return jnp.concatenate([array.ravel() for array in arrays])

    def unpack(vector):
        return [part.reshape(shape) for part, shape in zip(jnp.split(vector, ends[:-1]), shapes, strict=True)]

    return [Block(tuple(range(len(leaves))), pack, unpack, lambda run: run)] if leaves else []


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


@pytest.mark.parametrize("layout", [stacked, packed], ids=["stacked", "packed"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_layout_changes_no_result(case, layout):
    plain, laid_out = run(case.optimizer()), run(case.optimizer(layout=layout))
    assert jax.tree.structure(plain) == jax.tree.structure(laid_out)
    # Compiled another way, products and sums may be contracted otherwise, which moves the last bits; the Newton-Schulz
    # iteration amplifies that.
    tolerance = 1e-6 if case.elementwise else 1e-4
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=1e-7), plain, laid_out)


def test_a_layout_really_runs_leaves_together():
    calls = []

    def counting(rule, leaves):
        blocks = stacked(rule, leaves)
        calls.append([len(block.indices) for block in blocks])
        return blocks

    run(jgd.adam(0.1, layout=counting))
    assert calls == [[2, 2, 1, 1]]


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


@pytest.mark.parametrize("case", [case for case in CASES if case.slots and not case.matrix_only], ids=lambda c: c.name)
def test_a_storage_changes_results_by_its_own_rounding_alone(case):
    params, _ = run(case.optimizer())
    stored_params, state = run(case.optimizer(state_dtype=scaled_half()))
    for slot in case.slots:
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
