"""Shampoo's formulas on one leaf; `jgd.rules._shampoo` says what they are."""

import functools
from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from jgd.core import Array, Hyper, Rule, Slots, debias, zeros
from jgd.rules._preconditioners import along_axes, block_shapes, gram, join_blocks, merged_shape, split_blocks

Graft = Literal["none", "sgd", "adagrad", "rmsprop", "adam"]
Matrices = tuple[Array, ...]  # one for each axis


def check_graft(graft: str) -> None:
    """Raises ValueError for a name that is none of `Graft`."""
    if graft not in get_args(Graft):
        known = ", ".join(repr(name) for name in get_args(Graft))
        raise ValueError(f"shampoo: graft must be one of {known}; got {graft!r}.")


def shampoo_rule(block_size: int, merge: bool, graft: Graft, correct_bias: bool) -> Rule:
    """Shampoo without weight decay."""

    def view(leaf: Array) -> tuple[int, ...]:
        """The shape that is cut into blocks; axes are joined from the last, as a kernel's are in PyTorch."""
        return merged_shape(leaf.shape[::-1], block_size)[::-1] if merge and leaf.size else leaf.shape

    def stacks(param: Array, matrix: Literal["zeros", "eye"]) -> list[Matrices]:
        make = jnp.eye if matrix == "eye" else lambda n, dtype: jnp.zeros((n, n), dtype)
        return [
            tuple(jnp.tile(make(n, dtype=param.dtype), (count, 1, 1)) for n in block)
            for count, block in block_shapes(view(param), block_size)
        ]

    def prepare(hyper: Hyper, step: Array) -> Hyper:
        every, start = (
            hyper[name].astype(jnp.int32) for name in ("precondition_frequency", "start_preconditioning_step")
        )
        averaged = hyper["b2"] < 1
        corrected = averaged & correct_bias
        ready = {
            "mu_scale": 1 / debias(hyper["1-b1"], step) if correct_bias else jnp.ones_like(hyper["b1"]),
            "factor_weight": jnp.where(averaged, hyper["1-b2"], 1),
            "factor_scale": 1 / jnp.where(corrected, debias(jnp.where(corrected, hyper["1-b2"], 1), step), 1),
            "due": ((step % every == 0) & (step > start)) | (step == start),
            "started": step >= start,
        }
        if graft == "adam":
            ready["graft_scale"] = 1 / debias(1 - hyper["graft_b2"], step)
        return hyper | ready

    def grafted(grad: Array, mu: Array, slots: Slots, hyper: Hyper) -> tuple[Array, dict[str, Array]]:
        """The other method's step, from the same momentum."""
        if graft in ("none", "sgd"):
            return mu, {}
        if graft == "adagrad":
            nu = slots["graft_nu"] + jnp.square(grad)
        else:
            nu = hyper["graft_b2"] * slots["graft_nu"] + (1 - hyper["graft_b2"]) * jnp.square(grad)
        return mu / (jnp.sqrt(nu * hyper.get("graft_scale", 1)) + hyper["graft_eps"]), {"graft_nu": nu}

    def block_update(
        hyper: Hyper, grad: Array, mu: Array, other: Array, factors: Matrices, roots: Matrices
    ) -> tuple[Array, Matrices, Matrices]:
        factors = tuple(
            hyper["b2"] * factor + hyper["factor_weight"] * gram(grad, axis) for axis, factor in enumerate(factors)
        )
        exponent = hyper.get("inverse_exponent_override", 1 / (2 * max(grad.ndim, 1)))
        if factors:
            taken = functools.partial(_inverse_roots, hyper=hyper, exponent=exponent)
            roots = jax.lax.cond(hyper["due"], taken, lambda _, roots: roots, factors, roots)
        direction = along_axes(mu, roots)
        if graft != "none":
            direction = direction * (_norm(other) / (_norm(direction) + 1e-16))
            direction = jnp.where(hyper["started"], direction, other)
        return direction, factors, roots

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del param, step
        mu = hyper["b1"] * slots["mu"] + hyper["1-b1"] * grad
        mu_hat = hyper["mu_scale"] * mu
        other, graft_slots = grafted(grad, mu_hat, slots, hyper)
        cut = [split_blocks(x.reshape(view(grad)), block_size) for x in (grad, mu_hat, other)]
        # Blocks of one shape run as one. Whether roots are due is the same for all: it stays a branch.
        run = jax.vmap(functools.partial(block_update, hyper))
        new = [run(*stack) for stack in zip(*cut, slots["factors"], slots["roots"], strict=True)]
        direction = join_blocks([stack[0] for stack in new], view(grad), block_size, grad.dtype).reshape(grad.shape)
        slots = {"mu": mu, "factors": [stack[1] for stack in new], "roots": [stack[2] for stack in new]}
        return -hyper["learning_rate"] * direction, slots | graft_slots

    slots = {"mu": zeros, "factors": lambda param: stacks(param, "zeros"), "roots": lambda param: stacks(param, "eye")}
    if graft in ("adagrad", "rmsprop", "adam"):
        slots["graft_nu"] = zeros
    return Rule(update, slots=slots, kind="matrix", supports_complex=False, prepare=prepare)


def _inverse_roots(factors: Sequence[Array], roots: Sequence[Array], *, hyper: Hyper, exponent: Array | float) -> tuple:
    new = []
    for factor, root in zip(factors, roots, strict=True):
        values, vectors = jnp.linalg.eigh(factor * hyper["factor_scale"])
        values = values - jnp.minimum(jnp.min(values), 0) + hyper["eps"]  # rounding may leave them below zero
        found = jnp.matmul(vectors * values**-exponent, vectors.T, precision=jax.lax.Precision.HIGHEST)
        new.append(jnp.where(jnp.all(jnp.isfinite(found)), found, root))
    return tuple(new)


def _norm(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(x)))
