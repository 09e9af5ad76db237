r"""The protocol of a method: how `minimize` runs any of them.

A method is a frozen dataclass of settings (plain numbers, so that it is hashable and one compiled program serves all
equal ones) with two functions, and more where the defaults of `BaseMethod` do not fit:

- `init(problem, point) -> state`: any tree of arrays of fixed shapes and dtypes.
- `step(problem, point, state) -> (point, state, info)`: one step, jit- and vmap-able. `point` holds flat `params` [n],
  `value` and `grad`; the new one must hold the value and gradient *at its params*, and stay inside constraints.
  `info` is a `StepInfo`. Inner loops must end at once where `problem.running` is false (a stopped lane of a `vmap`).
- `warm(problem, point, state) -> state`: as `init`, from the last state of another run; by default as `init`.
- `start(problem, params) -> params`: makes a start feasible; by default it is left as it is.
- `point(problem, params) -> Point`: the point at params; `problem.point` by default. A proximal method adds its penalty
  to the value, so that the value is that of all that is minimized; the gradient stays that of the smooth part.
- `residual(problem, params, grad) -> vector [n]`: zero at a solution; the gradient $g$ by default. A projected method
  has $x - P(x - g)$, a proximal one $x - \mathrm{prox}(x - g)$. Its largest absolute entry is compared with `tol`, and
  its derivatives give those of the solution.
- `least_squares`: whether `fun` returns residuals, which are then in `problem.residuals`.
- `handles_bounds`: whether it keeps to `problem.bounds`, a pair of vectors [n].
- `measures_gain`: whether `StepInfo.remaining` is known: without a tolerance, that alone decides where a run ends.

Arrays among the settings are data, see `_data.py`: never branch on a number in Python. The loop in `_loop.py` does the
rest: counting, the tests for stopping, the trace.
"""

from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp

from jgd.core import Array, PyTree
from jgd.minimizers.loop._fields import Evaluations
from jgd.minimizers.problem._problem import Point, Problem, max_norm


class StepInfo(NamedTuple):
    """What a method says of a step, scalars.

    Attributes:
        step_size: Its length in units of its direction, or the trust radius.
        evaluations: Its cost.
        failed: Whether no further progress is possible: the line search has failed, the trust region vanished.
        accepted: Whether the point moved; a rejected step does not count as a small one.
        predicted: The predicted decrease of the value, at least 0; read where the step failed.
        remaining: The decrease that the method's model predicts without damping; None where it does not know. A run
            goes on while this is above rounding.
    """

    step_size: Array | float
    evaluations: Evaluations
    failed: Array | bool = False
    accepted: Array | bool = True
    predicted: Array | float = jnp.inf
    remaining: Array | None = None


@runtime_checkable
class Method(Protocol):
    """What `minimize` needs of a method; see the module's docstring."""

    def init(self, problem: Problem, point: Point) -> PyTree:
        """The state before the first step."""
        ...

    def step(self, problem: Problem, point: Point, state: PyTree) -> tuple[Point, PyTree, StepInfo]:
        """One step."""
        ...


class BaseMethod:
    """The defaults of what a method may leave out: all but `init` and `step`."""

    least_squares: ClassVar[bool] = False
    handles_bounds: ClassVar[bool] = False
    measures_gain: ClassVar[bool] = False

    def init(self, problem: Problem, point: Point) -> PyTree:
        """The state before the first step."""
        raise NotImplementedError(f"{type(self).__name__}: a method needs init(problem, point).")

    def step(self, problem: Problem, point: Point, state: PyTree) -> tuple[Point, PyTree, StepInfo]:
        """One step."""
        raise NotImplementedError(f"{type(self).__name__}: a method needs step(problem, point, state).")

    def start(self, problem: Problem, params: Array) -> Array:
        """A feasible start."""
        del problem
        return params

    def point(self, problem: Problem, params: Array) -> Point:
        """The value and gradient at params."""
        return problem.point(params)

    def warm(self, problem: Problem, point: Point, state: PyTree) -> PyTree:
        """The state before the first step of another run, from a state that has learned the function's shape."""
        del state
        return self.init(problem, point)

    def jacobian(self, state: PyTree) -> Array | None:
        """The Jacobian of the residuals [m, n] at the point that a state belongs to; None where there is none."""
        del state
        return None

    def residual(self, problem: Problem, params: Array, grad: Array) -> Array:
        """The vector [n] that is zero at a solution."""
        del problem, params
        return grad

    def stationarity(self, problem: Problem, point: Point) -> Array:
        """The measure that is compared with `tol`: the largest absolute entry of the residual."""
        return max_norm(self.residual(problem, point.params, point.grad))
