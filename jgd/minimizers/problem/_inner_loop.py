"""Loops inside a step: such as those of line searches and of linear solvers."""

from collections.abc import Callable
from typing import TypeVar

import jax

from jgd.core import Array

State = TypeVar("State")


def inner_loop(
    cond: Callable[[State], Array], body: Callable[[State], State], start: State, max_iterations: int, unroll: bool
) -> State:
    """A `lax.while_loop` of bounded length; with `unroll` a scan, which reverse mode can pass.

    Each iteration of the scan is a `lax.cond`: those that are not needed cost no time, though their memory is kept.

    Args:
        cond: From the state to whether there is another iteration.
        body: From a state to the next.
        start: The first state.
        max_iterations: Iterations at most; read with `unroll` only.
        unroll: Whether the loop is to be differentiated in reverse.

    Returns:
        The last state.
    """
    if not unroll:
        return jax.lax.while_loop(cond, body, start)

    def iteration(state: State, _: None) -> tuple[State, None]:
        return jax.lax.cond(cond(state), body, lambda state: state, state), None

    return jax.lax.scan(iteration, start, None, length=max_iterations)[0]
