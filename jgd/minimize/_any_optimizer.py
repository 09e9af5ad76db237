"""Any jgd or optax optimizer as a method: its updates are the steps."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import optax

from jgd.core import PyTree
from jgd.minimize._method import BaseMethod, StepInfo
from jgd.minimize._problem import Point, Problem, norm
from jgd.minimize._result import Evaluations


@dataclasses.dataclass(frozen=True)
class FromOptimizer(BaseMethod):
    """The steps of an optimizer. `minimize` makes one of any optimizer that it is given as its method.

    The optimizer sees the params as the user's tree, and `value`, `grad` and `value_fn` beside the gradients. What a
    line search of its own evaluates is not counted.

    Args:
        optimizer: A `jgd` or `optax` optimizer.
    """

    optimizer: Any

    def init(self, problem: Problem, point: Point) -> PyTree:
        """The optimizer's state."""
        return self.optimizer.init(problem.unravel(point.params))

    def step(self, problem: Problem, point: Point, state: PyTree) -> tuple[Point, PyTree, StepInfo]:
        """One update."""
        params, grads = problem.unravel(point.params), problem.unravel(point.grad)
        inner = problem if problem.detached is None else problem.detached
        updates, state = optax.with_extra_args_support(self.optimizer).update(
            grads,
            state,
            params,
            value=point.value,
            grad=grads,
            value_fn=lambda tree: inner.fun(inner.ravel(tree)),
        )
        move = problem.ravel(updates)
        slope = norm(point.grad)
        size = norm(move) / jnp.where(slope > 0, slope, 1)
        return problem.point(point.params + move), state, StepInfo(size, Evaluations(1, 1, 0))
