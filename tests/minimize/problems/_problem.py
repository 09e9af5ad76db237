"""What a test problem is, and how one is made of a function."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Problem:
    """A function to minimize, from where, and what is known of its minimum.

    Attributes:
        name: The name in its set.
        fun: ``x [n] -> value``, of the data type of ``x``.
        start: The standard start, float64 ``[n]``.
        minimum: The smallest known value, None where none is published.
        residuals: ``x [n] -> residuals [m]``, the sum of whose squares is the value; None where it is no such sum.
        others: Values of further local minima, and limits at infinity, that a method may end at.
        minimizer: Where the smallest value is taken; None where that is not one point or not known.
        bounds: Lower and upper bounds, each ``[n]``; None without.
    """

    name: str
    fun: Callable[[jax.Array], jax.Array]
    start: np.ndarray
    minimum: float | None
    residuals: Callable[[jax.Array], jax.Array] | None = None
    others: tuple[float, ...] = ()
    minimizer: np.ndarray | None = None
    bounds: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def size(self) -> int:
        """How many numbers are sought."""
        return len(self.start)


def sum_of_squares(residuals: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """The value that belongs to residuals."""
    return lambda x: jnp.sum(residuals(x) ** 2)


def least_squares(
    name: str, residuals: Callable[[jax.Array], jax.Array], start: Any, minimum: float, **more: Any
) -> Problem:
    """A problem whose value is a sum of squares."""
    return make(name, sum_of_squares(residuals), start, minimum, residuals=residuals, **more)


def make(name: str, fun: Callable[[jax.Array], jax.Array], start: Any, minimum: float | None, **more: Any) -> Problem:
    """A problem with its arrays in float64."""
    if more.get("minimizer") is not None:
        more["minimizer"] = np.broadcast_to(np.asarray(more["minimizer"], np.float64), np.shape(start))
    return Problem(name, fun, np.asarray(start, np.float64), minimum, **more)


def by_name(problems: Sequence[Problem]) -> dict[str, Problem]:
    """The problems by their names, which differ."""
    named = {problem.name: problem for problem in problems}
    if len(named) != len(problems):
        raise ValueError("two problems have one name")
    return named


def as_data(numbers: Any, x: jax.Array) -> jax.Array:
    """Data of the type of the params: no float64 slips into a float32 problem."""
    return jnp.asarray(np.asarray(numbers), x.dtype)


def count(n: int, x: jax.Array, first: int = 1) -> jax.Array:
    """So many whole numbers from `first` on, of the type of the params."""
    return as_data(np.arange(first, first + n, dtype=np.float64), x)
