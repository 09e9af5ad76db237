r"""Derivatives of a solution by the implicit function theorem.

A solution $x(a)$ is where a residual $F(x, a)$ is zero: the gradient, or for methods with constraints or penalties the
step of a projected gradient, $x - P(x - g)$. It stays zero while the arguments $a$ change, so

$$
\partial_x F \; \dot x = -\partial_a F \; \dot a
$$

where the matrix is known by its products alone. Where $F$ is the gradient it is the Hessian, and conjugate gradients
solve the system; else GMRES does. With constraints the multipliers are unknowns, too, and the conditions of a solution
more equations. The matrix may be singular, as where several params give one solution: then the derivative is one of
least norm, and in reverse that of what all solutions share; it is NaN where there is none. How the solution was found
does not matter, nor does the start.

References:
    - Blondel et al., "Efficient and modular implicit differentiation", https://arxiv.org/abs/2105.15183, 2021.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jgd.core import Array, PyTree
from jgd.minimizers.constrained._multipliers import Constraints, conditions
from jgd.minimizers.least_squares._damped_system import linear_at
from jgd.minimizers.loop._krylov import solve
from jgd.minimizers.loop._result import MinimizeResult
from jgd.minimizers.methods._base import BaseMethod
from jgd.minimizers.problem._flatten import Flattener
from jgd.minimizers.problem._problem import Problem


def _zero(leaf: Array) -> Any:
    """The tangent of an output that does not change."""
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jnp.zeros_like(leaf)
    return np.zeros(leaf.shape, jax.dtypes.float0)


def implicit_tangents(
    flat: Flattener,
    case_of: Callable[[Any], tuple[Problem, Any]],
    aux_of: Callable[[PyTree, Any], Any],
    result: MinimizeResult,
    inputs: Any,
    moves: Any,
    held_by: Callable[[Any], Constraints] | None = None,
) -> MinimizeResult:
    """The tangents of a result.

    Args:
        flat: How params become a vector.
        case_of: From the inputs of a program to the problem and the method.
        aux_of: From params and inputs to what `fun` returns beside the value.
        result: The result.
        inputs: The inputs.
        moves: Their tangents.
        held_by: From the inputs to the constraints, where there are some.

    Returns:
        Tangents of `params`, `value`, `aux`, `multipliers` and `jacobian`, and zeros.
    """
    params = flat.ravel(result.params)
    problem, method = case_of(inputs)
    symmetric = held_by is None and type(method).residual is BaseMethod.residual

    def residual(unknowns: tuple[Array, Any], inputs: Any) -> tuple[Array, Any]:
        problem, method = case_of(inputs)
        if held_by is not None:
            return conditions(problem, method, held_by(inputs), unknowns)
        return method.residual(problem, unknowns[0], jax.grad(problem.fun)(unknowns[0])), ()

    forces = () if held_by is None else held_by(inputs).forces(result.multipliers)
    flat_unknowns, unravel = ravel_pytree((params, forces))

    def product(vector: Array) -> Array:
        if symmetric:
            return problem.product(params, vector)
        return jax.jvp(lambda u: ravel_pytree(residual(unravel(u), inputs))[0], (flat_unknowns,), (vector,))[1]

    def value(params: Array, inputs: Any) -> Array:
        problem, method = case_of(inputs)
        return method.point(problem, params).value

    cross = jax.jvp(lambda inputs: ravel_pytree(residual((params, forces), inputs))[0], (inputs,), (moves,))[1]
    move, force_moves = unravel(-solve(product, cross, symmetric))
    value_move = jax.jvp(value, (params, inputs), (move, moves))[1]
    zeros = jax.tree.map(_zero, result)
    moved, still = jax.tree.leaves(flat.unravel(move)), jax.tree.leaves(zeros.params)
    leaves = [new if floats else old for new, old, floats in zip(moved, still, flat.moving, strict=True)]
    tree = jax.tree.unflatten(flat.treedef, leaves)
    aux = None
    if result.aux is not None:
        aux = jax.jvp(aux_of, (result.params, inputs), (tree, moves))[1]
    bent = None
    if result.jacobian is not None:

        def jacobian(params: Array, inputs: Any) -> Array:
            return linear_at(case_of(inputs)[0], params).matrix

        bent = jax.jvp(jacobian, (params, inputs), (move, moves))[1].astype(result.jacobian.dtype)
    zeros = zeros._replace(params=tree, value=value_move.astype(result.value.dtype), aux=aux, jacobian=bent)
    return zeros if held_by is None else zeros._replace(multipliers=held_by(inputs).multipliers(force_moves))
