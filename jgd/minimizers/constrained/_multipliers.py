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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree
from jgd.minimizers.problem._flatten import Flattener, flattener, refuse_complex
from jgd.minimizers.problem._problem import dot, max_norm


class Multipliers(NamedTuple):
    """The multipliers of a constrained solution: by how much the least value falls where a constraint gives way.

    Attributes:
        equality: Of `equality`, in the shapes of what it returns; None without.
        inequality: Of `inequality`, at least 0, and 0 where a constraint is not active; None without.
    """

    equality: PyTree
    inequality: PyTree


class Forces(NamedTuple):
    """Multipliers as vectors: of equalities [p], of inequalities [q]."""

    equality: Array
    inequality: Array


class Constraints(NamedTuple):
    """Constraints of a vector of params [n].

    Attributes:
        equality: To what is to be zero [p].
        inequality: To what is to be at most zero [q].
        trees: How these vectors are made of what the user's functions return; None without.
    """

    equality: Callable[[Array], Array]
    inequality: Callable[[Array], Array]
    trees: tuple[Flattener | None, Flattener | None]

    def none(self, params: Array) -> Forces:
        """No force."""
        return Forces(*(jnp.zeros_like(f(params)) for f in (self.equality, self.inequality)))

    def forces(self, multipliers: Multipliers) -> Forces:
        """As vectors."""
        made = (jnp.zeros(0) if t is None else t.ravel(m) for t, m in zip(self.trees, multipliers, strict=True))
        return Forces(*made)

    def multipliers(self, forces: Forces) -> Multipliers:
        """As the user's functions return them."""
        return Multipliers(*(None if t is None else t.unravel(v) for t, v in zip(self.trees, forces, strict=True)))


def constraints_of(flat: Flattener, equality: Any, inequality: Any, args: tuple) -> Constraints:
    """The constraints of a vector.

    Raises:
        TypeError: A function returns no float arrays.
    """

    def one(name: str, fun: Any) -> tuple[Callable[[Array], Array], Flattener | None]:
        if fun is None:
            return lambda x: jnp.zeros(0, x.dtype), None
        shapes = jax.eval_shape(lambda tree: fun(tree, *args), jax.tree.unflatten(flat.treedef, flat.leaves))
        leaves = jax.tree.leaves(shapes)
        if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves):
            found = [str(leaf.dtype) for leaf in leaves] or type(shapes).__name__
            raise TypeError(f"minimize: {name} must return float arrays; got {found}.")
        made = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        if name == "inequality":
            refuse_complex("minimize: inequality", made)
        tree = flattener(made)
        return lambda x: tree.ravel(fun(flat.unravel(x), *args)).astype(flat.dtype), tree

    (zero, first), (below, second) = one("equality", equality), one("inequality", inequality)
    return Constraints(zero, below, (first, second))


def augmented(fun: Any, held: Constraints, forces: Forces, penalty: Array) -> Callable[[Array], Array]:
    """The augmented Lagrangian as a function of params [n]."""

    def value(x: Array) -> Array:
        g, pushed = held.equality(x), jnp.maximum(0, forces.inequality + penalty * held.inequality(x))
        equal = dot(forces.equality, g) + 0.5 * penalty * dot(g, g)
        below = 0.5 * (dot(pushed, pushed) - dot(forces.inequality, forces.inequality)) / penalty
        return fun(x) + equal + below

    return value


def updated(held: Constraints, params: Array, forces: Forces, penalty: Array) -> tuple[Forces, Array]:
    """The multipliers for which the augmented Lagrangian's gradient is the Lagrangian's, and the violation."""
    g, h = held.equality(params), held.inequality(params)
    new = Forces(forces.equality + penalty * g, jnp.maximum(0, forces.inequality + penalty * h))
    # what is over zero, or below where there still is a force
    return new, jnp.maximum(max_norm(g), max_norm(jnp.maximum(h, -forces.inequality / penalty)))


def conditions(problem: Any, method: Any, held: Constraints, unknowns: tuple[Array, Forces]) -> tuple[Array, Forces]:
    """What is zero at a solution: of params and of multipliers."""
    params, forces = unknowns

    def lagrangian(x: Array) -> Array:
        return problem.fun(x) + dot(forces.equality, held.equality(x)) + dot(forces.inequality, held.inequality(x))

    slack = jnp.maximum(0, forces.inequality + held.inequality(params)) - forces.inequality
    stationary = method.residual(problem, params, jax.grad(lagrangian)(params))
    return stationary, Forces(held.equality(params), slack)
