"""Optimizers and transforms in sequence."""

from typing import Any

import optax

from jgd.core import (
    GradientTransformation,
    Optimizer,
    PyTree,
    check_kind,
    make_optimizer,
    transform_text,
    update_params,
)


def chain(*parts: GradientTransformation) -> Optimizer:
    """Applies transforms in order: each takes the updates that the one before it returned.

    Args:
        *parts: jgd's and optax's transforms, in any mixture. The first takes the gradients; what the last returns is
            added to the params, so the learning rate, with its sign, belongs to the last.

    Returns:
        An optimizer whose state is the tuple of the parts' states. `jgd.get_hyperparams` and
        `jgd.set_hyperparams` reach through it.

    Raises:
        ValueError: No parts are given; or `update` is given a state of another length.
        TypeError: A part is not a transform.

    Examples:
        >>> import jax.numpy as jnp, jgd, optax
        >>> optimizer = jgd.chain(optax.clip(1.0), jgd.sgd(0.1))
        >>> updates, state = optimizer.update(jnp.array([5.0]), optimizer.init(jnp.zeros(1)))
        >>> print(updates)
        [-0.1]
    """
    if not parts:
        raise ValueError("chain: expected at least one transform; got none.")
    for i, part in enumerate(parts):
        check_kind("chain", f"parts[{i}]", part, GradientTransformation)
    transforms = [optax.with_extra_args_support(part) for part in parts]

    def init(params: PyTree) -> tuple[Any, ...]:
        return tuple(transform.init(params) for transform in transforms)

    def check(state: PyTree) -> None:
        if not isinstance(state, tuple) or len(state) != len(transforms):
            got = f"{len(state)} states" if isinstance(state, tuple) else f"a {type(state).__name__}"
            raise ValueError(f"chain: expected a tuple of {len(transforms)} states, one a part; got {got}.")

    def update(updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any) -> tuple[PyTree, PyTree]:
        check(state)
        new_state = []
        for transform, part_state in zip(transforms, state, strict=True):
            updates, part_state = transform.update(updates, part_state, params, **extra)
            new_state.append(part_state)
        return updates, tuple(new_state)

    def in_one_pass(updates: PyTree, state: PyTree, params: PyTree, **extra: Any) -> tuple[PyTree, PyTree]:
        check(state)
        new_state = []
        for transform, part_state in zip(transforms[:-1], state[:-1], strict=True):
            updates, part_state = transform.update(updates, part_state, params, **extra)
            new_state.append(part_state)
        params, last_state = update_params(transforms[-1], updates, state[-1], params, **extra)
        return params, (*new_state, last_state)

    shown = ", ".join(map(transform_text, parts))
    return make_optimizer(init, update, f"jgd.chain({shown})", in_one_pass)
