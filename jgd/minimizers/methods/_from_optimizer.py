"""Any jgd or optax optimizer as a method: its updates are the steps."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax.contrib import ScheduleFreeState, schedule_free_eval_params

from jgd.core import Array, GradientTransformation, PyTree, eval_params
from jgd.minimizers.loop._fields import Evaluations
from jgd.minimizers.methods._base import BaseMethod, StepInfo
from jgd.minimizers.problem._problem import Point, Problem, norm

_SEARCHES = (optax.ScaleByZoomLinesearchState, optax.ScaleByBacktrackingLinesearchState)


def _nodes(state: PyTree, kind: type | tuple[type, ...]) -> list[Any]:
    """The nodes of a state that are of a kind."""
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kind))
    return [node for node in nodes if isinstance(node, kind)]


def _average(state: PyTree, params: PyTree) -> PyTree | None:
    """The params to evaluate, where the optimizer has others than those it trains; else None."""
    average = eval_params(state, params)
    if average is not params:
        return average
    nodes = _nodes(state, ScheduleFreeState)
    return schedule_free_eval_params(nodes[0], params) if nodes else None


def _line_search_cost(state: PyTree) -> Evaluations:
    """The evaluations of the optimizer's own line searches in the last update, as far as its state says."""
    values, gradients = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
    for node in _nodes(state, _SEARCHES):
        count = jnp.asarray(node.info.num_linesearch_steps, jnp.int32)
        values = values + count
        gradients = gradients + (count if isinstance(node, optax.ScaleByZoomLinesearchState) else 0)
    return Evaluations(values, gradients, 0)


class OptimizerState(NamedTuple):
    """The optimizer's state, and the params that it trains [n] where the point holds an average of them; else None."""

    inner: PyTree
    training: Array | None


@dataclasses.dataclass(frozen=True)
class FromOptimizer(BaseMethod):
    """The steps of an optimizer: what `minimize` makes of an optimizer as its method.

    The optimizer sees the params as the user's tree, and `value`, `grad` and `value_fn` beside the gradients. Where it
    has other params to evaluate than to train (`jgd.eval_params`: schedule-free, averages, lookahead; also optax's
    `schedule_free`), `minimize` evaluates and returns those; each step then costs two evaluations. Evaluations
    of optax's line searches are counted, in `optax.lbfgs` for one; those of any other search are not.

    Args:
        optimizer: A `jgd` or `optax` optimizer.
    """

    optimizer: GradientTransformation

    def init(self, problem: Problem, point: Point) -> OptimizerState:
        """The optimizer's state."""
        params = problem.unravel(point.params)
        inner = self.optimizer.init(params)
        if problem.unrolled and _nodes(inner, _SEARCHES):
            raise ValueError(
                "minimize: differentiate='unroll' cannot pass through an optimizer's own line search; use one without,"
                " method='lbfgs', or differentiate='implicit'."
            )
        return OptimizerState(inner, None if _average(inner, params) is None else point.params)

    def warm(self, problem: Problem, point: Point, state: OptimizerState) -> OptimizerState:
        """The optimizer's state, unless it trains other params than those of the point."""
        return state if state.training is None else self.init(problem, point)

    def step(self, problem: Problem, point: Point, state: OptimizerState) -> tuple[Point, OptimizerState, StepInfo]:
        """One update of the optimizer."""
        trained, cost = point, Evaluations(1, 1, 0)
        if state.training is not None:
            trained, cost = problem.point(state.training), Evaluations(2, 2, 0)
        params, grads = problem.unravel(trained.params), problem.unravel(trained.grad)
        updates, inner = optax.with_extra_args_support(self.optimizer).update(
            grads,
            state.inner,
            params,
            value=trained.value,
            grad=grads,
            value_fn=lambda tree: problem.inner.fun(problem.ravel(tree)),
        )
        update = problem.ravel(updates)
        grad_norm = norm(trained.grad)
        step_size = norm(update) / jnp.where(grad_norm > 0, grad_norm, 1)
        new = trained.params + update
        cost = Evaluations(*(a + b for a, b in zip(cost, _line_search_cost(inner), strict=True)))
        # an update of zero is no small step, since a schedule may begin so; after a line search it is a failure
        info = StepInfo(step_size, cost, accepted=True if _nodes(inner, _SEARCHES) else jnp.any(update != 0))
        if state.training is None:
            return problem.point(new), OptimizerState(inner, None), info
        average = problem.ravel(_average(inner, problem.unravel(new)))
        return problem.point(average), OptimizerState(inner, new), info
