"""An optax factory as a jgd optimizer: its numbers become data."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jgd.compat._arguments import bind, data_arguments, merged, outside_usual_range
from jgd.core import (
    Array,
    Hyperparams,
    Optimizer,
    PyTree,
    Range,
    begin_update,
    check_arrays,
    check_grad,
    check_same_tree,
    checked,
    compute_dtype,
    is_float,
    is_key,
    make_optimizer,
    refuse_integer_grad,
    widest_dtype,
    zero_update,
)

ANYWHERE = Range(low=-math.inf)


class LiftedState(NamedTuple):
    """The state of a lifted factory; `jgd.get_hyperparams` and `jgd.set_hyperparams` read and write it."""

    count: Array  # int32 scalar, updates made so far
    hyperparams: dict[str, Array]  # as the last update used them
    inner: PyTree  # the state of optax's transform


@checked
def lift(
    factory: Callable[..., optax.GradientTransformation], /, *args: Any, static: str | Sequence[str] = (), **kwargs: Any
) -> Optimizer:
    """Makes a jgd optimizer of any factory of `optax.GradientTransformation`s: its numbers become data in the state.

    It does what `optax.inject_hyperparams` is for, the jgd way. Hyperparameters are float32 (float64 with x64)
    whatever the params' dtype; params of lower precision are updated through float32, moments included; a schedule
    has its factor `<name>_scale`; integer leaves are left alone; dtypes of the state never change.

    What becomes data is every number, scalar array and schedule among the arguments, given or default, and tuples of
    floats such as `betas`. What stays as it is: booleans, strings, None, dtypes, trees, transforms, callables that
    give no number for a step, and integers where the parameter is one by its default or annotation (`ns_steps=5`).

    Args:
        factory: The factory, such as `optax.adamw`; also a function of one's own that builds a chain.
        *args: Its positional arguments.
        static: Names of further arguments that stay as they are: numbers that the factory branches on in Python.
        **kwargs: Its keyword arguments.

    Returns:
        An optimizer whose state is `LiftedState(count, hyperparams, inner)`.

    Raises:
        TypeError: The factory does not take these arguments, `static` names one that it does not have, a schedule
            has a state of its own, or (at `init` and `update`) the factory needs a hyperparameter's value in Python;
            the message names it.
        ValueError: A hyperparameter is not finite or outside the range of its name.

    Examples:
        >>> import jax.numpy as jnp, jgd, optax
        >>> from jgd.compat.optax import lift
        >>> optimizer = lift(optax.novograd, 0.1)
        >>> state = optimizer.init(jnp.zeros(2))
        >>> list(jgd.get_hyperparams(state))
        ['learning_rate', 'b1', 'b2', 'eps', 'eps_root', 'weight_decay']
        >>> state = jgd.set_hyperparams(state, learning_rate=0.5)
        >>> updates, state = optimizer.update(jnp.array([3.0, -4.0]), state, jnp.zeros(2))
        >>> print(updates.round(3))
        [-0.3  0.4]
    """
    name = getattr(factory, "__name__", type(factory).__name__)
    bound = bind(name, factory, args, kwargs)
    data = data_arguments(name, factory, bound, static)
    vectors = tuple(key for key, value in data.items() if isinstance(value, tuple))
    ranges = dict.fromkeys(outside_usual_range(name, factory, data), ANYWHERE)
    first_values: dict[str, Any] = {key: np.asarray(value) if key in vectors else value for key, value in data.items()}
    numbers = Hyperparams(name, first_values, arrays=vectors, ranges=ranges)

    def build(hyper: Mapping[str, Any]) -> optax.GradientTransformationExtraArgs:
        values = {key: tuple(hyper[key]) if key in vectors else hyper[key] for key in data}
        arguments, keywords = merged(factory, bound, values)
        return optax.with_extra_args_support(factory(*arguments, **keywords))

    def first() -> dict[str, Any]:
        with jax.ensure_compile_time_eval():
            return {key: value(0) if callable(value) else value for key, value in data.items()}

    def init(params: PyTree) -> LiftedState:
        check_arrays(name, params)
        hyper = numbers.init()
        wide = jax.tree.map(_wide, params, params)
        inner = _with_reason(name, build, first, hyper, lambda transform: transform.init(wide))
        return LiftedState(jnp.zeros((), jnp.int32), hyper, jax.tree.map(_copy, inner))

    def update(grads: PyTree, state: LiftedState, params: PyTree = None, **extra: Any) -> tuple[PyTree, LiftedState]:
        hyper, count = begin_update(numbers, state, LiftedState)
        like = grads if params is None else params
        check_same_tree(name, "grads", grads, "params", like)
        _check_grads(name, grads, params)
        common = widest_dtype(filter(is_float, jax.tree.leaves(like)))
        used = {key: value.astype(common) for key, value in hyper.items()}
        wide_grads = jax.tree.map(_wide, grads, like)
        wide_params = None if params is None else jax.tree.map(_wide, params, params)

        def call(transform: optax.GradientTransformationExtraArgs) -> tuple[PyTree, PyTree]:
            return transform.update(wide_grads, state.inner, wide_params, **extra)

        updates, inner = _with_reason(name, build, first, used, call)
        updates = jax.tree.map(_narrow, like, grads, updates)
        return updates, LiftedState(count, hyper, jax.tree.map(_as_before, inner, state.inner))

    return make_optimizer(init, update, f"jgd.compat.optax.lift({name}, {numbers.text()})")


def _with_reason(
    name: str,
    build: Callable[..., Any],
    first: Callable[[], dict[str, Any]],
    hyper: Mapping[str, Array],
    call: Callable[..., Any],
) -> Any:
    """Builds the transform and calls it; where that fails, finds the hyperparameter whose value it needs.

    Raises:
        TypeError: The factory needs a value in Python; the message says whose.
    """
    try:
        return call(build(hyper))
    except TypeError as error:
        needed = _needed_in_python(build, first(), hyper, call)
        if not needed:
            raise
        raise TypeError(
            f"{name}: it needs the value of {' and of '.join(needed)} in Python, so it cannot be data. Call"
            f" lift with static={tuple(needed)!r}."
        ) from error


def _needed_in_python(
    build: Callable[..., Any], numbers: Mapping[str, Any], hyper: Mapping[str, Array], call: Callable[..., Any]
) -> list[str]:
    """The hyperparameters that, traced alone, make the call fail; empty where it fails with all of them known."""

    def runs(**traced: Any) -> bool:
        try:
            jax.eval_shape(lambda traced: call(build({**numbers, **traced})), traced)
        except TypeError:
            return False
        return True

    return [key for key in numbers if not runs(**{key: hyper[key]})] if runs() else []


def _check_grads(name: str, grads: PyTree, params: PyTree) -> None:
    """Refuses gradients of another shape or kind than their params."""
    like = grads if params is None else params
    pairs = zip(jax.tree_util.tree_flatten_with_path(like)[0], jax.tree.leaves(grads), strict=True)
    for (path, param), grad in pairs:
        if is_float(param):
            check_grad(name, path, grad, param)
        elif params is None:
            refuse_integer_grad(name, path, grad)


def _wide(leaf: Any, like: Any) -> Any:
    """A leaf in its compute dtype; where the param is an integer, a marker without arrays, which optax passes by."""
    if not is_float(like):
        return optax.MaskedNode()
    dtype = compute_dtype(jnp.result_type(leaf))
    return jnp.zeros(leaf.shape, dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else jnp.asarray(leaf, dtype)


def _narrow(like: Any, grad: Any, update: Any) -> Any:
    """An update as precise as gradient and param; zero for an integer."""
    if is_float(like):
        return jnp.asarray(update, jnp.promote_types(jnp.result_type(grad), jnp.result_type(like)))
    return zero_update(like)


def _copy(leaf: Any) -> Any:
    """A leaf of the state in a buffer that it shares with nothing, of a dtype that is not weak."""
    if isinstance(leaf, jax.Array) and is_key(leaf):
        return leaf.copy()
    return jnp.array(leaf, dtype=jnp.result_type(leaf), copy=True)


def _as_before(new: Any, old: Any) -> Any:
    if is_key(old):
        return new
    return jnp.asarray(new, dtype=old.dtype)
