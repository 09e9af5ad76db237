"""The parts of a result: why the run stopped, its cost, and numbers of its path."""

import enum
from typing import NamedTuple

from jgd.core import Array, PyTree


class Status(enum.IntEnum):
    """Why a run stopped. Codes are int32 arrays in a result's leaves, so that they pass through `jit` and `vmap`."""

    #: The run goes on; no result has this status.
    RUNNING = 0
    #: The gradient norm (or the method's measure of stationarity) is at most the result's `tol`.
    CONVERGED = 1
    #: A step no longer changes the params: in every entry it is below the spacing of the dtype.
    SMALL_STEP = 2
    #: The value no longer decreases by more than its rounding error, and the gradient does not get smaller.
    SMALL_DECREASE = 3
    #: `max_steps` steps were made.
    MAX_STEPS = 4
    #: The value has grown far above where it started: steps are too long.
    DIVERGED = 5
    #: No point along a descent direction has a lower value, though the slope says there must be one.
    LINE_SEARCH_FAILED = 6
    #: The value or gradient is infinite or NaN. The result holds the last point where both were finite.
    NON_FINITE = 7
    #: The value decreases without end.
    UNBOUNDED = 8
    #: The constraints are violated, however large the penalty: near here no params fulfill them.
    INFEASIBLE = 9

    def __str__(self) -> str:
        """The name, not the code."""
        return self.name


class Evaluations(NamedTuple):
    """How often the function was evaluated, int32 scalars.

    Attributes:
        values: Values, alone or together with a gradient (or residuals).
        gradients: Gradients (or Jacobians of the residuals, or products with their transpose).
        products: Hessian-vector products, or products with the Jacobian, of methods that solve systems by CG.
    """

    values: Array | int = 0
    gradients: Array | int = 0
    products: Array | int = 0


class Trace(NamedTuple):
    """The run step by step: arrays [max_steps], NaN beyond the last step.

    Attributes:
        value: The value after each step.
        grad_norm: The measure that is compared with `tol` after each step.
        step_size: The length of each step in units of its direction.
    """

    value: Array
    grad_norm: Array
    step_size: Array


class Path(NamedTuple):
    """Numbers of the path that `explain` reads, scalars.

    Attributes:
        first_value: The value at the start.
        best_value: The lowest value so far.
        step_size: The last step's length in units of its direction.
        rate: The last step's length over that of the gradient before it, where it went straight along the negative
            gradient; 0 where it did not.
        curvature: The largest change of the gradient per distance along the path, an estimate of L from below.
        half_step: The step count at the power of two before the last one: between a quarter and a half of the steps.
        half_norm: The gradient norm there.
        last_step: The step count at the last power of two.
        last_norm: The gradient norm there.
        rounding: By how much rounding of the params, by one spacing, changes the gradient along the last few steps.
    """

    first_value: Array
    best_value: Array
    step_size: Array
    rate: Array
    curvature: Array
    half_step: Array
    half_norm: Array
    last_step: Array
    last_norm: Array
    rounding: Array


class Multipliers(NamedTuple):
    """The multipliers of a constrained solution: the rate at which the least value falls as a constraint is relaxed.

    Attributes:
        equality: Of `equality`, in the shapes of what it returns; None without.
        inequality: Of `inequality`, at least 0, and 0 where a constraint is not active; None without.
    """

    equality: PyTree
    inequality: PyTree


class Fields(NamedTuple):
    """The leaves of a result."""

    params: PyTree
    value: Array
    grad_norm: Array
    steps: Array
    evaluations: Evaluations
    converged: Array
    status: Array
    trace: Trace | None
    aux: PyTree
    decrease: Array
    path: Path
    tol: Array
    multipliers: Multipliers | None = None
    violation: Array | None = None
    jacobian: Array | None = None
