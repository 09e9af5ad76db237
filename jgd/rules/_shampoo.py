r"""Shampoo: each axis of a gradient divided by the root of its own second moments.

For a matrix $G$ (likewise for each of the $k$ axes of a block with more or fewer, with exponent $-1/2k$):

$$
\begin{aligned}
L_t &= \beta_2 L_{t-1} + w\, G_t G_t^\top, \qquad R_t = \beta_2 R_{t-1} + w\, G_t^\top G_t \\
m_t &= \beta_1 m_{t-1} + (1-\beta_1)\, G_t, \qquad \hat m_t = m_t / (1-\beta_1^t) \\
\theta_t &= \theta_{t-1} - \eta\, \bigl(s_t\, (\hat L + \epsilon)^{-1/4}\, \hat m_t\, (\hat R + \epsilon)^{-1/4}
    + \lambda\, \theta_{t-1}\bigr)
\end{aligned}
$$

with $w = 1$ where $\beta_2 = 1$ (sums, as first published), else $1-\beta_2$ and $\hat L = L / (1-\beta_2^t)$. Grafting
sets $s_t$ so that a block's step is as long as another method's. Powers are taken in the eigenbasis of the factors,
which is refreshed at intervals, by one step of orthogonal iteration; the eigenvalues are exact in every step,
$\operatorname{diag}(Q^\top L_t\, Q)$, since stale ones make steps explode along directions that are new in a gradient.
Slots: $m$ (`mu`; in the basis, unless grafting needs it plain), $L, R$ (`factors`), `basis`, `eigenvalues`, and the
grafted method's squares (`graft_nu`). With `root="eigh"`, Meta's form, the inverse `roots` are stored, stale between
refreshes.

The formulas are those of Meta's code: the damping enters when a power of the corrected factors is taken, where the
paper of 2018 starts the sums at $\epsilon I$; leaves are merged and cut into blocks; vectors have a factor too.

References:
    - Gupta et al., "Shampoo: Preconditioned stochastic tensor optimization", https://arxiv.org/abs/1802.09568, 2018.
    - Shi et al., "A distributed data-parallel PyTorch implementation of the distributed Shampoo optimizer",
      https://arxiv.org/abs/2309.06497, 2023.
    - Eschenhagen et al., "Purifying Shampoo", https://arxiv.org/abs/2506.03595, 2025, on old eigenvalues.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import (
    AT_LEAST_ONE,
    DECAY_RATE,
    POSITIVE,
    UP_TO_ONE,
    Array,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    check_choice,
    debias,
    fixed_int,
    root,
    show_by_name,
    when,
    zeros,
)
from jgd.rules.matrices._eigenbasis import eigenvalues_in, refreshed_basis
from jgd.rules.matrices._preconditioners import (
    along_axes,
    block_shapes,
    gram,
    join_blocks,
    merged_shape,
    over_blocks,
    split_blocks,
)
from jgd.rules.matrices._stagger import lift_staggered, steps_ahead
from jgd.rules.parts._weight_decay import DecayForm, decayed

Graft = Literal["none", "sgd", "adagrad", "rmsprop", "adam"]
Root = Literal["qr", "eigh"]
show_by_name(globals(), "Graft")
_FIRST_ITERATIONS = 4
View = Callable[[tuple[int, ...]], tuple[int, ...]]
BlockSlots = Mapping[str, tuple[Array, ...]]  # for each name one array an axis


class BlockStep(NamedTuple):
    """What one step makes of a block.

    Attributes:
        direction: The preconditioned momentum; before the first refresh the momentum itself.
        mu: The momentum, uncorrected, in the coordinates in which it is stored.
        slots: The block's new slots.
    """

    direction: Array
    mu: Array
    slots: BlockSlots


def _exponent(hyper: Hyper, grad: Array) -> Array | float:
    return hyper.get("inverse_exponent_override", 1 / (2 * max(grad.ndim, 1)))


def _damped(values: Array, hyper: Hyper) -> Array:
    largest = jnp.minimum(jnp.max(values), jnp.finfo(values.dtype).max)  # zero times infinity is NaN
    return values + hyper["eps"] + hyper["relative_eps"] * largest


def _summed(factors: tuple[Array, ...], grad: Array, hyper: Hyper) -> tuple[Array, ...]:
    return tuple(
        hyper["b2"] * factor + hyper["factor_weight"] * gram(grad, axis) for axis, factor in enumerate(factors)
    )


def by_roots(hyper: Hyper, grad: Array, mu: Array, slots: BlockSlots) -> BlockStep:
    """Inverse roots by `eigh`, kept from one refresh to the next. `mu` is that of this step."""
    factors = _summed(slots["factors"], grad, hyper)

    def recomputed(roots: tuple[Array, ...], operands: tuple[tuple[Array, ...], Hyper]) -> tuple[Array, ...]:
        (factors, hyper), new = operands, []
        for factor, old in zip(factors, roots, strict=True):
            values, vectors = jnp.linalg.eigh(factor * hyper["factor_scale"])
            values = _damped(values - jnp.minimum(jnp.min(values), 0), hyper)  # rounding may leave them below zero
            scaled = vectors * values ** -_exponent(hyper, grad)
            power = jnp.matmul(scaled, vectors.T, precision=jax.lax.Precision.HIGHEST)
            new.append(jnp.where(jnp.all(jnp.isfinite(power)), power, old))
        return tuple(new)

    roots = slots["roots"]
    if factors:
        roots = when(hyper["due"], recomputed, roots, (factors, hyper))
    return BlockStep(along_axes(hyper["mu_scale"] * mu, roots), mu, {"factors": factors, "roots": roots})


def by_basis(hyper: Hyper, grad: Array, mu: Array, slots: BlockSlots, *, mu_rotated: bool) -> BlockStep:
    """Eigenvectors that follow the factors at every refresh; their eigenvalues are right in every step.

    `mu` is that of the last step in the basis of then where `mu_rotated`, else that of this step in plain coordinates.
    """
    basis, rotated = slots["basis"], along_axes(grad, slots["basis"], transposed=True)
    factors = _summed(slots["factors"], grad, hyper)
    # The diagonal of the factor in the basis, without the products that this would take.
    values = tuple(
        hyper["b2"] * old + hyper["factor_weight"] * gram(rotated, axis, diagonal=True)
        for axis, old in enumerate(slots["eigenvalues"])
    )
    if mu_rotated:
        mu = hyper["b1"] * mu + hyper["1-b1"] * rotated

    def refreshed(carry: tuple, operands: tuple[tuple[Array, ...], Array]) -> tuple:
        (mu, basis, _), (factors, iterations) = carry, operands
        new = tuple(refreshed_basis(factor, q, iterations)[0] for factor, q in zip(factors, basis, strict=True))
        if mu_rotated:
            mu = along_axes(along_axes(mu, basis), new, transposed=True)
        return mu, new, tuple(eigenvalues_in(q, factor) for q, factor in zip(new, factors, strict=True))

    if factors:
        mu, basis, values = when(hyper["due"], refreshed, (mu, basis, values), (factors, hyper["iterations"]))
    direction = hyper["mu_scale"] * (mu if mu_rotated else along_axes(mu, basis, transposed=True))
    for axis, axis_values in enumerate(values):
        scale = _damped(hyper["factor_scale"] * axis_values, hyper) ** -_exponent(hyper, grad)
        scale = jnp.where(hyper["started"], scale, 1)
        direction = direction * scale.reshape([-1 if i == axis else 1 for i in range(grad.ndim)])
    return BlockStep(along_axes(direction, basis), mu, {"factors": factors, "basis": basis, "eigenvalues": values})


def shampoo_view(shape: tuple[int, ...], block_size: int, merge: bool) -> tuple[int, ...]:
    """The shape that is cut into blocks; axes are joined from the last, as a kernel's are in PyTorch."""
    block_size = fixed_int("shampoo", "block_size", block_size, least=1)
    return merged_shape(shape[::-1], block_size)[::-1] if merge and 0 not in shape else shape


def _stacks(make: Callable[[int], Array], param: Array, *, view: View, block_size: int) -> list[tuple[Array, ...]]:
    """For each stack of blocks one array an axis, which begins as `make(length)` for each block."""

    def repeated(length: int, count: int) -> Array:
        first = make(length).astype(param.dtype)
        return jnp.tile(first, (count, *[1] * first.ndim))

    shapes = block_shapes(view(param.shape), block_size)
    return [tuple(repeated(length, count) for length in block) for count, block in shapes]


def _prepared(hyper: Hyper, step: Array, *, graft: Graft, correct_bias: bool) -> Hyper:
    """The hyperparameters of a step, and what all leaves take from them."""
    every, start = (hyper[name].astype(jnp.int32) for name in ("precondition_frequency", "start_preconditioning_step"))
    averaged = hyper["b2"] < 1
    corrected = averaged & correct_bias
    prepared = {
        "mu_scale": 1 / debias(hyper["1-b1"], step) if correct_bias else jnp.ones_like(hyper["b1"]),
        "factor_weight": jnp.where(averaged, hyper["1-b2"], 1),
        "factor_scale": 1 / jnp.where(corrected, debias(jnp.where(corrected, hyper["1-b2"], 1), step), 1),
        "due": (((step + steps_ahead(hyper, every)) % every == 0) & (step > start)) | (step == start),
        "iterations": jnp.where(step == start, _FIRST_ITERATIONS, 1),
        "started": step >= start,
    }
    if graft == "adam":
        prepared["graft_scale"] = 1 / debias(1 - hyper["graft_b2"], step)
    return hyper | prepared


def _grafted(graft: Graft, grad: Array, mu_hat: Array, slots: Slots, hyper: Hyper) -> tuple[Array, dict[str, Array]]:
    """The other method's step, from the same momentum. For SGD that is the momentum, in any coordinates."""
    if graft in ("none", "sgd"):
        return mu_hat, {}
    if graft == "adagrad":
        nu = slots["graft_nu"] + jnp.square(grad)
    else:
        nu = hyper["graft_b2"] * slots["graft_nu"] + (1 - hyper["graft_b2"]) * jnp.square(grad)
    return mu_hat / (jnp.sqrt(nu * hyper.get("graft_scale", 1)) + hyper["graft_eps"]), {"graft_nu": nu}


def shampoo_rule(view: View, block_size: int, graft: Graft, correct_bias: bool, root: Root) -> Rule:
    """Shampoo without weight decay. `view` is `shampoo_view` of the leaf's shape."""
    block_size = fixed_int("shampoo", "block_size", block_size, least=1)
    # Where nothing needs the momentum in plain coordinates, it is stored in the basis: two products less a step.
    mu_rotated = root == "qr" and graft in ("none", "sgd")
    precondition = functools.partial(by_basis, mu_rotated=mu_rotated) if root == "qr" else by_roots

    def block_update(hyper: Hyper, grad: Array, mu: Array, grafted: Array, slots: BlockSlots) -> BlockStep:
        direction, mu, slots = precondition(hyper, grad, mu, slots)
        if graft == "sgd":
            grafted = hyper["mu_scale"] * mu
        if graft != "none":
            direction = direction * (_norm(grafted) / (_norm(direction) + 1e-16))
        if graft in ("adagrad", "rmsprop", "adam"):
            direction = jnp.where(hyper["started"], direction, grafted)
        return BlockStep(direction, mu, slots)

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del param, step
        shape = view(grad.shape)
        mu = slots["mu"] if mu_rotated else hyper["b1"] * slots["mu"] + hyper["1-b1"] * grad
        grafted, graft_slots = _grafted(graft, grad, hyper["mu_scale"] * mu, slots, hyper)
        arrays = [split_blocks(x.reshape(shape), block_size) for x in (grad, mu, grafted)]
        block_slots = [dict(zip(names, values, strict=True)) for values in zip(*map(slots.get, names), strict=True)]
        run = functools.partial(block_update, hyper)
        new = [over_blocks(run, *stack) for stack in zip(*arrays, block_slots, strict=True)]

        def joined(field: str) -> Array:
            blocks = [getattr(stack, field) for stack in new]
            return join_blocks(blocks, shape, block_size, grad.dtype).reshape(grad.shape)

        new_slots = {name: [stack.slots[name] for stack in new] for name in names}
        new_mu = joined("mu") if mu_rotated else mu
        return -hyper["learning_rate"] * joined("direction"), {"mu": new_mu} | new_slots | graft_slots

    makers = {"factors": lambda n: jnp.zeros((n, n)), "basis": jnp.eye, "eigenvalues": jnp.zeros, "roots": jnp.eye}
    names = ("factors", "basis", "eigenvalues") if root == "qr" else ("factors", "roots")
    slots = {"mu": zeros} | {
        name: functools.partial(_stacks, makers[name], view=view, block_size=block_size) for name in names
    }
    if graft in ("adagrad", "rmsprop", "adam"):
        slots["graft_nu"] = zeros
    return Rule(
        update,
        slots=slots,
        kind="matrix",
        supports_complex=False,
        prepare=functools.partial(_prepared, graft=graft, correct_bias=correct_bias),
        nonnegative=("graft_nu",) if "graft_nu" in slots else (),
        exact=names,
    )


def _norm(x: Array) -> Array:
    return root(jnp.sum(jnp.square(x)))


def shampoo(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 1.0,
    eps: ScalarOrSchedule = 1e-12,
    weight_decay: ScalarOrSchedule = 0.0,
    block_size: int = 1024,
    precondition_frequency: ScalarOrSchedule = 10,
    start_preconditioning_step: ScalarOrSchedule | None = None,
    mask: Mask = None,
    *,
    graft: Graft = "none",
    graft_b2: ScalarOrSchedule | None = None,
    graft_eps: ScalarOrSchedule = 1e-10,
    relative_eps: ScalarOrSchedule = 1e-6,
    inverse_exponent_override: ScalarOrSchedule | None = None,
    root: Root = "qr",
    stagger: bool = False,
    merge_dims: bool = True,
    correct_bias: bool = True,
    decay_form: DecayForm = "scaled",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Shampoo, with blocks and grafting as in Meta's distributed Shampoo.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: How far to go along the preconditioned direction, at least 0. With grafting, that of the
            grafted method.
        b1: Decay rate of the average of gradients, in [0, 1).
        b2: Decay rate of the factors, in [0, 1]; at 1 they are sums.
        eps: Added to the factors' eigenvalues, above 0; see `relative_eps`.
        block_size: The largest factor: leaves are cut into blocks of at most this many entries along each axis.
        precondition_frequency: Steps between two refreshes, at least 1. They are costly; Meta's default is 1.
        start_preconditioning_step: The step of the first refresh; before it the grafted method runs, or without one
            plain momentum. None for 1, with `"eigh"` for `precondition_frequency`.
        graft: Whose length a block's step takes: `"none"`, `"sgd"`, `"adagrad"`, `"rmsprop"` or `"adam"`.
        graft_b2: Decay rate of the grafted method's squares, in [0, 1); None for 0.99 (RMSprop) or 0.999 (Adam).
        graft_eps: Added to the root of the grafted method's squares, above 0.
        relative_eps: Times the largest eigenvalue added as well, in [0, 1): float32 leaves smaller ones to rounding.
        inverse_exponent_override: The power of the factors in place of `1 / 2k`, above 0.
        root: `"qr"` for orthogonal iteration, `"eigh"` for an eigendecomposition, which takes long to compile.
        stagger: Whether to spread the leaves' refreshes over the cycle; Meta's code, and ours by default, does not.
        merge_dims: Whether to join neighboring axes while their product is at most `block_size`; small matrices then
            become vectors with one full factor.
        correct_bias: Whether to correct the averages for their start at zero.
        state_dtype: The dtype of `mu` and `graft_nu`; shorter ones than float32 leave the other slots as they are.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules, with the slots of the formula:
        `factors` and `basis` are a square matrix for each axis of each block.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, a leaf is complex, the mask
            does not fit, there is no such `graft` or `root`, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.eye(2)
        >>> optimizer = jgd.shampoo(0.1, merge_dims=False)
        >>> grads = jnp.array([[3.0, 0.0], [0.0, 0.1]])
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
        >>> print(updates.round(3) + 0)
        [[-0.1  0. ]
         [ 0.  -0.1]]
    """
    check_choice("shampoo", "graft", graft, Graft)
    check_choice("shampoo", "root", root, Root)
    if start_preconditioning_step is None:
        start_preconditioning_step = 1 if root == "qr" else precondition_frequency
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "relative_eps": relative_eps}
    hyperparams |= {
        "precondition_frequency": precondition_frequency,
        "start_preconditioning_step": start_preconditioning_step,
        "weight_decay": weight_decay,
    }
    if graft in ("rmsprop", "adam"):
        hyperparams["graft_b2"] = graft_b2 if graft_b2 is not None else {"rmsprop": 0.99, "adam": 0.999}[graft]
    if graft in ("adagrad", "rmsprop", "adam"):
        hyperparams["graft_eps"] = graft_eps
    if inverse_exponent_override is not None:
        hyperparams["inverse_exponent_override"] = inverse_exponent_override
    ranges = dict.fromkeys(("eps", "graft_eps", "inverse_exponent_override"), POSITIVE) | {"b2": UP_TO_ONE}
    ranges |= dict.fromkeys(("precondition_frequency", "start_preconditioning_step"), AT_LEAST_ONE)
    ranges |= dict.fromkeys(("graft_b2", "relative_eps"), DECAY_RATE)
    view = functools.partial(shampoo_view, block_size=block_size, merge=merge_dims)

    def cost(shape: tuple[int, ...]) -> float:
        return sum(count * sum(float(n) ** 3 for n in block) for count, block in block_shapes(view(shape), block_size))

    rule = shampoo_rule(view, block_size, graft, correct_bias, root)
    return lift_staggered(
        rule,
        decayed(rule, decay_form),
        hyperparams,
        mask,
        cost if stagger else None,
        name="shampoo",
        ranges=ranges,
        state_dtype=state_dtype,
        layout=layout,
    )
