"""The user's loss: called with the arguments that the state asks for, and what it returns checked."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import (
    Array,
    LossFn,
    PyTree,
    ascent_direction,
    check_loss,
    check_same_tree,
    holds_packed,
    is_array,
    path_text,
    unpack,
)
from jgd.gradients import accumulate_micro_batches
from jgd.train.guards._loss_scale import scale_loss, unscale
from jgd.train.step._loss_weight import LossWeight, part_weights

#: `grad_fn(params, batch, key) -> (loss, grads, metrics)`, what makes gradients instead of `jax.value_and_grad`.
GradientFn = Callable[[PyTree, PyTree, Any], Any]


class Evaluated(NamedTuple):
    """Loss and gradients of one batch."""

    loss: Array
    grads: PyTree
    model_state: PyTree
    aux: PyTree
    micro_square: Array | None = None  # the mean of the parts' squared gradient norms, where there are parts


def evaluate(
    loss_fn: LossFn,
    params: PyTree,
    model_state: PyTree,
    batch: PyTree,
    key: Array | None,
    *,
    has_aux: bool,
    accumulate: int,
    scale: Array | None = None,
    norms: bool = False,
    loss_weight: LossWeight = None,
) -> Evaluated:
    """Loss and gradients of one batch, in `accumulate` parts, with the parts' `norms` where asked for.

    With a `scale` the loss is multiplied by it before it is differentiated, and the gradients are divided by it in
    float32 before anything else is done with them.
    """

    def grad_fn(part: PyTree, part_model_state: PyTree, i: Array) -> tuple[Array, PyTree, PyTree, PyTree]:
        part_key = key if key is None or accumulate == 1 else jax.random.fold_in(key, i)

        def objective(p: PyTree) -> tuple[Array, tuple[Array, PyTree, PyTree]]:
            p = as_loss_sees(p)
            arguments = (p, part) if part_model_state is None else (p, part_model_state, part)
            arguments = arguments if part_key is None else (*arguments, part_key)
            loss, kept = split_return(loss_fn(*arguments), part_model_state, has_aux)
            return scale_loss(loss, scale), (loss, *kept)

        value_and_grad = jax.value_and_grad(objective, has_aux=True, allow_int=True)
        (_, (loss, new_model_state, aux)), grads = value_and_grad(params)
        return loss, _as_optimizers_see(grads, params, scale), new_model_state, aux

    if accumulate == 1:
        return Evaluated(*grad_fn(batch, model_state, jnp.zeros((), jnp.int32)))
    weights = part_weights(loss_weight, batch, accumulate)
    means = accumulate_micro_batches(grad_fn, batch, model_state, accumulate, part_norms=norms, weights=weights)
    return Evaluated(*means)


def loss_of_params(
    loss_fn: LossFn, model_state: PyTree, batch: PyTree, key: Array | None, *, has_aux: bool
) -> Callable[[PyTree], Array]:
    """The loss of one batch as a function of the params alone, for optimizers that evaluate it again."""

    # optax's line searches hand on to `value_fn` what else they were given, and refuse what it does not name.
    def objective(params: PyTree, *, obj_fn: Any = None, grad_fn: Any = None) -> Array:
        del obj_fn, grad_fn
        params = as_loss_sees(params)
        arguments = (params, batch) if model_state is None else (params, model_state, batch)
        arguments = arguments if key is None else (*arguments, key)
        return split_return(loss_fn(*arguments), model_state, has_aux)[0]

    return objective


def grad_of(objective: Callable[[PyTree], Array], scale: Array | None) -> Callable[[PyTree, Any], PyTree]:
    """The gradient of `objective`, taken with the loss scale, for optimizers that evaluate it again."""

    def grad_fn(params: PyTree, i: Any = None) -> PyTree:
        del i
        grads = jax.grad(lambda p: scale_loss(objective(p), scale), allow_int=True)(params)
        return _as_optimizers_see(grads, params, scale)

    return grad_fn


def checked_gradient(gradient: Callable[[LossFn], GradientFn], loss_fn: LossFn) -> GradientFn:
    """The gradient function that `gradient` makes of a loss, with its result checked.

    Returns:
        `grad_fn(params, batch, key) -> (loss, grads, metrics)`.

    Raises:
        TypeError: `gradient` did not return a function, or that did not return such a triple.
        ValueError: The gradients are not a tree like the params.
    """
    grad_fn = gradient(lambda params, *rest: loss_fn(as_loss_sees(params), *rest))
    if not callable(grad_fn):
        raise TypeError(f"make_step: gradient(loss_fn) must return a function; got {_describe(grad_fn)}.")

    def checked_grad_fn(params: PyTree, batch: PyTree, key: Any) -> tuple[Array, PyTree, dict[str, Any]]:
        returned = grad_fn(params, batch, key)
        if not (isinstance(returned, tuple) and len(returned) == 3 and isinstance(returned[2], dict)):
            raise TypeError(
                f"make_step: gradient(loss_fn) must return (loss, grads, metrics dict); got {_describe(returned)}."
            )
        loss, grads, metrics = returned
        if jax.tree.structure(grads) != jax.tree.structure(params):
            raise ValueError(
                "make_step: the gradients of gradient(loss_fn) must be a tree like the params; got"
                f" {jax.tree.structure(grads)}, expected {jax.tree.structure(params)}."
            )
        for path, leaf in jax.tree_util.tree_flatten_with_path(grads)[0]:
            if not is_array(leaf):
                where = f"make_step: the gradient of gradient(loss_fn) at {path_text(path)}"
                raise TypeError(f"{where} is {_describe(leaf)}; expected an array.")
        return _check_loss(loss), grads, metrics

    return checked_grad_fn


def as_loss_sees(params: PyTree) -> PyTree:
    """The params, unpacked where `jgd.pack` packed them."""
    return unpack(params) if holds_packed(params) else params


def split_return(returned: Any, model_state: PyTree, has_aux: bool) -> tuple[Array, tuple[PyTree, PyTree]]:
    """`(loss, (model_state, aux))` from what the loss returned.

    Raises:
        TypeError: It returned another structure than `has_aux` and the model state ask for, or no real float.
        ValueError: The loss is no scalar, or the new model state differs in structure, shape or dtype.
    """
    is_pair = isinstance(returned, tuple) and len(returned) == 2
    if model_state is not None:
        if not (is_pair and isinstance(returned[1], tuple) and len(returned[1]) == 2):
            raise TypeError(
                "loss_fn: with a model state expected (loss, (new_model_state, aux)), aux being None where there is"
                f" none; got {_describe(returned)}."
            )
        loss, (new_model_state, aux) = returned
        _check_model_state(new_model_state, model_state)
    elif has_aux:
        if not is_pair:
            raise TypeError(f"loss_fn: with has_aux=True expected (loss, aux); got {_describe(returned)}.")
        loss, aux = returned
        new_model_state = None
    else:
        if isinstance(returned, tuple | list | dict):
            raise TypeError(
                f"loss_fn: expected one scalar; got {_describe(returned)}. If it returns (loss, aux), call"
                " make_step(..., has_aux=True)."
            )
        loss, new_model_state, aux = returned, None, None
    return _check_loss(loss), (new_model_state, aux)


def _check_loss(loss: Any) -> Array:
    return check_loss("loss_fn", loss, if_not_scalar="If it holds a loss per example, take jnp.mean of it.")


def _check_model_state(new: PyTree, old: PyTree) -> None:
    # Leaf by leaf: what a class of a user's makes of == is its own affair.
    check_same_tree("loss_fn", "the new model state", new, "the old one", old)
    for (path, leaf), expected in zip(jax.tree_util.tree_flatten_with_path(new)[0], jax.tree.leaves(old), strict=True):
        if not is_array(leaf):
            raise TypeError(
                f"loss_fn: the new model state at {path_text(path)} is {_describe(leaf)}; expected an array."
            )
        kinds = [f"{jnp.result_type(x)}{list(jnp.shape(x))}" for x in (leaf, expected)]
        if kinds[0] != kinds[1]:
            raise ValueError(
                "loss_fn: the new model state must equal the old in structure, shapes and dtypes; at"
                f" {path_text(path)} got {kinds[0]}, expected {kinds[1]}."
            )


def _describe(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _as_optimizers_see(grads: PyTree, params: PyTree, scale: Array | None) -> PyTree:
    """What JAX returned, as an optimizer takes it: arrays, the scale divided out, uphill where params are complex."""
    return ascent_direction(unscale(jax.tree.map(_no_float0, grads, params), scale))


def _no_float0(grad: Any, param: Any) -> Any:
    """Integer leaves have gradients of a dtype without values; zeros in their own dtype stand for them."""
    return jnp.zeros_like(param) if jnp.result_type(grad) == jax.dtypes.float0 else grad
