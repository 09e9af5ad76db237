"""The result of a run: the solution, why the run stopped, its cost and its path."""

from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import Array, is_traced
from jgd.minimizers.least_squares._covariance import covariance_of
from jgd.minimizers.loop._fields import Fields, Status
from jgd.minimizers.loop._sentences import sentences


class MinimizeResult(Fields):
    """The result of `minimize`, a tree of arrays; printed, it says in a sentence why the run stopped.

    Attributes:
        params: The solution, a tree as the start.
        value: The value there.
        grad_norm: The largest absolute entry of the gradient there (or the method's measure of stationarity).
        steps: Steps made, int32.
        evaluations: `Evaluations` made.
        converged: Whether `grad_norm` is at most `tol`.
        status: The `Status`, which prints its name; as a leaf of the tree, its int32 code.
        trace: `Trace`, or None.
        aux: What `fun` returned beside the value at `params`, with `has_aux`; else None.
        decrease: By how much the last step decreased the value.
        path: What `explain` reads.
        tol: The tolerance that the gradient norm was compared with: the argument, or one by dtype and scale.
        multipliers: With constraints the `Multipliers`, else None.
        violation: With constraints the largest entry by which one is violated, else None.
        jacobian: Of least squares whose Jacobian is formed: that of the residuals at `params`, [m, n], with columns in
            the order of the raveled float leaves; else None.
    """

    __slots__ = ()

    @property
    def status(self) -> Status | Array:
        """The `Status` of one run that has ended; inside `jit`, and of a batch, codes as int32 arrays."""
        code = cast(Array, self[Fields._fields.index("status")])
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
        code = self[Fields._fields.index("status")]
        if not isinstance(code, int | np.ndarray | np.generic | jax.Array) or is_traced(code):
            return super().__repr__()
        names = ("params", "value", "grad_norm", "steps", "tol", "multipliers", "violation")
        numbers = [f"{name}={getattr(self, name)!r}" for name in names if getattr(self, name) is not None]
        if np.ndim(code) > 0:
            codes, counts = np.unique(np.asarray(code), return_counts=True)
            statuses = ", ".join(f"{count} {Status(int(c))}" for c, count in zip(codes, counts, strict=True))
            return f"MinimizeResult of {np.size(code)} runs ({statuses}): {', '.join(numbers)}"
        return f"MinimizeResult({self.status}: {sentences(self)}\n  {', '.join(numbers)})"
