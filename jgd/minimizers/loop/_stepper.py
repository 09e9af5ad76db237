"""A method step by step, in a loop of one's own: what `minimize` does, without its loop."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jgd.core import Array, FloatDtype, PyTree, Scalar
from jgd.minimizers._arguments import as_args, check_flags, check_numbers, value_dtype_of
from jgd.minimizers._names import flat_bounds, make_method
from jgd.minimizers.loop._loop import RunState
from jgd.minimizers.loop._program import Inputs, Settings, build
from jgd.minimizers.loop._result import MinimizeResult
from jgd.minimizers.problem._data import split
from jgd.minimizers.problem._flatten import flattener


class StepperState(NamedTuple):
    """Where a run stands, a tree of arrays.

    Attributes:
        params: The params, as the ones given.
        run: The loop's own numbers, with the method's state in it.
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
        """A code of `Status`; `RUNNING`, which is 0, while there are steps to make."""
        return self.run.status


@dataclasses.dataclass(frozen=True, eq=False)
class Stepper:
    """A method's steps one by one, for a loop of one's own: `init`, `update`, and `result` at the end.

    Each is compiled once, and may be called inside `jit`. After the same steps the numbers are those of `minimize`.

    Args:
        fun: As for `minimize`, and so are the others.
        method: The method, its name, or an optimizer.
        line_search: A line search in place of the method's own.
        tol: The tolerance.
        max_steps: Steps at most.
        has_aux: Whether `fun` returns a pair.
        bounds: Lower and upper bounds.
        value_dtype: The dtype that the value is summed in.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimizers import Stepper
        >>> stepper = Stepper(lambda x, goal: jnp.sum(jnp.cosh(x - goal)))
        >>> state = stepper.init(jnp.zeros(2), 1.0)
        >>> while state.status == 0:
        ...     state = stepper.update(state, 1.0)
        >>> print(state.params.round(2), stepper.result(state, 1.0).status)
        [1. 1.] CONVERGED
        >>> state = stepper.init(state.params, 1.1, warm=state)  # another goal, with the memory of the last one
    """

    fun: Callable[..., Any]
    method: Any = "lbfgs"
    line_search: Any = None
    tol: Scalar | None = None
    max_steps: int = 1000
    has_aux: bool = False
    bounds: Any = None
    value_dtype: FloatDtype | None = None

    def __post_init__(self) -> None:
        """Checks the numbers."""
        check_numbers(self.fun, self.tol, self.max_steps)
        check_flags(has_aux=self.has_aux)

    def init(self, params: PyTree, *args: Any, warm: StepperState | None = None) -> StepperState:
        """The state before the first step.

        Args:
            params: Where to start.
            args: More arguments of `fun`.
            warm: A state whose method knows something of the function's shape, to begin with that: the pairs of
                L-BFGS, the matrix of BFGS, a trust radius, an optimizer's state. The args may have changed since then.

        Returns:
            The state.
        """
        return _call(_init, *self._parts(params, args), params, warm)

    def update(self, state: StepperState, *args: Any, steps: int = 1) -> StepperState:
        """The state after so many steps more, or fewer where the run ends; one that has ended stays as it is.

        Args:
            state: The state.
            args: As for `init`: where they change, go on from `init(state.params, *args, warm=state)`.
            steps: How many.

        Returns:
            The new state.
        """
        return _call(_update, *self._parts(state.params, args), state, steps)

    def result(self, state: StepperState, *args: Any) -> MinimizeResult:
        """The result of the run so far; its status is `RUNNING` where it has not ended."""
        return _call(_result, *self._parts(state.params, args), state)

    def _parts(self, params: PyTree, args: tuple) -> tuple[Settings, Inputs]:
        flattener(params)  # refuses what is no tree of arrays
        made, numbers = split(make_method(self.method, self.line_search, self.bounds))
        dtype = value_dtype_of(self.value_dtype)
        settings = Settings(self.fun, made, self.max_steps, self.has_aux, False, "implicit", dtype)
        return settings, Inputs(as_args(args), flat_bounds(self.bounds, params), numbers, self.tol)


def _call(program: Callable[..., Any], settings: Settings, *rest: Any) -> Any:
    try:
        hash(settings)
    except TypeError:  # a function or a method that cannot be hashed: compiled anew in each call
        return program(settings, *rest)
    return _compiled(program)(settings, *rest)


@functools.cache
def _compiled(program: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(program, static_argnums=0)


def _init(settings: Settings, inputs: Inputs, params: PyTree, warm: StepperState | None) -> StepperState:
    program = build(settings, flattener(params), inputs)
    run = program.init(params)
    if warm is not None:
        run = run._replace(state=program.method.warm(program.problem, run.point, warm.run.state))
    return StepperState(program.flat.unravel(run.point.params), run)


def _update(settings: Settings, inputs: Inputs, state: StepperState, steps: Any) -> StepperState:
    program = build(settings, flattener(state.params), inputs)
    run = program.loop.iterate(state.run, state.run.steps + steps)
    return StepperState(program.flat.unravel(run.point.params), run)


def _result(settings: Settings, inputs: Inputs, state: StepperState) -> MinimizeResult:
    return build(settings, flattener(state.params), inputs).result(state.run)
