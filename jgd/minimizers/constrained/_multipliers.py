r"""General constraints: their functions of a vector, the Lagrangian, and what is zero at a solution.

With $g(x) = 0$, $h(x) \le 0$ and the multipliers $\lambda$, $\mu \ge 0$ the Lagrangian and the augmented one are

$$
\mathcal{L} = f + \lambda^\top g + \mu^\top h, \qquad
\mathcal{L}_\rho = f + \lambda^\top g + \frac{\rho}{2} \lVert g \rVert^2
  + \frac{1}{2 \rho} \sum_i \left( \max(0, \mu_i + \rho h_i)^2 - \mu_i^2 \right)
$$

and a solution is where the method's residual for the gradient of $\mathcal{L}$ is zero, and so are $g$ and
$\max(0, \mu + h) - \mu$: a constraint holds with equality, or its multiplier is zero.

References:
    - Hestenes, "Multiplier and gradient methods", https://doi.org/10.1007/BF00927673, 1969; Powell, 1969.
    - Rockafellar, "The multiplier method of Hestenes and Powell applied to convex programming",
      https://doi.org/10.1007/BF00934777, 1973 (inequalities).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree
from jgd.minimizers.loop._fields import Multipliers
from jgd.minimizers.methods._base import BaseMethod
from jgd.minimizers.problem._flatten import Flattener, flattener, refuse_complex
from jgd.minimizers.problem._problem import Problem, dot, max_norm


class FlatMultipliers(NamedTuple):
    """Multipliers as vectors: of equalities [p], of inequalities [q]."""

    equality: Array
    inequality: Array


class Constraints(NamedTuple):
    """Constraints of a vector of params [n].

    Attributes:
        equality: From params to what is to be zero [p].
        inequality: From params to what is to be at most zero [q].
        flatteners: How these vectors are made of what the user's functions return; None without.
    """

    equality: Callable[[Array], Array]
    inequality: Callable[[Array], Array]
    flatteners: tuple[Flattener | None, Flattener | None]

    def zero_multipliers(self, params: Array) -> FlatMultipliers:
        """Multipliers that are zero."""
        return FlatMultipliers(*(jnp.zeros_like(f(params)) for f in (self.equality, self.inequality)))

    def flatten(self, multipliers: Multipliers) -> FlatMultipliers:
        """Multipliers as vectors."""
        pairs = zip(self.flatteners, multipliers, strict=True)
        return FlatMultipliers(*(jnp.zeros(0) if flat is None else flat.ravel(tree) for flat, tree in pairs))

    def unflatten(self, multipliers: FlatMultipliers) -> Multipliers:
        """Multipliers as the user's functions return them."""
        pairs = zip(self.flatteners, multipliers, strict=True)
        return Multipliers(*(None if flat is None else flat.unravel(vector) for flat, vector in pairs))


def constraints_of(
    flat: Flattener, equality: Callable[..., PyTree] | None, inequality: Callable[..., PyTree] | None, args: tuple
) -> Constraints:
    """The constraints of a vector.

    Raises:
        TypeError: A function returns no float arrays.
    """

    def flattened(name: str, fun: Callable[..., PyTree] | None) -> tuple[Callable[[Array], Array], Flattener | None]:
        if fun is None:
            return lambda x: jnp.zeros(0, x.dtype), None
        shapes = jax.eval_shape(lambda tree: fun(tree, *args), jax.tree.unflatten(flat.treedef, flat.leaves))
        leaves = jax.tree.leaves(shapes)
        if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves):
            dtypes = [str(leaf.dtype) for leaf in leaves] or type(shapes).__name__
            raise TypeError(f"minimize: {name} must return float arrays; got {dtypes}.")
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        if name == "inequality":
            refuse_complex("minimize: inequality", zeros)
        out = flattener(zeros)
        return lambda x: out.ravel(fun(flat.unravel(x), *args)).astype(flat.dtype), out

    (g, g_flat), (h, h_flat) = flattened("equality", equality), flattened("inequality", inequality)
    return Constraints(g, h, (g_flat, h_flat))


def augmented_lagrangian(
    fun: Callable[[Array], Array], constraints: Constraints, multipliers: FlatMultipliers, penalty: Array
) -> Callable[[Array], Array]:
    """The augmented Lagrangian as a function of params [n]."""
    lam, mu = multipliers

    def value(x: Array) -> Array:
        g, shifted = constraints.equality(x), jnp.maximum(0, mu + penalty * constraints.inequality(x))
        of_equality = dot(lam, g) + 0.5 * penalty * dot(g, g)
        of_inequality = 0.5 * (dot(shifted, shifted) - dot(mu, mu)) / penalty
        return fun(x) + of_equality + of_inequality

    return value


def update(
    constraints: Constraints, params: Array, multipliers: FlatMultipliers, penalty: Array
) -> tuple[FlatMultipliers, Array]:
    """The multipliers for which the augmented Lagrangian's gradient is the Lagrangian's, and the violation."""
    lam, mu = multipliers
    g, h = constraints.equality(params), constraints.inequality(params)
    new = FlatMultipliers(lam + penalty * g, jnp.maximum(0, mu + penalty * h))
    # an inequality is violated above zero, and below where its multiplier is not zero
    return new, jnp.maximum(max_norm(g), max_norm(jnp.maximum(h, -mu / penalty)))


def optimality_conditions(
    problem: Problem, method: BaseMethod, constraints: Constraints, unknowns: tuple[Array, FlatMultipliers]
) -> tuple[Array, FlatMultipliers]:
    """What is zero at a solution: of params and of multipliers."""
    params, (lam, mu) = unknowns

    def lagrangian(x: Array) -> Array:
        return problem.fun(x) + dot(lam, constraints.equality(x)) + dot(mu, constraints.inequality(x))

    complementarity = jnp.maximum(0, mu + constraints.inequality(params)) - mu
    stationarity = method.residual(problem, params, jax.grad(lagrangian)(params))
    return stationarity, FlatMultipliers(constraints.equality(params), complementarity)
