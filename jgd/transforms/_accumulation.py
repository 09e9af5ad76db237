"""Gradient accumulation over calls: the inner optimizer runs when it is due, and only then."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jgd.core import (
    Array,
    DTypeLike,
    GradientTransformation,
    Optimizer,
    PyTree,
    Schedule,
    cast_like,
    check_kind,
    checked,
    fixed_int,
    increment,
    is_float,
    is_key,
    is_traced,
    make_optimizer,
    map_floats,
    transform_text,
)
from jgd.transforms._conditional import update_where

skip_not_finite = optax.skip_not_finite
skip_large_updates = optax.skip_large_updates


class MultiStepsState(NamedTuple):
    """Counters, the inner state, the gradient accumulated so far, and what the skipping function returned last."""

    mini_step: Array
    gradient_step: Array
    inner_opt_state: PyTree
    acc_grads: PyTree
    skip_state: PyTree = ()


@jax.tree_util.register_pytree_node_class
class MultiSteps:
    """optax's accumulation, under its names, with an inner optimizer that runs once in `k` calls.

    optax 0.2.8 computes the inner update at every call and multiplies it by zero: `k` times the cost, and a NaN in a
    partial sum reaches the params. Here the inner update is behind a condition.

    Args:
        opt: Any optimizer.
        every_k_schedule: Calls for one update, or a function from the number of updates to it.
        use_grad_mean: Whether the mean of the gradients is used; their sum otherwise.
        should_skip_update_fn: `(updates, gradient_step, params) -> (skip, info)`; a skipped gradient does not count.
        accumulator_dtype: The dtype of the running mean.

    Raises:
        TypeError, ValueError: `opt` is no optimizer; the number of calls is not an integer above 0; the function
            returns no boolean scalar, or another kind of argument is wrong.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.MultiSteps(jgd.sgd(1.0), 2), jnp.zeros(1)
        >>> state = optimizer.init(params)
        >>> for grad in (1.0, 3.0):
        ...     updates, state = optimizer.update(jnp.array([grad]), state, params)
        ...     print(updates)
        [0.]
        [-2.]
    """

    @checked
    def __init__(
        self,
        opt: GradientTransformation,
        every_k_schedule: int | Schedule,
        use_grad_mean: bool = True,
        should_skip_update_fn: Callable[..., tuple[Array, PyTree]] | None = None,
        accumulator_dtype: DTypeLike = jnp.float32,
    ):
        _check_every("MultiSteps", "every_k_schedule", every_k_schedule)
        if not jnp.issubdtype(accumulator_dtype, jnp.inexact):
            raise TypeError(f"MultiSteps: accumulator_dtype must be a float dtype; got {accumulator_dtype!r}.")
        self.inner_opt = optax.with_extra_args_support(opt)
        self._every = every_k_schedule if callable(every_k_schedule) else lambda _: every_k_schedule
        self._use_grad_mean = use_grad_mean
        self._skip = should_skip_update_fn or (lambda *_: (jnp.array(False), ()))
        self._dtype = accumulator_dtype

    def tree_flatten(self) -> tuple[Any, Any]:
        """For JAX: numbers that the optimizer inside holds are arguments of a program compiled for this one."""
        return (self.inner_opt, self._every, self._skip), (self._use_grad_mean, self._dtype)

    @classmethod
    def tree_unflatten(cls, static: Any, children: tuple[Any, ...]) -> "MultiSteps":
        """For JAX."""
        steps = object.__new__(cls)
        steps.inner_opt, steps._every, steps._skip = children
        steps._use_grad_mean, steps._dtype = static
        return steps

    def init(self, params: PyTree) -> MultiStepsState:
        """The state before the first call."""
        zeros = jax.tree.map(self._zeros, params)
        step = jnp.zeros((), jnp.int32)
        info = self._skip(map_floats(jnp.zeros_like, params, others=_no_leaf), step, params)[1]
        return MultiStepsState(step, jnp.zeros((), jnp.int32), self.inner_opt.init(params), zeros, info)

    def update(
        self, updates: PyTree, state: MultiStepsState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, MultiStepsState]:
        """Accumulates a gradient; the update of the inner optimizer when it is due, and zeros otherwise."""
        # What is not trained has no gradient to be skipped.
        skip, info = self._skip(map_floats(jnp.asarray, updates, others=_no_leaf), state.gradient_step, params)
        if (skip.dtype, skip.shape) != (jnp.bool_, ()):
            raise ValueError(
                "MultiSteps: the `should_skip_update_fn` function should return a boolean scalar array, but it returned"
                f" an array of dtype {skip.dtype} and shape {skip.shape}."
            )
        every = self._every(state.gradient_step)
        check_kind("MultiSteps", "what the function from the number of updates returns", every, float)
        leaves, treedef = jax.tree.flatten(updates)
        pairs = zip(leaves, treedef.flatten_up_to(state.acc_grads), strict=True)
        # `where`, not a product: a skipped gradient, NaN or not, must leave no trace.
        acc_grads = treedef.unflatten(
            jnp.where(skip, acc, self._accumulate(grad, acc, state.mini_step)) if is_float(grad) else acc
            for grad, acc in pairs
        )
        is_due = jnp.logical_and(state.mini_step == every - 1, jnp.logical_not(skip))

        def run_inner() -> tuple[PyTree, PyTree]:
            grads = map_floats(lambda grad, acc: acc.astype(jnp.result_type(grad)), updates, acc_grads)
            inner_updates, inner = self.inner_opt.update(grads, state.inner_opt_state, params, **extra)
            return inner_updates, cast_like(inner, state.inner_opt_state)

        inner_updates, inner = update_where(is_due, run_inner, state.inner_opt_state)
        mini_step = jnp.where(skip, state.mini_step, jnp.where(is_due, 0, increment(state.mini_step)))
        gradient_step = jnp.where(is_due, increment(state.gradient_step), state.gradient_step)
        acc_grads = jax.tree.map(lambda acc: jnp.where(is_due, jnp.zeros_like(acc), acc), acc_grads)
        return inner_updates, MultiStepsState(mini_step, gradient_step, inner, acc_grads, info)

    def has_updated(self, state: MultiStepsState) -> Array:
        """Whether the last call was one with an update."""
        return jnp.logical_and(state.mini_step == 0, state.gradient_step > 0)

    def gradient_transformation(self) -> Optimizer:
        """The same as an optimizer, for chains and wrappers."""
        return _as_optimizer(self, f"jgd.MultiSteps({transform_text(self.inner_opt)})")

    def _accumulator_dtype(self, leaf: Any) -> Any:
        dtype = jnp.result_type(leaf)
        wide = jnp.promote_types(dtype, self._dtype) if jnp.issubdtype(dtype, jnp.complexfloating) else self._dtype
        return wide if is_float(leaf) else dtype

    def _zeros(self, leaf: Any) -> Any:
        return optax.MaskedNode() if is_key(leaf) else jnp.zeros(jnp.shape(leaf), self._accumulator_dtype(leaf))

    def _accumulate(self, grad: Array, acc: Array, count: Array) -> Array:
        wide = jnp.asarray(grad).astype(acc.dtype)
        share = (1 / (count + 1)).astype(jnp.finfo(acc.dtype).dtype)
        return acc + (wide - acc) * share if self._use_grad_mean else acc + wide


def _check_every(owner: str, name: str, every: Any) -> None:
    if not (callable(every) or is_traced(every)):
        fixed_int(owner, name, every, least=1)


def _no_leaf(leaf: Any) -> None:
    del leaf


def accumulate(optimizer: GradientTransformation, every: int | Schedule) -> Optimizer:
    """One update from the mean gradient of `every` calls; a gradient that is not finite is left out.

    Args:
        optimizer: Any optimizer. It runs once in `every` calls.
        every: Calls for one update, at least 1, or a function from the number of updates to it.

    Returns:
        An optimizer whose state is a `MultiStepsState`; its `skip_state` says how many entries of the last gradient
        were not finite.

    Raises:
        TypeError, ValueError: `optimizer` is not an optimizer, or `every` is not an integer above 0.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.accumulate(jgd.sgd(1.0), 2), jnp.zeros(1)
        >>> state = optimizer.init(params)
        >>> for grad in (1.0, float("nan"), 3.0):
        ...     updates, state = optimizer.update(jnp.array([grad]), state, params)
        >>> print(updates)
        [-2.]
    """
    _check_every("accumulate", "every", every)
    steps = MultiSteps(optimizer, every, should_skip_update_fn=skip_not_finite)
    return _as_optimizer(steps, f"jgd.accumulate({transform_text(optimizer)}, {every})")


def _as_optimizer(steps: MultiSteps, label: str) -> Optimizer:
    def init(params: PyTree) -> MultiStepsState:
        return steps.init(params)

    def update(grads: PyTree, state: MultiStepsState, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]:
        return steps.update(grads, state, params, **extra)

    return make_optimizer(init, update, label)
