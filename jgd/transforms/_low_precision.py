r"""Params of 16 bits that do not lose small steps: rounded stochastically, or with the missing bits in the state.

A bfloat16 has eight significant bits. A step below a 512th of a param is lost when their sum is rounded to nearest, and
late in training most are. With stochastic rounding

$$
\theta_{t+1} = \operatorname{round}_t(\theta_t + \Delta_t), \qquad \operatorname E[\theta_{t+1}] = \theta_t + \Delta_t
$$

they arrive on average. With split master weights they all do: a float32 $w$ is kept as the nearest bfloat16, which the
caller holds, and a correction $c$ in the state,

$$
\operatorname{bits}(w) = 2^{16} \operatorname{bits}(\theta) + c, \qquad -2^{15} \le c < 2^{15}
$$

in 16 bits, which give $w$ back exactly, or in the upper 8 of them.

References:
    - Gupta et al., "Deep learning with limited numerical precision", https://arxiv.org/abs/1502.02551, 2015.
    - Zamirai et al., "Revisiting BFloat16 training", https://arxiv.org/abs/2010.06192, 2020.
    - FlashOptim, https://github.com/databricks/flashoptim, 2026: a weight split into a bfloat16 and a correction.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jgd.core import (
    SIXTEEN_BITS,
    Array,
    GradientTransformation,
    Optimizer,
    OptState,
    PyTree,
    WrapperState,
    check_params_given,
    check_params_of,
    check_same_tree,
    check_state,
    flatten,
    increment,
    make_optimizer,
    path_text,
    random_bits,
    stochastic_round,
    transform_text,
)

CORRECTION = "correction"


def stochastic_rounding(optimizer: GradientTransformation, seed: int = 0) -> Optimizer:
    """Rounds the new 16-bit params stochastically, whatever the optimizer.

    The optimizer inside sees gradients and params in float32 and has the state that it has for float32 params; none of
    its updates is lost. The updates that come out are float32: added to the params, as `jgd.apply_updates` and
    `optax.apply_updates` do it, they give one of the two neighbours of the float32 sum. So nothing that changes updates
    may stand around it. Leaves of other dtypes are left to the optimizer inside.

    Args:
        optimizer: Any optimizer of jgd or optax.
        seed: Of the random bits; the update's number and the leaf's place go in as well.

    Returns:
        An optimizer without slots or hyperparameters of its own, whose state is `WrapperState(own, inner)`.

    Raises:
        TypeError, ValueError: `optimizer` is not an optimizer, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> def descend(optimizer, params):
        ...     state = optimizer.init(params)
        ...     for _ in range(10):
        ...         updates, state = optimizer.update(jnp.ones_like(params), state, params)
        ...         params = jgd.apply_updates(params, updates)
        ...     return f"{params.astype(jnp.float32).mean():.3f}"
        >>> ones = jnp.ones(10_000, jnp.bfloat16)
        >>> print(descend(jgd.sgd(0.001), ones), descend(jgd.stochastic_rounding(jgd.sgd(0.001)), ones))
        1.000 0.990
    """

    def after(master: Array, param: Array, correction: Any, seed: Array) -> tuple[Array, Any]:
        rounded = stochastic_round(master, param.dtype, seed)
        return rounded.astype(jnp.float32) - param.astype(jnp.float32), correction

    return _around(optimizer, "stochastic_rounding", seed, lambda param, _: param.astype(jnp.float32), after, None)


def split_master_weights(optimizer: GradientTransformation, bits: Literal[8, 16] = 16) -> Optimizer:
    """Trains bfloat16 params as if they were float32: the bits that they lack stand in the state.

    The optimizer inside sees float32 params and gradients. The params that the caller holds are those, rounded to
    nearest. As in `stochastic_rounding` the updates are float32, and nothing that changes them may stand around it.

    With `bits=16` nothing is lost: the float32 params are bit for bit those of a run with float32 params and the same
    gradients. With `bits=8` they have 16 significant bits, rounded stochastically.

    Params that are changed from outside, as by loading others, are taken as they are: their old corrections still hold,
    which move each by at most half the distance to its neighbour. `init` starts without.

    Args:
        optimizer: Any optimizer of jgd or optax.
        bits: Of each correction.

    Returns:
        An optimizer with the slot `correction`, int16 or int8, for bfloat16 leaves, whose state is
        `WrapperState(own, inner)`. Leaves of other dtypes are left to the optimizer inside. `master_params` gives the
        float32 params.

    Raises:
        TypeError, ValueError: `optimizer` is not an optimizer, `bits` is neither 8 nor 16, a leaf is float16, or
            `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.ones(1, jnp.bfloat16)
        >>> optimizer = jgd.split_master_weights(jgd.sgd(0.001))
        >>> state = optimizer.init(params)
        >>> for _ in range(10):
        ...     updates, state = optimizer.update(jnp.ones_like(params), state, params)
        ...     params = jgd.apply_updates(params, updates)
        >>> print(params, f"{jgd.master_params(state, params)[0]:.4f}")
        [0.988281] 0.9900
    """
    if bits not in (8, 16):
        raise ValueError(f"split_master_weights: bits must be 8 or 16; got {bits!r}.")

    def after(master: Array, param: Array, _: Array, seed: Array) -> tuple[Array, Array]:
        half, correction = split_float(master, seed if bits == 8 else None)
        # Added to the param this gives the half, though the difference may be rounded. Where the param is far larger,
        # the half is a multiple of its last place; where it is far smaller, the sum is one float32 away at the most.
        return half.astype(jnp.float32) - param.astype(jnp.float32), correction

    def zero(param: Array) -> Array:
        return jnp.zeros_like(param, dtype=jnp.int8 if bits == 8 else jnp.int16)

    return _around(optimizer, "split_master_weights", 0, join_float, after, zero)


def master_params(opt_state: PyTree, params: PyTree) -> PyTree:
    """The float32 params behind those that the caller holds.

    Args:
        opt_state: A state within which `split_master_weights` has its own.
        params: The params that belong to it.

    Returns:
        A tree like `params`, float32 where a param has a correction, and the leaf itself elsewhere.

    Raises:
        ValueError: There is no such state, or it belongs to other params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.split_master_weights(jgd.sgd(0.001)), jnp.ones(2, jnp.bfloat16)
        >>> updates, state = optimizer.update(jnp.ones(2), optimizer.init(params), params)
        >>> print(jgd.master_params(state, jgd.apply_updates(params, updates)))
        [0.999 0.999]
    """

    def is_split(node: Any) -> bool:
        return isinstance(node, OptState) and CORRECTION in node.slots

    states = [node for node in jax.tree.leaves(opt_state, is_leaf=is_split) if is_split(node)]
    if len(states) != 1:
        raise ValueError(f"master_params: expected one state of split_master_weights; found {len(states)}.")
    leaves, treedef = jax.tree.flatten(params)
    check_params_of("master_params", CORRECTION, states[0].slots[CORRECTION], params)
    corrections = treedef.flatten_up_to(states[0].slots[CORRECTION])
    wide_leaves = (
        param if isinstance(correction, optax.MaskedNode) else join_float(jnp.asarray(param), correction)
        for param, correction in zip(leaves, corrections, strict=True)
    )
    return treedef.unflatten(wide_leaves)


def split_float(value: Array, seed: Array | None = None) -> tuple[Array, Array]:
    """A float32 array as the nearest bfloat16 (of two, the one away from zero) and the bits that it lacks.

    Args:
        value: float32.
        seed: None for int16 corrections; a uint32 scalar for int8 ones, for which values are first rounded to 16
            significant bits, stochastically.

    Returns:
        The bfloat16 array and the corrections. `join_float` gives `value` back, bit for bit where they are int16; a NaN
        becomes some NaN.
    """
    bits = jax.lax.bitcast_convert_type(value, jnp.uint32)
    if seed is not None:
        is_last = bits & jnp.uint32(0x7FFFFFFF) >= jnp.uint32(0x7F7FFF00)  # the next one would be infinite
        bits = jnp.where(is_last, bits, bits + (random_bits(value.shape, seed) >> 24)) & jnp.uint32(0xFFFFFF00)
    # A carry out of the lower half moves to the next bfloat16, and the lower half, read with a sign, says how far back.
    upper = ((bits + jnp.uint32(0x8000)) >> 16).astype(jnp.uint16)
    half = jax.lax.bitcast_convert_type(upper, jnp.bfloat16)
    if seed is None:
        lower = jax.lax.bitcast_convert_type(bits.astype(jnp.uint16), jnp.int16)
    else:
        lower = jax.lax.bitcast_convert_type((bits >> 8).astype(jnp.uint8), jnp.int8)
    is_nan = jnp.isnan(value)
    return jnp.where(is_nan, jnp.bfloat16(jnp.nan), half), jnp.where(is_nan, 0, lower)


def join_float(half: Array, correction: Array) -> Array:
    """The float32 array that `split_float` made these of."""
    upper = jax.lax.bitcast_convert_type(half, jnp.uint16)
    is_zero = upper & jnp.uint16(0x7FFF) == 0
    # Below a zero lie no bits of its own sign: such a correction is of a param that was since set to zero.
    correction = jnp.where(is_zero, jnp.maximum(correction, 0), correction)
    lower = correction.astype(jnp.int32) << (16 - 8 * correction.dtype.itemsize)
    bits = (upper.astype(jnp.uint32) << 16) + lower.astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def _around(
    optimizer: GradientTransformation,
    name: str,
    seed: int,
    before: Callable[[Array, Any], Array],
    after: Callable[[Array, Array, Any, Array], tuple[Array, Any]],
    new_slot: Callable[[Array], Array] | None,
) -> Optimizer:
    """An optimizer that shows the inner one 16-bit leaves in float32.

    `before(param, correction)` is the float32 param, `after(new, param, correction, seed) -> (update, correction)`.
    """
    base = optax.with_extra_args_support(optimizer)

    def needs_split(path: Any, param: Any) -> bool:
        dtype = jnp.result_type(param)
        if new_slot is not None and dtype == jnp.float16:
            raise TypeError(
                f"{name}: the param at {path_text(path)} is float16; expected bfloat16, which is the upper half of a"
                " float32. Use jgd.stochastic_rounding for float16."
            )
        return dtype in SIXTEEN_BITS

    def init(params: PyTree) -> WrapperState:
        paths, leaves, treedef = flatten(params)
        is_split = [needs_split(*leaf) for leaf in zip(paths, leaves, strict=True)]
        pairs = list(zip(leaves, is_split, strict=True))
        wide = treedef.unflatten(_as_float32(leaf) if split else leaf for leaf, split in pairs)
        slots = {}
        if new_slot is not None:
            corrections = (new_slot(leaf) if split else optax.MaskedNode() for leaf, split in pairs)
            slots[CORRECTION] = treedef.unflatten(corrections)
        return WrapperState(OptState(jnp.zeros((), jnp.int32), {}, slots), base.init(wide))

    def update(grads: PyTree, state: WrapperState, params: PyTree = None, **extra: Any) -> tuple[PyTree, WrapperState]:
        check_state(name, state, WrapperState)
        check_params_given(name, params)
        check_same_tree(name, "grads", grads, "params", params)
        paths, leaves, treedef = flatten(params)
        is_split = [needs_split(*leaf) for leaf in zip(paths, leaves, strict=True)]
        stored = [None] * len(leaves)
        if new_slot is not None:
            stored = treedef.flatten_up_to(state.own.slots[CORRECTION])
        params32 = [
            before(jnp.asarray(leaf), slot) if split else leaf
            for leaf, slot, split in zip(leaves, stored, is_split, strict=True)
        ]
        grads32 = [
            jnp.asarray(grad).astype(jnp.float32) if split and grad is not None else grad
            for grad, split in zip(treedef.flatten_up_to(grads), is_split, strict=True)
        ]
        updates, new_inner = base.update(treedef.unflatten(grads32), state.inner, treedef.unflatten(params32), **extra)
        count = increment(state.own.count)
        deltas = treedef.flatten_up_to(updates)
        for i in range(len(leaves)):
            if is_split[i] and deltas[i] is not None:
                place = jnp.uint32((seed + i * 0x85EBCA77) % 2**32)
                leaf_seed = count.astype(jnp.uint32) * jnp.uint32(0x9E3779B1) + place
                master = params32[i] + jnp.asarray(deltas[i]).astype(jnp.float32)
                deltas[i], stored[i] = after(master, jnp.asarray(leaves[i]), stored[i], leaf_seed)
        slots = {} if new_slot is None else {CORRECTION: treedef.unflatten(stored)}
        own = OptState(count, state.own.hyperparams, slots)
        return treedef.unflatten(deltas), WrapperState(own, new_inner)

    return make_optimizer(init, update, f"jgd.{name}({transform_text(optimizer)})")


def _as_float32(leaf: Any) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jnp.zeros_like(leaf, dtype=jnp.float32)
    return jnp.asarray(leaf).astype(jnp.float32)
