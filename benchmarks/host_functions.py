"""Test problems whose functions are called on the host: one program of a solver minimizes them all.

Compiling a solver anew for the functions of each size takes most of the time of a large set. Here a program asks the
host for value and gradient, so one serves all problems up to a size; shorter ones are padded with variables that change
nothing. Every call is counted, the same for all libraries. Times mean nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from minimizers import Group

#: Problems are padded to the next of these sizes.
SIZES = (8, 32, 128, 1024)


def padded_size(size: int) -> int:
    """How many variables a problem gets."""
    return next(width for width in SIZES if size <= width)


def groups_on_host(problems: Sequence[Any]) -> list[list[Any]]:
    """The problems by their padded sizes."""
    kinds: dict[int, list[Any]] = {}
    for problem in sorted(problems, key=lambda problem: problem.size):
        kinds.setdefault(padded_size(problem.size), []).append(problem)
    return list(kinds.values())


class Calls:
    """How often the host was asked."""

    count = 0


def together_on_host(problems: Sequence[Any]) -> tuple[Group, Calls]:
    """The functions of a group as one function of a padded point and an index, and the count of its calls."""
    calls = Calls()
    compiled: dict[int, Callable[[Any], Any]] = {}

    def on_host(x: Any, i: Any) -> tuple[np.ndarray, np.ndarray]:
        i, x = int(i), np.asarray(x)
        if i not in compiled:
            compiled[i] = jax.jit(jax.value_and_grad(problems[i].fun))
        calls.count += 1
        value, gradient = compiled[i](x[: problems[i].size])
        return np.asarray(value, x.dtype), np.pad(np.asarray(gradient, x.dtype), (0, x.size - problems[i].size))

    def ask(x: Any, i: Any) -> Any:
        return jax.pure_callback(
            on_host, (jax.ShapeDtypeStruct((), x.dtype), jax.ShapeDtypeStruct(x.shape, x.dtype)), x, i
        )

    @jax.custom_jvp
    def fun(x: Any, i: Any) -> Any:
        return ask(x, i)[0]

    @fun.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        value, gradient = ask(*primals)
        return value, jnp.dot(gradient, tangents[0])

    return Group(fun, None, on_host), calls
