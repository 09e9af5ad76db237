"""What a run hands back: the solution, why it stopped, what it cost, and what it looked like on the way."""

import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import Array, PyTree, is_traced
from jgd.minimizers.least_squares._covariance import covariance_of


class Status(enum.IntEnum):
    """Why a run stopped. Codes are int32 arrays in a result's leaves, so that they pass through `jit` and `vmap`."""

    #: The run goes on; no result has this status.
    RUNNING = 0
    #: The gradient norm (or the method's own measure of stationarity) is at most the result's `tol`.
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
    #: The constraints are not fulfilled, however large the penalty: near here no params fulfill them.
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
        best_value: The lowest value met.
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


class _Fields(NamedTuple):
    """The leaves of a result."""

    params: PyTree
    value: Array
    grad_norm: Array
    steps: Array
    evaluations: Evaluations
    converged: Array
    status: Array
    trace: Trace | None
    aux: Any
    decrease: Array
    path: Path
    tol: Array
    multipliers: Any = None
    violation: Any = None
    jacobian: Array | None = None


class MinimizeResult(_Fields):
    """The result of `minimize`, a tree of arrays; printed, it says in a sentence why the run stopped.

    Attributes:
        params: The params found, as the ones given.
        value: The value there.
        grad_norm: The largest absolute entry of the gradient there (or the method's own measure of stationarity).
        steps: Steps made, int32.
        evaluations: `Evaluations` made.
        converged: Whether `grad_norm` is at most `tol`.
        status: The `Status`, which prints its name; as a leaf of the tree, its int32 code.
        trace: `Trace`, or None.
        aux: What `fun` returned beside the value at `params`, with `has_aux`; else None.
        decrease: By how much the last step decreased the value.
        path: What `explain` reads.
        tol: The tolerance that the gradient norm was held against: the one given, or the one of dtype and scale.
        multipliers: With constraints the `Multipliers`, else None.
        violation: With constraints the largest entry by which one is not fulfilled, else None.
        jacobian: Of least squares whose Jacobian is formed: that of the residuals at `params`, [m, n], with columns in
            the order of the raveled float leaves; else None.
    """

    __slots__ = ()

    @property
    def status(self) -> Any:
        """The `Status` of one run that has ended; inside `jit`, and of a batch, codes as int32 arrays."""
        code = self[_Fields._fields.index("status")]
        if not isinstance(code, int | np.ndarray | np.generic | jax.Array) or is_traced(code) or np.ndim(code) > 0:
            return code
        return Status(int(code)) if jnp.issubdtype(jnp.result_type(code), jnp.integer) else code

    def covariance(self, *, absolute_sigma: bool = False) -> Array:
        r"""The covariance of the params of a least-squares fit.

        $$
        C = s^2 (J^\top J)^{-1}, \qquad s^2 = \frac{\lVert r \rVert^2}{m - n}
        $$

        Bounds are not taken into account.

        Args:
            absolute_sigma: Whether the residuals are divided by standard deviations that are known: then $s = 1$.
                Else they count as relative, and $s$ is estimated.

        Returns:
            Covariances [n, n], of lanes [..., n, n], with params in the order of the raveled float leaves. Infinite in
            the rows and columns of params that the data do not determine, and where $s$ would be estimated from no
            more residuals than params.

        Raises:
            ValueError: The result has no Jacobian.

        Examples:
            >>> import jax.numpy as jnp
            >>> from jgd.minimizers import minimize
            >>> t, y = jnp.arange(4.0), jnp.array([1.0, 3.0, 4.0, 6.0])
            >>> line = minimize(lambda p: p[0] + p[1] * t - y, jnp.zeros(2), method="lm")
            >>> print([f"{error:.3f}" for error in jnp.sqrt(jnp.diag(line.covariance()))])  # standard errors
            ['0.265', '0.141']
        """
        if self.jacobian is None:
            raise ValueError(
                "MinimizeResult.covariance: the result has no Jacobian; expected that of method='lm' or 'gauss_newton'"
                " with solver='qr' (up to 1,000 params by default)."
            )
        return covariance_of(self.jacobian, self.value, absolute_sigma)

    def __repr__(self) -> str:
        """Why it stopped, and the numbers."""
        code = self[_Fields._fields.index("status")]
        if not isinstance(code, int | np.ndarray | np.generic | jax.Array) or is_traced(code):
            return super().__repr__()
        names = ("params", "value", "grad_norm", "steps", "tol", "multipliers", "violation")
        shown = [f"{name}={getattr(self, name)!r}" for name in names if getattr(self, name) is not None]
        if np.ndim(code) > 0:
            codes, counts = np.unique(np.asarray(code), return_counts=True)
            ends = ", ".join(f"{count} {Status(int(c))}" for c, count in zip(codes, counts, strict=True))
            return f"MinimizeResult of {np.size(code)} runs ({ends}): {', '.join(shown)}"
        from jgd.minimizers._explain import explain  # it reads results

        return f"MinimizeResult({self.status}: {explain(self)}\n  {', '.join(shown)})"
