"""Gradients of exactly deficient rank, as a layer has them whose outputs share one gradient: finite, and right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import RULES
from tiers import over

import jgd
from jgd.rules.matrices._orthonormal import completed_basis

#: Rules that make matrices orthogonal, turn them or divide by their roots.
MATRIX_RULES = [rule for rule in RULES if rule.name in {
    "muon", "adamuon", "normuon", "musgd", "dion", "soap", "shampoo", "kron", "galore", "apollo", "sgd_sai", "came",
}]  # fmt: skip
LARGER = [pytest.param(s, marks=pytest.mark.slow) for s in [(7, 5), (65, 130), (200, 130), (256, 256)]]


def deficient(rows, columns):
    """Matrices of low rank by kind; float32 holds them, and most of their products, exactly."""
    rng = np.random.default_rng(0)
    signs = lambda *shape: np.sign(rng.normal(size=shape))  # noqa: E731
    few = max(1, columns // 8)
    zeros = np.zeros((rows, columns))
    in_row, in_column, blocks = zeros.copy(), zeros.copy(), zeros.copy()
    in_row[rows // 2], in_column[:, columns // 2] = rng.normal(size=columns), rng.normal(size=rows)
    blocks[: rows // 2, : columns // 2], blocks[rows // 2 :, columns // 2 :] = 1, 2
    zero_one = (rng.random((rows, 1)) < 0.5) * (rng.random((1, columns)) < 0.5)
    zero_one[0, 0] = True
    return {
        "constant": zeros + 1,
        "one row": in_row,
        "one column": in_column,
        "repeated rows": zeros + rng.normal(size=columns),
        "repeated columns": zeros + rng.normal(size=(rows, 1)),
        "some columns, repeated": np.tile(rng.normal(size=(rows, few)), (1, 9))[:, :columns],
        "0/1 outer product": zero_one.astype(float),
        "+-1 outer product": signs(rows, 1) * signs(1, columns),
        "+-1 outer products": signs(rows, 3) @ signs(3, columns),
        "integers": rng.integers(-2, 3, (rows, few)) @ (rng.integers(-2, 3, (few, columns)) + np.eye(few, columns)),
        "blocks": blocks,
        "columns of zeros": rng.normal(size=(rows, columns)) * (np.arange(columns) % 2),
        "small": 1e-3 * (zeros + 1),
        "huge": 1e8 * (zeros + 1),
    }


def stack(rows, columns):
    """All of them along a first axis."""
    return np.stack(list(deficient(rows, columns).values())).astype(np.float32)


def two_steps(optimizer, grads):
    """The second updates of a run on each matrix of the stack by itself, in one program; and the states after it."""
    params = jnp.zeros_like(grads)
    states = jax.vmap(optimizer.init)(params)
    update = jax.jit(jax.vmap(optimizer.update))
    _, states = update(grads, states, params)
    return update(grads, states, params)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(96, 96), *LARGER], ids=str)
def test_a_completed_basis_spans_its_columns(shape):
    x = stack(*sorted(shape, reverse=True))
    basis = np.asarray(jax.jit(jax.vmap(completed_basis))(x), np.float64)
    identity = np.broadcast_to(np.eye(x.shape[2]), (len(x), *x.shape[2:] * 2))
    np.testing.assert_allclose(basis.mT @ basis, identity, atol=1e-4)
    unit = x / np.abs(x).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(basis @ (basis.mT @ unit), unit, atol=1e-4)


@pytest.mark.parametrize("shape", [(96, 96), *LARGER], ids=str)
def test_dion_steps_along_the_directions_that_there_are(shape):
    """Against float64, where directions without a gradient are known by the rank, and get none of the step."""
    optimizer = jgd.dion(1.0, weight_decay=0.0)
    grads = stack(*shape)
    start = np.asarray(optimizer.init(jnp.zeros(shape)).slots["q"][0], np.float64)
    found, _ = two_steps(optimizer, grads)
    for kind, grad, update in zip(deficient(*shape), grads.astype(np.float64), found, strict=True):
        tall = grad if shape[0] > shape[1] else grad.T
        rank, q, mu = np.linalg.matrix_rank(tall, tol=1e-5 * np.linalg.norm(tall)), start, 0 * tall
        for _ in range(2):
            total = mu + tall
            p = np.linalg.qr(total @ q[:, :rank])[0]
            r = total.T @ p
            mu, q = total - 0.05 * p @ r.T, r / (np.linalg.norm(r, axis=0) + 1e-8)
        expected = -(p @ q.T if shape[0] > shape[1] else q @ p.T) * np.sqrt(shape[1] / shape[0])
        if rank < 4:
            np.testing.assert_allclose(update, expected, atol=2e-3 * np.abs(expected).max(), err_msg=kind)
        # Of many directions the span is known less well, and what is left of it may pass for one more.
        assert np.linalg.norm(update) < 1.5 * np.linalg.norm(expected), kind


@over("rule", MATRIX_RULES, fast=lambda rule: rule.name == "muon")
@pytest.mark.parametrize("shape", [(24, 24), *LARGER], ids=str)
def test_updates_and_states_are_finite(rule, shape):
    grads = stack(*shape)
    updates, states = two_steps(rule.make(), grads)
    for i, kind in enumerate(deficient(*shape)):
        assert np.any(updates[i] != 0), kind
        for leaf in jax.tree.leaves((updates, states)):
            assert np.all(np.isfinite(leaf[i])) or jnp.issubdtype(leaf.dtype, jax.dtypes.extended), kind


@pytest.mark.parametrize("coeffs", ["standard", pytest.param("polar_express", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "preconditioning",
    ["frobenius", *(pytest.param(p, marks=pytest.mark.slow) for p in ("spectral", "aol", "schatten"))],
)
def test_newton_schulz_leaves_missing_directions_out(preconditioning, coeffs):
    grads = stack(24, 24)
    optimizer = jgd.muon(1.0, coeffs, preconditioning=preconditioning)
    for kind, grad, update in zip(deficient(24, 24), grads, two_steps(optimizer, grads)[0], strict=True):
        rank = np.linalg.matrix_rank(grad, tol=1e-3 * np.linalg.norm(grad, 2))
        sizes = np.linalg.svd(np.asarray(update, np.float64), compute_uv=False)
        assert sizes[0] < 1.4, kind
        assert np.all(sizes[rank:] < 1e-2), kind
        if kind not in (
            "integers",
            "columns of zeros",
            "small",
        ):  # whose least singular values need more iterations, or count against eps
            assert sizes[rank - 1] > 0.4, kind
