"""What an optimizer is, and what it carries from one step to the next."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jgd.core._apply import apply_updates
from jgd.core._arguments import check_kind
from jgd.core._hyperparams import Hyperparams
from jgd.core._models import guarded_init, guarded_update
from jgd.core._numerics import increment
from jgd.core._types import Array, GradientTransformation, Hyper, PyTree


class OptState(NamedTuple):
    """The state of one optimizer: plain arrays in plain containers.

    `optax.tree.get` finds each of its parts by name, and any checkpoint library can write it. A slot is also an
    attribute, as it is in the states of optax.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> state = jgd.adam(0.1).init(jnp.zeros(2))
        >>> print(state.mu is state.slots["mu"], state.nu)
        True [0. 0.]
    """

    count: Array  # int32 scalar, updates made so far; it saturates instead of overflowing
    hyperparams: dict[str, Array]  # each one as the last update used it (before the first: as it will be used)
    slots: dict[str, PyTree]  # one tree a slot, shaped like the params, `optax.MaskedNode()` where a leaf has none

    def __getattr__(self, name: str) -> Any:
        """The slot of that name, which is not looked for unless there is no other attribute."""
        # JAX and copying libraries ask for special names, also of states that are not yet whole.
        slots = self[2] if len(self) == 3 and isinstance(self[2], Mapping) else {}
        if name in slots:
            return slots[name]
        message = f"OptState has no attribute {name!r}"
        if not name.startswith("__"):
            known = ", ".join(slots) or "none"
            numbers = ", ".join(self[1]) if len(self) == 3 and isinstance(self[1], Mapping) else ""
            message += f"; its fields are count, hyperparams and slots, its slots: {known}"
            message += f". Hyperparameters are in state.hyperparams: {numbers}." if numbers else "."
        raise AttributeError(message, name=name, obj=self)


def first_state(hyperparams: Hyperparams, slots: dict[str, PyTree]) -> OptState:
    """The state before the first update."""
    return OptState(jnp.zeros((), jnp.int32), hyperparams.init(), slots)


def begin_update(
    hyperparams: Hyperparams, state: PyTree, kind: type, slots: Collection[str] | None = None
) -> tuple[Hyper, Array]:
    """What every update starts with.

    Args:
        hyperparams: Those that the factory was given.
        state: A state with a count and hyperparameters, or one that has such a state under `own`.
        kind: The type of the states that the optimizer's init makes.
        slots: The names of its slots; None not to compare them.

    Returns:
        `(hyper, step)`: the hyperparameters of this update by name, and its number, from 1, which is the new count.

    Raises:
        TypeError: `state` is of another type.
        ValueError: It has other slots or hyperparameters.
    """
    owner = hyperparams.owner
    check_state(owner, state, kind)
    counted = state.own if hasattr(kind, "own") else state  # asked of the type: a slot may have that name
    if slots is not None and set(counted.slots) != set(slots):
        raise ValueError(
            f"{owner}: the state has the slots {sorted(counted.slots)}, this optimizer has {sorted(slots)}."
            " Pass the state that this optimizer's init made."
        )
    return hyperparams.at_step(counted.hyperparams, counted.count), increment(counted.count)


def check_state(owner: str, state: PyTree, kind: type) -> None:
    """Refuses what the optimizer's init does not make.

    Raises:
        TypeError: It is of another type than `kind`.
    """
    if not isinstance(state, kind):
        raise TypeError(
            f"{owner}: expected the {kind.__name__} that this optimizer's init made; got {type(state).__name__}."
        )


def check_params_given(owner: str, params: PyTree, who: str = "it", updates: str = "grads") -> None:
    """Refuses an update without params, for formulas that read them; `who` does, and `updates` is the first argument.

    Raises:
        ValueError: They are None.
    """
    if params is None:
        raise ValueError(f"{owner}: {who} reads the params: call update({updates}, state, params); got params=None.")


class Optimizer(optax.GradientTransformationExtraArgs):
    """A pair of pure functions, `init` and `update`: optax's protocol, and nominally optax's type.

    - `init(params) -> state`
    - `update(grads, state, params=None, **extra) -> (updates, state)`; the updates are *added* to the params.

    It goes wherever an `optax.GradientTransformation` goes. Factories such as `jgd.adamw` make it; printing
    it shows how it was made.

    Examples:
        >>> import jgd
        >>> jgd.sgd(0.1, momentum=0.9)
        jgd.sgd(learning_rate=0.1, momentum=0.9)
        >>> init, update = jgd.sgd(0.1)
    """

    __module__ = "jgd"  # where users find it, and what signatures show
    label = "jgd.Optimizer"
    in_one_pass: Callable[..., Any] | None = None

    def __repr__(self) -> str:
        return self.label


def is_state(node: Any) -> bool:
    """Whether this is an optimizer's state, or a tuple or dict of such."""
    if isinstance(node, OptState):
        return True
    return isinstance(node, tuple | dict) and any(
        isinstance(part, OptState) or (isinstance(part, tuple) and is_state(part))
        for part in (node.values() if isinstance(node, dict) else node)
    )


def make_optimizer(
    init: Callable[..., Any],
    update: Callable[..., Any],
    label: str,
    in_one_pass: Callable[..., Any] | None = None,
) -> Optimizer:
    """Binds the two functions, the text that `print` shows, and what `update_params` calls, where there is such.

    All of them refuse what is not an array, and take a whole model of Equinox for its params.
    """
    owner = label.partition("(")[0].removeprefix("jgd.")
    optimizer = Optimizer(guarded_init(owner, init), guarded_update(owner, update, is_state))
    optimizer.label = label  # an attribute beside the tuple: unpacking still gives two functions
    if in_one_pass is not None:
        optimizer.in_one_pass = guarded_update(owner, in_one_pass, is_state, applied=True)
    return optimizer


def update_params(
    optimizer: GradientTransformation, grads: PyTree, opt_state: PyTree, params: PyTree, **extra: Any
) -> tuple[PyTree, PyTree]:
    """`update` and `apply_updates` in one: the new params come out of the rule's own loop over memory.

    Args:
        optimizer: Any optimizer of jgd or optax. jgd's rules, alone or last in a `jgd.chain`, make no tree of updates
            on the way; for all others it is as if you called both functions.
        grads: Gradients, a tree like the params.
        opt_state: The optimizer's state.
        params: A tree of arrays.
        **extra: What the optimizer reads besides, such as `value`.

    Returns:
        `(params, opt_state)`, both new. A param of low precision is rounded once, from the float32 sum; the updates of
        `update` are rounded before they are added.

    Raises:
        ValueError, TypeError: As the optimizer's `update`; `optimizer` is not an optimizer.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.sgd(0.5), jnp.array([1.0, 2.0])
        >>> params, state = jgd.update_params(optimizer, jnp.ones(2), optimizer.init(params), params)
        >>> print(params)
        [0.5 1.5]
    """
    in_one_pass = getattr(optimizer, "in_one_pass", None)
    if in_one_pass is not None:
        return in_one_pass(grads, opt_state, params, **extra)
    check_kind("update_params", "optimizer", optimizer, optax.GradientTransformation)
    updates, opt_state = optax.with_extra_args_support(optimizer).update(grads, opt_state, params, **extra)
    return apply_updates(params, updates), opt_state
