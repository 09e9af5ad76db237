r"""Eigenvectors that follow a slowly changing matrix by orthogonal iteration, without a decomposition of their own.

$$
Q \leftarrow \operatorname{q}\bigl((L + \delta)\, Q\bigr), \qquad \lambda = \operatorname{diag}(Q^\top L\, Q)
$$

with the columns of $Q$ in the order of their $\lambda$. The shift $\delta$, some roundings of the trace, keeps the
columns apart where $L$ has no full rank; where $L$ is zero, $Q$ stays as it is.

References:
    - Vyas et al., "SOAP: Improving and stabilizing Shampoo using Adam", https://arxiv.org/abs/2409.11321, 2024,
      Algorithm 4.
    - Eschenhagen et al., "Purifying Shampoo: Investigating Shampoo's heuristics by decomposing its preconditioner",
      https://arxiv.org/abs/2506.03595, 2025.
"""

import jax
import jax.numpy as jnp

from jgd.core import Array
from jgd.rules.matrices._orthonormal import orthonormal
from jgd.rules.matrices._triangular import precise_matmul

_SHIFT = 8  # roundings


def refreshed_basis(factor: Array, basis: Array, iterations: Array | int = 1) -> tuple[Array, Array]:
    """The basis after some steps of orthogonal iteration; a constant for derivatives through it.

    Args:
        factor: A symmetric matrix without negative eigenvalues, shape `[n, n]`.
        basis: Its eigenvectors as far as they are known, in columns, shape `[n, n]`.
        iterations: How many steps to make.

    Returns:
        The new basis; and where each of its columns came from, shape `[n]`, an integer array. Where the factor is not
        finite, the columns are only sorted.

    Examples:
        >>> import jax.numpy as jnp
        >>> basis, came_from = refreshed_basis(jnp.diag(jnp.array([1.0, 4.0])), jnp.eye(2))
        >>> print(abs(basis).round(2), came_from)
        [[0. 1.]
         [1. 0.]] [1 0]
    """
    factor, basis = jax.lax.stop_gradient((factor, basis))
    trace = jnp.trace(factor)
    shift = _SHIFT * jnp.finfo(factor.dtype).eps
    scaled = factor / jnp.where(trace > 0, trace, 1)

    def step(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        basis, came_from = carry
        image = precise_matmul(scaled, basis)
        order = jnp.argsort(jnp.sum(basis * image, axis=0), descending=True)
        basis = basis[:, order]
        new = orthonormal(image[:, order] + shift * basis)
        return jnp.where(jnp.all(jnp.isfinite(new)), new, basis), came_from[order]

    start = (basis, jnp.arange(len(basis)))
    return step(jnp.array(0), start) if isinstance(iterations, int) else jax.lax.fori_loop(0, iterations, step, start)


def eigenvalues_in(basis: Array, factor: Array) -> Array:
    """What the eigenvalues are if the basis is right: the diagonal of the factor in it, at least 0, else infinite."""
    values = jnp.sum(basis * precise_matmul(factor, basis), axis=0)
    return jnp.where(jnp.isnan(values), jnp.inf, jnp.maximum(values, 0))
