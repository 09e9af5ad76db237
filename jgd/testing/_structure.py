"""Checks of trees and types: what `init` takes, what the state is made of, which leaves are left alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import GradientTransformation, PyTree
from jgd.testing._subject import (
    Extra,
    OptimizerCheckError,
    as_subject,
    assert_close,
    assert_finite,
    assert_same_structure,
    assert_same_types,
    at,
    by_path,
    cast,
    check,
    during,
    gradients,
    types_of,
)

# Dtypes of params and of gradients.
PAIRS = (
    ("float32", "float32"),
    ("bfloat16", "bfloat16"),
    ("float16", "float16"),
    ("bfloat16", "float32"),
    ("float32", "bfloat16"),
)


@check
def check_state_types(optimizer: GradientTransformation, *, params: PyTree = None, extra: Extra = None) -> None:
    """An update leaves structure, shapes, dtypes and weak types of the state as `init` made them.

    So `lax.scan` and `lax.cond` take the state, and no second step compiles anew. Params and gradients are float32,
    bfloat16 and float16, and of two dtypes, as where low-precision params have float32 gradients.

    Args:
        optimizer: Any optax optimizer.
        params: As for `check_optimizer`.
        extra: As for `check_optimizer`.

    Raises:
        OptimizerCheckError: A leaf of the state changes its type, or the updates have not the params' structure or
            shapes.

    Examples:
        >>> import optax
        >>> from jgd.testing import check_state_types
        >>> check_state_types(optax.sgd(0.1))
    """
    subject = as_subject(optimizer, params, extra)
    for param_dtype, grad_dtype in PAIRS:
        what = f"({param_dtype} params, {grad_dtype} gradients)"
        params = cast(subject.params, param_dtype)
        with during(f"init or update {what}"):
            state = subject.init(params)
            updates, new = jax.eval_shape(subject.update, cast(gradients(params, 0), grad_dtype), state, params)
        assert_same_types(f"the state after an update {what}", new, state)
        assert_same_structure(f"the updates {what}", updates, params)
        for (path, update), param in zip(by_path(updates).items(), jax.tree.leaves(params), strict=True):
            if update.shape != jnp.shape(param):
                raise OptimizerCheckError(
                    f"the update{at(path)} {what} has shape {update.shape}; expected {jnp.shape(param)}."
                )


@check
def check_abstract_init(optimizer: GradientTransformation, *, params: PyTree = None, extra: Extra = None) -> None:
    """`init` makes the same state, as far as its types go, of whatever stands for params.

    Under `jax.eval_shape`, of `jax.ShapeDtypeStruct`, of NumPy arrays and of Python numbers.

    Args:
        optimizer: Any optax optimizer.
        params: As for `check_optimizer`.
        extra: Not used; the checks have one signature.

    Raises:
        OptimizerCheckError: `init` fails on one of these, as it does where it looks at values, or makes other types.

    Examples:
        >>> import optax
        >>> from jgd.testing import check_abstract_init
        >>> check_abstract_init(optax.sgd(0.1, momentum=0.9))
    """
    subject = as_subject(optimizer, params, extra)
    expected = types_of(subject.init(subject.params))
    forms = {
        "under jax.eval_shape": lambda: jax.eval_shape(subject.init, subject.params),
        "of ShapeDtypeStruct": lambda: subject.init(jax.eval_shape(lambda: subject.params)),
        "of NumPy arrays": lambda: subject.init(jax.tree.map(np.asarray, subject.params)),
    }
    for what, make in forms.items():
        with during(f"init {what}"):
            state = make()
        assert_same_types(f"the state made {what}", state, expected)
    plain = {"a": 0.5, "b": -2.0}
    with during("init of Python numbers"):
        state = subject.init(plain)
    # A Python number is weakly typed itself, and so may be the state made of it.
    expected = subject.init(jax.tree.map(lambda value: jnp.asarray(value, float), plain))
    assert_same_types("the state made of Python numbers", state, expected, weak=False)


@check
def check_none_and_empty_leaves(
    optimizer: GradientTransformation, *, params: PyTree = None, extra: Extra = None
) -> None:
    """Leaves that are None or have no entries, and a tree without leaves, pass through; the others move as ever.

    Args:
        optimizer: Any optax optimizer.
        params: Not used: the tree is the check's own.
        extra: As for `check_optimizer`.

    Raises:
        OptimizerCheckError: `init` or `update` fails, the updates have another structure, or are not finite.

    Examples:
        >>> import optax
        >>> from jgd.testing import check_none_and_empty_leaves
        >>> check_none_and_empty_leaves(optax.sgd(0.1))
    """
    subject = as_subject(optimizer, params, extra)
    tree = {"empty": jnp.zeros((0, 3)), "none": None, "w": jnp.ones((4, 3))}
    with during("a tree with a None leaf and an empty one"):
        updates, state, _ = subject.step(gradients(tree, 0), subject.init(tree), tree)
    assert_same_structure("the updates beside a None leaf and an empty one", updates, tree)
    for name, param in (("empty", tree["empty"]), ("w", tree["w"])):
        if updates[name].shape != param.shape:
            raise OptimizerCheckError(
                f"the update at ['{name}'] has shape {updates[name].shape}; expected {param.shape}."
            )
    assert_finite("beside a None leaf and an empty one the update", updates)
    assert_finite("beside a None leaf and an empty one the state", state, subject.init(tree))
    with during("a tree without leaves"):
        jax.eval_shape(subject.update, {}, subject.init({}), {})


@check
def check_integer_leaves(optimizer: GradientTransformation, *, params: PyTree = None, extra: Extra = None) -> None:
    """Integer and boolean params stay as they are; their gradients are `float0`, what `jax.grad(allow_int=True)` gives.

    Args:
        optimizer: Any optax optimizer.
        params: Not used: the tree is the check's own.
        extra: As for `check_optimizer`.

    Raises:
        OptimizerCheckError: `init` or `update` fails on them, changes one, or leaves the float leaf beside them alone.

    Examples:
        >>> import jgd
        >>> from jgd.testing import check_integer_leaves
        >>> check_integer_leaves(jgd.sgd(0.1))
    """
    subject = as_subject(optimizer, params, extra)
    tree: dict[str, Any] = {"flag": jnp.array(True), "n": jnp.arange(3), "w": jnp.ones((4, 3))}
    with during("a tree with integer leaves"):
        updates, _ = jax.jit(subject.update)(gradients(tree, 0), subject.init(tree), tree)
    if set(updates) != set(tree):
        raise OptimizerCheckError(f"the updates beside integers are at {list(updates)}; expected {list(tree)}.")
    for name in ("flag", "n"):
        update = updates[name]  # None and float0 both say that nothing moves
        if update is not None:
            assert_close("the update of integers", {name: update}, {name: np.zeros(tree[name].shape)}, 0.0, "expected")
    assert_finite("beside integers the update", updates["w"])
