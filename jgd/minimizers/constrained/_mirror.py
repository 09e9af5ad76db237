r"""Mirror descent with the entropy: multiplicative steps on the simplex or the positive orthant.

$$
\text{simplex:} \quad x_i \leftarrow \frac{x_i e^{-t g_i}}{\sum_j x_j e^{-t g_j}}, \qquad
\text{positive:} \quad x_i \leftarrow x_i e^{-t g_i}
$$

which minimizes $\langle g, x \rangle + \frac{1}{t} \mathrm{KL}(x, x_k)$, where the projected gradient method has half
the squared distance. The state holds $\log x$, so that an entry that has become zero can grow again. The step length
$t$ is the learning rate, or the longest that the curvature relative to the divergence allows.

The run has converged where $x - P(x - g)$, with the Euclidean projection $P$ onto the same set, is at most `tol` in
every entry, as in `ProjectedGradient`. Entries that are zero at the solution get there slowly; where there are many,
that method needs fewer steps.

References:
    - Nemirovski and Yudin, "Problem complexity and method efficiency in optimization", 1983.
    - Kivinen and Warmuth, "Exponentiated gradient versus gradient descent for linear predictors",
      https://doi.org/10.1006/inco.1996.2612, 1997.
    - Beck and Teboulle, "Mirror descent and nonlinear projected subgradient methods for convex optimization",
      https://doi.org/10.1016/S0167-6377(02)00231-6, 2003.
    - Bauschke, Bolte and Teboulle, "A descent lemma beyond Lipschitz gradient continuity",
      https://doi.org/10.1287/moor.2016.0817, 2017 (how long a step may be).
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jgd.core import Array, Scalar, check_choice, is_float, tree_where
from jgd.minimizers.line_searches._backtracking import Trial, backtrack
from jgd.minimizers.loop._fields import Evaluations
from jgd.minimizers.methods._base import BaseMethod, StepInfo
from jgd.minimizers.problem._flatten import refuse_complex
from jgd.minimizers.problem._problem import Point, Problem, max_norm

Geometry = Literal["simplex", "positive"]


class MirrorState(NamedTuple):
    """What a step hands to the next.

    Attributes:
        logs: The logarithms of the params [n]; they stay finite where a param is zero.
        step_size: The step size to try first.
        growth: The factor by which it may grow: large at first, small once a step was too long.
    """

    logs: Array
    step_size: Array
    growth: Array


def _by_rows(problem: Problem, fun: Callable[[Array], Array], vector: Array) -> Array:
    """`fun` of each row along the last axis of each leaf; a scalar is a row of one."""

    def rows(leaf: Array) -> Array:
        if not is_float(leaf):
            return leaf
        last = jnp.shape(leaf)[-1] if jnp.ndim(leaf) else 1
        return jax.vmap(fun)(jnp.reshape(leaf, (-1, last))).reshape(jnp.shape(leaf)).astype(jnp.result_type(leaf))

    return problem.ravel(jax.tree.map(rows, problem.unravel(vector)))


def _divergences(before: Array, after: Array, log_change: Array) -> tuple[Array, Array]:
    """KL(after, before), and its sum with KL(before, after), from the change of the logarithms [n].

    Both are sums of terms that are not negative, so that small ones are exact.
    """
    small = jnp.abs(log_change) < 0.1
    c = jnp.where(small, log_change, 0)
    series = before * c**2 * (1 / 2 + c / 3 + c**2 / 8 + c**3 / 30)
    change = jnp.where(small, before * jnp.expm1(c), after - before)
    return jnp.sum(jnp.where(small, series, after * log_change - change)), jnp.sum(change * log_change)


def _without_zeros(row: Array) -> Array:
    """A row whose entries that are not positive become small positive ones."""
    mean = jnp.mean(jnp.maximum(row, 0))
    return jnp.where(row > 0, row, jnp.where(mean > 0, 1e-3 * mean, 1))


def _project(row: Array) -> Array:
    """The nearest point of the simplex; that of the shifted row is the same, and more exact."""
    return optax.projections.projection_simplex(row - jnp.max(row))


@dataclasses.dataclass(frozen=True)
class MirrorDescent(BaseMethod):
    r"""Mirror descent with the entropy (exponentiated gradient), over simplices or positive numbers.

    Args:
        geometry: `"simplex"`: the last axis of each leaf is not negative and has the sum one. `"positive"`: no entry is
            negative. The start is scaled to fit; since no step leads away from zero, entries that are not positive
            become a thousandth of the mean of their leaf's last axis, or 1 where there is none.
        learning_rate: The step size, in units of one over the gradient; None to find it in each step.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimizers import MirrorDescent, minimize
        >>> fun = lambda x: 0.5 * jnp.sum((x - jnp.array([1.0, 0.5, -2.0])) ** 2)
        >>> print(minimize(fun, jnp.ones(3), method=MirrorDescent()).params.round(2))
        [0.75 0.25 0.  ]
    """

    geometry: Geometry = "simplex"
    learning_rate: Scalar | None = None

    def __post_init__(self) -> None:
        """Checks the geometry."""
        check_choice("MirrorDescent", "geometry", self.geometry, Geometry)

    def start(self, problem: Problem, params: Array) -> Array:
        """Params in the set, with no zero among them."""
        refuse_complex(f'MirrorDescent("{self.geometry}"): the set', problem.unravel(params))
        params = _by_rows(problem, _without_zeros, params)
        return self._scaled(problem, jnp.log(params))[0]

    def residual(self, problem: Problem, params: Array, grad: Array) -> Array:
        """The change of a step of projected gradient of size 1."""
        if self.geometry == "positive":
            return params - jnp.maximum(params - grad, 0)
        return params - _by_rows(problem, _project, params - grad)

    def init(self, problem: Problem, point: Point) -> MirrorState:
        """A first step that changes no entry by more than a factor of e."""
        del problem
        size, one = max_norm(point.grad), jnp.ones((), point.params.dtype)
        step = 1 / jnp.where(size > 0, size, 1) if self.learning_rate is None else self.learning_rate
        tiny = jnp.finfo(one.dtype).tiny
        return MirrorState(jnp.log(jnp.maximum(point.params, tiny)), jnp.asarray(step, one.dtype), 10 * one)

    def step(self, problem: Problem, point: Point, state: MirrorState) -> tuple[Point, MirrorState, StepInfo]:
        """A multiplicative step, of the learning rate or by backtracking."""
        dtype = point.params.dtype

        def try_step(problem: Problem, point: Point, logs: Array, step_size: Array) -> Trial:
            params, shift = self._scaled(problem, logs - step_size * point.grad)
            log_change = -step_size * point.grad - shift
            divergence, symmetric = _divergences(point.params, params, log_change)
            return Trial(problem.point(params), divergence / step_size, symmetric / step_size, logs + log_change)

        if self.learning_rate is not None:
            step_size = jnp.asarray(self.learning_rate, dtype)
            trial = try_step(problem, point, state.logs, step_size)
            return trial.point, state._replace(logs=trial.data), StepInfo(step_size, Evaluations(1, 1, 0))
        inner, origin = problem.inner, Point(*problem.detach(*point))
        logs, first, growth = problem.detach(state.logs, state.step_size, state.growth)
        result = backtrack(inner, origin, lambda size: try_step(inner, origin, logs, size), first, growth)
        trial, count, failed = result.trial, result.evaluations, ~result.success
        if problem.unrolled:
            trial, count = try_step(problem, point, state.logs, result.step_size), count + 1
        growth = jnp.where(result.evaluations > 1, 1.2, growth).astype(dtype)
        after = tree_where(failed, state, MirrorState(trial.data, result.next_step_size, growth))
        info = StepInfo(result.step_size, Evaluations(count, count, 0), failed, ~failed, trial.divergence)
        return tree_where(failed, point, trial.point), after, info

    def _scaled(self, problem: Problem, logs: Array) -> tuple[Array, Array]:
        """Params in the set from logarithms that need not be [n], and by how much these were too large [n]."""
        if self.geometry == "positive":
            return jnp.exp(logs), jnp.zeros_like(logs)
        shift = _by_rows(problem, lambda row: jnp.full(row.shape, jax.nn.logsumexp(row)), logs)
        return jnp.exp(logs - shift), shift
