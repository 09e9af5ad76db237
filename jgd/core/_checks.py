"""Checks at trace time. Each message says where, what was found, and what was expected."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import jax
import jax.numpy as jnp
import optax

from jgd.core._alias import meaning
from jgd.core._types import PyTree, is_array


def path_text(path: tuple[Any, ...]) -> str:
    """A leaf's path as one would write it to reach the leaf; the root has none."""
    return jax.tree_util.keystr(path) or "the root"


def path_keys(path: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a leaf's path is made of, whatever the containers are: keys, indices and names of fields."""
    return tuple(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))) for key in path)


def flatten(tree: PyTree) -> tuple[list[tuple[Any, ...]], list[Any], Any]:
    """Paths, leaves and treedef."""
    with_paths, treedef = jax.tree_util.tree_flatten_with_path(tree)
    return [path for path, _ in with_paths], [leaf for _, leaf in with_paths], treedef


def refuse_non_array(owner: str, path: tuple[Any, ...], leaf: Any, what: str = "leaf") -> None:
    """Refuses a leaf that is not an array, and says what to do about it.

    Raises:
        TypeError: Always.
    """
    kind = f"{type(leaf).__module__.partition('.')[0]}.{type(leaf).__name__}".removeprefix("builtins.")
    dtype = getattr(leaf, "dtype", None)
    text = leaf if isinstance(leaf, str | bytes) else None
    actual = f"{text!r}" if text is not None else f"a {kind}" if dtype is None else f"a {kind} of dtype {dtype}"
    if hasattr(leaf, "detach"):
        advice = "Convert tensors with jnp.asarray(tensor.detach().numpy())."
    else:
        advice = "Keep only the arrays of a model in its params (in Equinox: eqx.filter(model, eqx.is_inexact_array))."
    raise TypeError(f"{owner}: the {what} at {path_text(path)} is {actual}, not an array. {advice}")


def is_trainable(owner: str, path: tuple[Any, ...], leaf: Any) -> bool:
    """Whether a leaf is updated: float and complex leaves are, integers, booleans and keys are left alone.

    Raises:
        TypeError: The leaf is not an array.
    """
    if not is_array(leaf):
        refuse_non_array(owner, path, leaf)
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def check_arrays(owner: str, tree: PyTree, what: str = "leaf") -> None:
    """Refuses a tree with a leaf that is not an array.

    Raises:
        TypeError: There is one; the message names it.
    """
    if all(map(is_array, jax.tree.leaves(tree))):
        return
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if not is_array(leaf):
            refuse_non_array(owner, path, leaf, what)


def check_same_tree(owner: str, actual_name: str, actual: PyTree, expected_name: str, expected: PyTree) -> None:
    """Refuses two trees of different structure, and names the first leaf that only one of them has.

    Raises:
        ValueError: The structures differ.
    """
    actual_def, expected_def = jax.tree.structure(actual), jax.tree.structure(expected)
    if actual_def == expected_def:
        return
    actual_paths = [path_text(path) for path in flatten(actual)[0]]
    expected_paths = [path_text(path) for path in flatten(expected)[0]]
    missing = [path for path in expected_paths if path not in actual_paths]
    extra = [path for path in actual_paths if path not in expected_paths]
    if missing:
        detail = f"{expected_name} has a leaf at {missing[0]} that {actual_name} lacks"
    elif extra:
        detail = f"{actual_name} has a leaf at {extra[0]} that {expected_name} lacks"
    else:
        detail = f"the leaves have the same paths in other containers: {actual_def} against {expected_def}"
    raise ValueError(f"{owner}: the trees of {actual_name} and {expected_name} differ: {detail}.")


def flatten_slot(owner: str, slot: str, tree: PyTree, grads: PyTree, name: str = "grads") -> list[Any]:
    """What a slot holds for each leaf of the gradients, or of the tree of that name.

    It is an array, a storage's own tree, or the marker of no slot.

    Raises:
        ValueError: The slot is another tree's.
    """
    try:
        return jax.tree.structure(grads).flatten_up_to(tree)
    except (ValueError, TypeError, KeyError) as error:
        check_same_tree(owner, name, grads, f"the state's slot {slot!r}", tree)
        raise ValueError(f"{owner}: {name} do not fit the state's slot {slot!r}: {error}") from error


def _same_shape(a: Any, b: Any) -> bool:
    return is_array(a) and is_array(b) and jnp.shape(a) == jnp.shape(b)


def check_params_of(owner: str, slot: str, tree: PyTree, params: PyTree) -> None:
    """Refuses params that a slot does not belong to.

    Raises:
        ValueError: Their trees differ, or a leaf is not an array of the slot's shape.
    """
    stored = flatten_slot(owner, slot, tree, params, "params")
    for (path, leaf), value in zip(jax.tree_util.tree_flatten_with_path(params)[0], stored, strict=True):
        if isinstance(value, optax.MaskedNode) or _same_shape(leaf, value):
            continue
        if not is_array(value):
            check_same_tree(owner, "params", params, f"the state's slot {slot!r}", tree)
        actual = f"of shape {jnp.shape(leaf)}" if is_array(leaf) else f"a {type(leaf).__name__}"
        raise ValueError(
            f"{owner}: the param at {path_text(path)} is {actual}; the state's slot {slot!r} has shape"
            f" {jnp.shape(value)} there."
        )


def check_grad(owner: str, path: tuple[Any, ...], grad: Any, param: Any, param_name: str = "param") -> None:
    """Refuses a gradient that cannot belong to its parameter.

    Raises:
        ValueError: Another shape.
        TypeError: An integer gradient, or a complex one for a real parameter.
    """
    where = f"{owner}: the gradient at {path_text(path)}"
    grad_dtype, param_dtype = jnp.result_type(grad), jnp.result_type(param)
    if not jnp.issubdtype(grad_dtype, jnp.inexact):
        raise TypeError(f"{where} has dtype {grad_dtype}; expected a float dtype, as its {param_name}'s {param_dtype}.")
    if jnp.shape(grad) != jnp.shape(param):
        raise ValueError(f"{where} has shape {jnp.shape(grad)}; expected that of its {param_name}, {jnp.shape(param)}.")
    if jnp.issubdtype(grad_dtype, jnp.complexfloating) and not jnp.issubdtype(param_dtype, jnp.complexfloating):
        raise TypeError(f"{where} is complex ({grad_dtype}); its {param_name} is real ({param_dtype}).")


def refuse_integer_grad(owner: str, path: tuple[Any, ...], grad: Any) -> None:
    """Refuses a gradient without fractions, where no param says that its leaf is one to be left alone.

    Raises:
        TypeError: Always.
    """
    raise TypeError(
        f"{owner}: the gradient at {path_text(path)} has dtype {jnp.result_type(grad)}; expected a float dtype. If its"
        " param is an integer that stays as it is, pass the params: update(grads, state, params)."
    )


def check_complex(owner: str, path: tuple[Any, ...], leaf: Any) -> None:
    """Refuses a complex leaf, for rules whose formula has no meaning there.

    Raises:
        TypeError: The leaf is complex.
    """
    if jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating):
        raise TypeError(
            f"{owner}: the leaf at {path_text(path)} is complex ({jnp.result_type(leaf)}), which this rule does not"
            " support; expected real leaves. Keep the real and imaginary parts as two leaves."
        )


def needed_numbers(owner: str, needs: Iterable[str], extra: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The numbers that a rule needs beside the gradients, as arrays.

    Raises:
        TypeError: One is missing, or no real number.
        ValueError: One is not a scalar.
    """
    for name in needs:
        if extra.get(name) is None:
            raise TypeError(f"{owner}: this rule reads {name}: call update(grads, state, params, {name}=...).")
        dtype, shape = jnp.result_type(extra[name]), jnp.shape(extra[name])
        if jnp.issubdtype(dtype, jnp.complexfloating):
            raise TypeError(f"{owner}: {name} must be a real number; got dtype {dtype}.")
        if shape:
            raise ValueError(f"{owner}: {name} must be a scalar; got shape {shape}.")
    return {name: jnp.asarray(extra[name]) for name in needs}


def check_choice(owner: str, name: str, value: Any, choices: Any) -> None:
    """Refuses a value that is not among those of a `Literal`.

    Raises:
        ValueError: It is not among them.
    """
    known = get_args(meaning(choices))
    if not any(type(value) is type(choice) and value == choice for choice in known):
        text = ", ".join(map(repr, known))
        raise ValueError(f"{owner}: {name} must be one of {text}; got {value!r}.")


def check_takes(owner: str, name: str, function: Any, call: str, *arguments: Any) -> None:
    """Refuses a function that cannot be called as it will be, which `call` shows.

    Raises:
        TypeError: It cannot.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a function in C
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        raise TypeError(f"{owner}: {name} is called as {call}; this function takes {signature}.") from None
