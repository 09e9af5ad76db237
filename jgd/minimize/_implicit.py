r"""Derivatives of a solution by the implicit function theorem.

At a solution $\nabla_x f(x, a) = 0$ stays so while the arguments $a$ change, so

$$
\nabla^2_{xx} f \; \dot x = -\nabla^2_{xa} f \; \dot a
$$

which conjugate gradients solve from Hessian-vector products. How the solution was found does not matter, nor does the
start. Params that a method holds at a bound do not move.

References:
    - Blondel et al., "Efficient and modular implicit differentiation", https://arxiv.org/abs/2105.15183, 2021.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import Array, PyTree
from jgd.minimize._flatten import Flattener
from jgd.minimize._problem import Problem, dot
from jgd.minimize._result import MinimizeResult


def _zero(leaf: Array) -> Any:
    """The tangent of an output that does not change."""
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jnp.zeros_like(leaf)
    return np.zeros(leaf.shape, jax.dtypes.float0)


def _solve(problem: Problem, params: Array, rhs: Array, free: Array | None) -> Array:
    """The Hessian's inverse times a vector, for the params that are free to move."""
    kept = jnp.ones_like(params) if free is None else free.astype(params.dtype)

    def product(vector: Array) -> Array:
        return kept * problem.product(params, kept * vector) + (1 - kept) * vector

    return jax.lax.custom_linear_solve(product, kept * rhs, _conjugate_gradients, symmetric=True)


def _conjugate_gradients(product: Callable[[Array], Array], rhs: Array) -> Array:
    """The solution of a symmetric system, from zero, to a relative residual of a few epsilons."""
    goal = (float(jnp.finfo(rhs.dtype).eps) ** 0.8) ** 2 * dot(rhs, rhs)
    most = max(100, 10 * rhs.size)

    def goes_on(state: tuple[Array, ...]) -> Array:
        return (state[3] > goal) & (state[4] < most)

    def turn(state: tuple[Array, ...]) -> tuple[Array, ...]:
        solution, residual, direction, square, count = state
        applied = product(direction)
        bend = dot(direction, applied)
        alpha = square / jnp.where(bend == 0, jnp.inf, bend)
        residual = residual - alpha * applied
        after = dot(residual, residual)
        return solution + alpha * direction, residual, residual + after / square * direction, after, count + 1

    start = (jnp.zeros_like(rhs), rhs, rhs, dot(rhs, rhs), jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(goes_on, turn, start)[0]


def implicit_tangents(
    method: Any,
    flat: Flattener,
    problem_of: Callable[[tuple], Problem],
    aux_of: Callable[[PyTree, tuple], Any],
    result: MinimizeResult,
    args: tuple,
    moves: tuple,
) -> MinimizeResult:
    """The tangents of a result.

    Args:
        method: The method.
        flat: How params become a vector.
        problem_of: From arguments to the problem.
        aux_of: From params and arguments to what `fun` returns beside the value.
        result: The result.
        args: The arguments.
        moves: Their tangents.

    Returns:
        Tangents of `params`, `value` and `aux`, and zeros.
    """
    params, problem = flat.ravel(result.params), problem_of(args)

    def gradient(args: tuple) -> Array:
        return jax.grad(problem_of(args).fun)(params)

    cross = jax.jvp(gradient, (args,), (moves,))[1]
    move = -_solve(problem, params, cross, method.free(problem, params))
    value = jax.jvp(lambda x, args: problem_of(args).fun(x), (params, args), (move, moves))[1]
    zeros = jax.tree.map(_zero, result)
    unraveled = flat.unravel(move)
    leaves = [
        new if moves else old
        for new, old, moves in zip(jax.tree.leaves(unraveled), jax.tree.leaves(zeros.params), flat.moving, strict=True)
    ]
    tree = jax.tree.unflatten(flat.treedef, leaves)
    aux = None
    if result.aux is not None:
        aux = jax.jvp(aux_of, (result.params, args), (tree, moves))[1]
    return zeros._replace(params=tree, value=value.astype(result.value.dtype), aux=aux)
