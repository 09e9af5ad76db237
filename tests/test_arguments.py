"""The door of the public functions: what is of another kind than its annotation is refused, and nothing else is."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jgd
from jgd.core import ArrayLike, ArrayTree, DTypeLike, PyTree, Reals, Scalar, ScalarOrSchedule, check_kind, checked

RIGHT = [
    (bool, [True, np.True_]),
    (int, [3, -1, np.int64(3), jnp.int32(3)]),
    (float, [3, 0.5, np.float32(0.5), jnp.float32(0.5), float("nan")]),
    (Scalar, [3, 0.5, jnp.float32(0.5)]),
    (Reals, [3, [1, 2.0], np.ones(3), jnp.ones((2, 2), jnp.bfloat16)]),
    (ArrayLike, [3, 1j, np.ones(2), jnp.ones(2), jax.random.key(0)]),
    (jax.Array, [jnp.ones(2), np.ones(2), 1.0]),
    (ArrayTree, [{"a": jnp.ones(2), "b": [1.0, None]}, None, jax.ShapeDtypeStruct((2,), jnp.float32)]),
    (DTypeLike, ["float32", jnp.bfloat16, np.dtype("int8")]),
    (str, ["text"]),
    (str | pathlib.Path, ["text", pathlib.Path("a")]),
    (Literal["a", 8], ["a", 8]),
    (Callable[..., Any], [len, lambda: 0, jax.jit(jnp.sin)]),
    (optax.GradientTransformation, [jgd.sgd(0.1), optax.sgd(0.1)]),
    (jgd.Guard | None, [None, jgd.Guard()]),
    (Mapping[str, int], [{}, {"a": 1}]),
    (Sequence[int], [[1], (1, 2), np.arange(3), ()]),
    (tuple[int, str], [(1, "a"), [1, "a"]]),
    (Any, [object(), None]),
    (PyTree, [object()]),
    (ScalarOrSchedule, [0.1, optax.constant_schedule(0.1), "left to check_hyperparam"]),
]
WRONG = [
    (bool, [1, "yes", None, np.ones(2), jnp.bool_(True)]),
    (ScalarOrSchedule, [None]),
    (int, [True, 1.0, "1", None, 10**30, np.ones(2)]),
    (float, [True, "1", 1j, None, np.ones(2), dict]),
    (Reals, [1j, "a", [1, "two"], (), None, jax.random.key(0)]),
    (ArrayLike, ["a", [1.0], None, np.array(["a"]), {}, 10**30]),
    (ArrayTree, [{"a": "text"}, [jnp.ones(2), object()], np.array(["a"])]),
    (DTypeLike, ["nonsense", dict, 3, None]),
    (str | pathlib.Path, [b"x", 3, None]),
    (Literal["a", 8], ["b", 8.0, np.array(["a", "b"]), ["a"], None]),
    (Callable[..., Any], [3, dict, None, jgd.sgd(0.1)]),
    (optax.GradientTransformation, [jgd.adam, "adam", None, (1, 2)]),
    (jgd.Guard | None, [jgd.Guard, 3]),
    (Mapping[str, int], [[1], {"a": "b"}]),
    (Sequence[int], ["12", 3, {1}, [1, "two"]]),
    (tuple[int, str], [(1,), (1, 2), 3]),
]


@pytest.mark.parametrize(("annotation", "values"), RIGHT, ids=range(len(RIGHT)))
def test_what_an_annotation_allows(annotation, values):
    for value in values:
        check_kind("owner", "name", value, annotation)


@pytest.mark.parametrize(("annotation", "values"), WRONG, ids=range(len(WRONG)))
def test_what_an_annotation_refuses(annotation, values):
    for value in values:
        with pytest.raises((TypeError, ValueError), match=r"^owner: name(\[.*\])? must be .*; got .*\."):
            check_kind("owner", "name", value, annotation)


def test_traced_values_pass_where_numbers_are_due():
    for annotation, value in ((float, 0.5), (Scalar, 0.5), (int, 3), (jax.Array, jnp.ones(2)), (ArrayTree, {"a": 1.0})):
        jax.jit(lambda x, annotation=annotation: check_kind("owner", "name", x, annotation))(value)


def test_a_checked_function_is_the_function():
    def scaled(x: jax.Array, factor: float = 2.0, *more: Any, flag: bool = False, **rest: Any) -> jax.Array:
        """Says what it does."""
        return x * factor

    door: Any = checked(scaled)
    assert door.__doc__ == "Says what it does."
    assert float(door(jnp.ones(()), factor=3.0)) == 3.0
    with pytest.raises(TypeError, match=r"scaled: factor must be a number; got 'three'\.$"):
        door(jnp.ones(()), "three")
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        door()


def test_messages_show_what_was_given_and_what_to_do():
    with pytest.raises(TypeError, match=r"got an array of shape \(2,\) and dtype float32\.$"):
        check_kind("f", "flag", jnp.ones(2), bool)
    with pytest.raises(TypeError, match=r"must be an optimizer; got the function adam\. adam makes one: call it"):
        check_kind("f", "optimizer", jgd.adam, optax.GradientTransformation)
    with pytest.raises(TypeError, match=r"got the class Guard\. Call it: Guard\(\)\.$"):
        check_kind("f", "guard", jgd.Guard, jgd.Guard | None)
    with pytest.raises(TypeError, match=r"tree of arrays; got 'x', at \['a'\]\[1\]\.$"):
        check_kind("f", "tree", {"a": [1.0, "x"]}, ArrayTree)
    with pytest.raises(TypeError, match=r"\.\.\. of type list\.$"):
        check_kind("f", "name", list(range(1000)), str)
