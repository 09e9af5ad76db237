r"""Derivatives of a solution by the implicit function theorem.

A solution $x(a)$ is where a residual $F(x, a)$ is zero: the gradient, or for methods with constraints or penalties the
step of a projected gradient, $x - P(x - g)$. It stays zero while the arguments $a$ change, so

$$
\partial_x F \; \dot x = -\partial_a F \; \dot a
$$

where only products with the matrix are computed. Where $F$ is the gradient it is the Hessian, and conjugate gradients
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

from jgd.core import Array
from jgd.minimizers.constrained._multipliers import optimality_conditions
from jgd.minimizers.least_squares._damped_system import linear_model_at
from jgd.minimizers.loop._krylov import solve_linear
from jgd.minimizers.loop._program import Inputs, Program
from jgd.minimizers.loop._result import MinimizeResult
from jgd.minimizers.methods._base import BaseMethod


def _zero(leaf: Array) -> Any:
    """The tangent of an output that does not change."""
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jnp.zeros_like(leaf)
    return np.zeros(leaf.shape, jax.dtypes.float0)


def implicit_tangents(
    build: Callable[[Inputs], Program], result: MinimizeResult, inputs: Inputs, tangents: Inputs
) -> MinimizeResult:
    """The tangents of a result.

    Args:
        build: From inputs to the program.
        result: The result.
        inputs: The inputs.
        tangents: Their tangents.

    Returns:
        Tangents of `params`, `value`, `aux`, `multipliers` and `jacobian`, and zeros.
    """
    program = build(inputs)
    flat, constraints = program.flat, program.constraints
    params = flat.ravel(result.params)
    symmetric = constraints is None and type(program.method).residual is BaseMethod.residual

    def residual(unknowns: tuple[Array, Any], inputs: Inputs) -> tuple[Array, Any]:
        program = build(inputs)
        problem, method, constraints = program.problem, program.method, program.constraints
        if constraints is not None:
            return optimality_conditions(problem, method, constraints, unknowns)
        return method.residual(problem, unknowns[0], jax.grad(problem.fun)(unknowns[0])), ()

    multipliers = ()
    if constraints is not None and result.multipliers is not None:
        multipliers = constraints.flatten(result.multipliers)
    unknowns, unravel = ravel_pytree((params, multipliers))

    def matvec(vector: Array) -> Array:
        if symmetric:
            return program.problem.hessian_product(params, vector)
        return jax.jvp(lambda u: ravel_pytree(residual(unravel(u), inputs))[0], (unknowns,), (vector,))[1]

    def value(params: Array, inputs: Inputs) -> Array:
        program = build(inputs)
        return program.method.point(program.problem, params).value

    def jacobian(params: Array, inputs: Inputs) -> Array:
        return linear_model_at(build(inputs).problem, params).jacobian

    rhs = jax.jvp(lambda inputs: ravel_pytree(residual((params, multipliers), inputs))[0], (inputs,), (tangents,))[1]
    d_params, d_multipliers = unravel(-solve_linear(matvec, rhs, symmetric))
    d_value = jax.jvp(value, (params, inputs), (d_params, tangents))[1]
    zeros = jax.tree.map(_zero, result)
    d_leaves = zip(jax.tree.leaves(flat.unravel(d_params)), jax.tree.leaves(zeros.params), flat.floats, strict=True)
    d_tree = jax.tree.unflatten(flat.treedef, [new if floats else zero for new, zero, floats in d_leaves])
    zeros = zeros._replace(params=d_tree, value=d_value.astype(result.value.dtype))
    if result.aux is not None:
        aux = jax.jvp(lambda params, inputs: build(inputs).aux(params), (result.params, inputs), (d_tree, tangents))[1]
        zeros = zeros._replace(aux=aux)
    if result.jacobian is not None:
        d_jacobian = jax.jvp(jacobian, (params, inputs), (d_params, tangents))[1]
        zeros = zeros._replace(jacobian=d_jacobian.astype(result.jacobian.dtype))
    return zeros if constraints is None else zeros._replace(multipliers=constraints.unflatten(d_multipliers))
