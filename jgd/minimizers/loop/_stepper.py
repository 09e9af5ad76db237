"""A method step by step, in a loop of your own: `minimize` without its loop."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from jgd.core import Array, ArrayTree, FloatDtype, PyTree, Scalar
from jgd.minimizers._arguments import as_float_dtype, check_limits
from jgd.minimizers._names import BoundsLike, LineSearchLike, MethodLike, flat_bounds, make_method
from jgd.minimizers.loop._loop import RunState
from jgd.minimizers.loop._program import Inputs, Settings, build, call_compiled
from jgd.minimizers.loop._result import MinimizeResult
from jgd.minimizers.problem._data import split
from jgd.minimizers.problem._flatten import flattener


class StepperState(NamedTuple):
    """Where a run stands, a tree of arrays.

    Attributes:
        params: The params, a tree as the start.
        run: The state of the run, with that of the method.
    """

    params: PyTree
    run: RunState

    @property
    def value(self) -> Array:
        """The value at the params."""
        return self.run.point.value

    @property
    def grad_norm(self) -> Array:
        """The measure that is compared with the tolerance."""
        return self.run.grad_norm

    @property
    def status(self) -> Array:
        """A code of `Status`: `RUNNING` until the run has ended."""
        return self.run.status


@dataclasses.dataclass(frozen=True, eq=False)
class Stepper:
    """A method's steps one by one, for a loop of your own: `init`, `update`, and `result` at the end.

    Each is compiled once, and may be called inside `jit`. After the same steps the numbers are those of `minimize`.

    Args:
        fun: The function, as for `minimize`; so are the others.
        method: The method, its name, or an optimizer.
        line_search: A line search in place of the method's own.
        tol: The tolerance.
        max_steps: Steps at most.
        has_aux: Whether `fun` returns a pair.
        bounds: Lower and upper bounds.
        value_dtype: The dtype that the value is summed in.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimizers import Status, Stepper
        >>> stepper = Stepper(lambda x, goal: jnp.sum(jnp.cosh(x - goal)))
        >>> state = stepper.init(jnp.zeros(2), 1.0)
        >>> while state.status == Status.RUNNING:
        ...     state = stepper.update(state, 1.0)
        >>> print(state.params.round(2), stepper.result(state, 1.0).status)
        [1. 1.] CONVERGED
        >>> state = stepper.init(state.params, 1.1, warm=state)  # another goal, with the memory of the last one
    """

    fun: Callable[..., Any]
    method: MethodLike = "lbfgs"
    line_search: LineSearchLike | None = None
    tol: Scalar | None = None
    max_steps: int = 1000
    has_aux: bool = False
    bounds: BoundsLike | None = None
    value_dtype: FloatDtype | None = None

    def __post_init__(self) -> None:
        """Checks the numbers."""
        check_limits("Stepper", self.tol, self.max_steps)

    def init(self, params: PyTree, *args: ArrayTree, warm: StepperState | None = None) -> StepperState:
        """The state before the first step.

        Args:
            params: Where to start.
            args: More arguments of `fun`.
            warm: A state of another run, to start with what its method has learned of the function's shape: the pairs
                of L-BFGS, the matrix of BFGS, a trust radius, an optimizer's state. The args may have changed since.

        Returns:
            The state.
        """
        return call_compiled(_init, *self._parts(params, args), params, warm)

    def update(self, state: StepperState, *args: ArrayTree, steps: Array | int = 1) -> StepperState:
        """The state after some steps more, or fewer where the run ends; one that has ended stays as it is.

        Args:
            state: The state.
            args: As for `init`: where they change, go on from `init(state.params, *args, warm=state)`.
            steps: How many steps.

        Returns:
            The new state.
        """
        return call_compiled(_update, *self._parts(state.params, args), state, steps)

    def result(self, state: StepperState, *args: ArrayTree) -> MinimizeResult:
        """The result of the run so far; its status is `RUNNING` where it has not ended."""
        return call_compiled(_result, *self._parts(state.params, args), state)

    def _parts(self, params: PyTree, args: tuple) -> tuple[Settings, Inputs]:
        flattener(params)  # refuses what is not a tree of arrays
        method, arrays = split(make_method(self.method, self.line_search, self.bounds))
        settings = Settings(
            fun=self.fun,
            method=method,
            max_steps=int(self.max_steps),
            has_aux=self.has_aux,
            trace=False,
            differentiate="implicit",
            value_dtype=as_float_dtype(self.value_dtype),
        )
        return settings, Inputs(args, flat_bounds(self.bounds, params), arrays, self.tol)


def _init(settings: Settings, inputs: Inputs, params: PyTree, warm: StepperState | None) -> StepperState:
    program = build(settings, flattener(params), inputs)
    run = program.init(params)
    if warm is not None:
        run = run._replace(state=program.method.warm(program.problem, run.point, warm.run.state))
    return StepperState(program.flat.unravel(run.point.params), run)


def _update(settings: Settings, inputs: Inputs, state: StepperState, steps: Array | int) -> StepperState:
    program = build(settings, flattener(state.params), inputs)
    run = program.loop.iterate(state.run, state.run.steps + steps)
    return StepperState(program.flat.unravel(run.point.params), run)


def _result(settings: Settings, inputs: Inputs, state: StepperState) -> MinimizeResult:
    return build(settings, flattener(state.params), inputs).result(state.run)
