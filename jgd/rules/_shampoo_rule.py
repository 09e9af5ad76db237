"""Shampoo's formulas on one leaf; `jgd.rules._shampoo` says what they are."""

import functools
from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp

from jgd.core import Array, Hyper, Rule, Slots, debias, fixed_int, root, zeros
from jgd.rules._preconditioners import block_shapes, join_blocks, merged_shape, over_blocks, split_blocks
from jgd.rules._shampoo_blocks import Own, by_basis, by_roots
from jgd.rules._stagger import steps_ahead

Graft = Literal["none", "sgd", "adagrad", "rmsprop", "adam"]
Root = Literal["qr", "eigh"]
_FIRST_ITERATIONS = 4


def shampoo_view(shape: tuple[int, ...], block_size: int, merge: bool) -> tuple[int, ...]:
    """The shape that is cut into blocks; axes are joined from the last, as a kernel's are in PyTorch."""
    block_size = fixed_int("shampoo", "block_size", block_size, least=1)
    return merged_shape(shape[::-1], block_size)[::-1] if merge and 0 not in shape else shape


def shampoo_rule(
    view: Callable[[tuple[int, ...]], tuple[int, ...]], block_size: int, graft: Graft, correct_bias: bool, root: Root
) -> Rule:
    """Shampoo without weight decay. `view` is `shampoo_view` of the leaf's shape."""
    block_size = fixed_int("shampoo", "block_size", block_size, least=1)
    # Where nothing needs the momentum in plain coordinates, it is stored in the basis: two products less a step.
    mu_turned = root == "qr" and graft in ("none", "sgd")
    run_block = functools.partial(by_basis, mu_turned=mu_turned) if root == "qr" else by_roots

    def stacks(make: Callable[[int], Array], param: Array) -> list[tuple[Array, ...]]:
        """For each stack of blocks one array an axis, which begins as `make(length)` for each block."""

        def repeated(length: int, count: int) -> Array:
            first = make(length).astype(param.dtype)
            return jnp.tile(first, (count, *[1] * first.ndim))

        shapes = block_shapes(view(param.shape), block_size)
        return [tuple(repeated(length, count) for length in block) for count, block in shapes]

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
            "due": (((step + steps_ahead(hyper, every)) % every == 0) & (step > start)) | (step == start),
            "iterations": jnp.where(step == start, _FIRST_ITERATIONS, 1),
            "started": step >= start,
        }
        if graft == "adam":
            ready["graft_scale"] = 1 / debias(1 - hyper["graft_b2"], step)
        return hyper | ready

    def grafted(grad: Array, mu_hat: Array, slots: Slots, hyper: Hyper) -> tuple[Array, dict[str, Array]]:
        """The other method's step, from the same momentum. For SGD that is the momentum, in any coordinates."""
        if graft in ("none", "sgd"):
            return mu_hat, {}
        if graft == "adagrad":
            nu = slots["graft_nu"] + jnp.square(grad)
        else:
            nu = hyper["graft_b2"] * slots["graft_nu"] + (1 - hyper["graft_b2"]) * jnp.square(grad)
        return mu_hat / (jnp.sqrt(nu * hyper.get("graft_scale", 1)) + hyper["graft_eps"]), {"graft_nu": nu}

    def block_update(hyper: Hyper, grad: Array, mu: Array, other: Array, own: Own) -> tuple[Array, Array, Own]:
        direction, mu, own = run_block(hyper, grad, mu, own)
        if graft == "sgd":
            other = hyper["mu_scale"] * mu
        if graft != "none":
            direction = direction * (_norm(other) / (_norm(direction) + 1e-16))
        if graft in ("adagrad", "rmsprop", "adam"):
            direction = jnp.where(hyper["started"], direction, other)
        return direction, mu, own

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del param, step
        shape = view(grad.shape)
        mu = slots["mu"] if mu_turned else hyper["b1"] * slots["mu"] + hyper["1-b1"] * grad
        other, graft_slots = grafted(grad, hyper["mu_scale"] * mu, slots, hyper)
        cut = [split_blocks(x.reshape(shape), block_size) for x in (grad, mu, other)]
        own = [dict(zip(own_slots, values, strict=True)) for values in zip(*map(slots.get, own_slots), strict=True)]
        new = [over_blocks(functools.partial(block_update, hyper), *stack) for stack in zip(*cut, own, strict=True)]

        def joined(part: int) -> Array:
            return join_blocks([stack[part] for stack in new], shape, block_size, grad.dtype).reshape(grad.shape)

        new_slots = {name: [stack[2][name] for stack in new] for name in own_slots}
        new_mu = joined(1) if mu_turned else mu
        return -hyper["learning_rate"] * joined(0), {"mu": new_mu} | new_slots | graft_slots

    makers = {"factors": lambda n: jnp.zeros((n, n)), "basis": jnp.eye, "eigenvalues": jnp.zeros, "roots": jnp.eye}
    own_slots = ("factors", "basis", "eigenvalues") if root == "qr" else ("factors", "roots")
    slots = {"mu": zeros} | {name: functools.partial(stacks, makers[name]) for name in own_slots}
    if graft in ("adagrad", "rmsprop", "adam"):
        slots["graft_nu"] = zeros
    return Rule(
        update,
        slots=slots,
        kind="matrix",
        supports_complex=False,
        prepare=prepare,
        nonnegative=("graft_nu",) if "graft_nu" in slots else (),
        exact=own_slots,
    )


def _norm(x: Array) -> Array:
    return root(jnp.sum(jnp.square(x)))
