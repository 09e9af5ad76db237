"""The compiled part of `minimize`: from settings, a start and arguments to a result."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, FloatDtype, PyTree
from jgd.minimizers.constrained._augmented_lagrangian import solve as solve_constrained
from jgd.minimizers.constrained._multipliers import Constraints, constraints_of
from jgd.minimizers.loop import _loop
from jgd.minimizers.loop._fields import Status
from jgd.minimizers.loop._implicit import implicit_tangents
from jgd.minimizers.loop._result import MinimizeResult
from jgd.minimizers.problem._data import join
from jgd.minimizers.problem._flatten import Flattener, flattener
from jgd.minimizers.problem._problem import Problem
from jgd.minimizers.problem._value import half_sum_of_squares, pair_of, residual_vector, scalar, terms_of


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a program is compiled for; hashable where its parts are. The method is without its arrays."""

    fun: Callable[..., Any]
    method: Any
    max_steps: int
    has_aux: bool
    trace: bool
    differentiate: str
    value_dtype: FloatDtype | None
    equality: Any = None
    inequality: Any = None

    @property
    def constrained(self) -> bool:
        """Whether there are constraints besides bounds."""
        return self.equality is not None or self.inequality is not None


class Inputs(NamedTuple):
    """What a program is run with, besides the start.

    Attributes:
        args: More arguments of the function.
        bounds: Lower and upper bounds [n], or None.
        numbers: The arrays of the method.
        tol: The bound of the gradient norm; None for that of dtype and scale.
    """

    args: tuple
    bounds: tuple[Array, Array] | None
    numbers: tuple[Array, ...]
    tol: Any


def problem_of(settings: Settings, flat: Flattener, inputs: Inputs) -> Problem:
    """The problem of a function of trees."""
    args, least_squares = inputs.args, method_of(settings, inputs).least_squares

    def output(x: Array) -> Any:
        out = settings.fun(flat.unravel(x), *args)
        return pair_of(out)[0] if settings.has_aux else out

    def residuals(x: Array) -> Array:
        return residual_vector(output(x), flat.dtype)

    def value(x: Array) -> Array:
        if least_squares:
            return half_sum_of_squares(residuals(x), settings.value_dtype)
        return scalar(output(x), flat.dtype, settings.value_dtype)

    eps = float(jnp.finfo(flat.dtype).eps)
    if settings.value_dtype is not None:
        # errors of terms that are rounded one by one cancel in part, where their sum adds none
        terms = terms_of(output, jax.ShapeDtypeStruct((len_of(flat),), flat.dtype))
        eps = max(eps / math.sqrt(terms), float(jnp.finfo(settings.value_dtype).eps))
    return Problem(
        value,
        residuals if least_squares else None,
        eps=eps,
        ravel=flat.ravel,
        unravel=flat.unravel,
        bounds=inputs.bounds,
    )


def method_of(settings: Settings, inputs: Inputs) -> Any:
    """The method with its numbers."""
    return join(settings.method, inputs.numbers)


def tol_of(inputs: Inputs, dtype: Any) -> Array | None:
    """The tolerance in the dtype of the params."""
    return None if inputs.tol is None else jnp.asarray(inputs.tol, dtype)


def len_of(flat: Flattener) -> int:
    """How many numbers move."""
    return jax.eval_shape(flat.ravel, jax.tree.unflatten(flat.treedef, flat.leaves)).size


def begin(settings: Settings, params: PyTree, inputs: Inputs) -> _loop.Run:
    """The run before its first step."""
    flat = flattener(params)
    problem, tol = problem_of(settings, flat, inputs), tol_of(inputs, flat.dtype)
    method = method_of(settings, inputs)
    return _loop.start(problem, method, flat.ravel(params), tol, settings.max_steps, settings.trace)


def go_on(settings: Settings, params: PyTree, inputs: Inputs, run: _loop.Run, limit: Any) -> _loop.Run:
    """The run after `limit` steps."""
    flat = flattener(params)
    problem, tol = problem_of(settings, flat, inputs), tol_of(inputs, flat.dtype)
    return _loop.advance(problem, method_of(settings, inputs), run, tol, settings.max_steps, limit)


def finish(settings: Settings, params: PyTree, inputs: Inputs, run: _loop.Run) -> MinimizeResult:
    """The result of a run."""
    flat = flattener(params)
    solution = flat.unravel(run.point.params)
    aux, evaluations = None, run.evaluations
    if settings.has_aux:
        # one evaluation more: what comes with a value need not be carried through all the loops
        aux = settings.fun(solution, *inputs.args)[1]
        evaluations = evaluations._replace(values=evaluations.values + 1)
    return MinimizeResult(
        params=solution,
        value=run.point.value,
        grad_norm=run.grad_norm,
        decrease=run.decrease,
        steps=run.steps,
        evaluations=evaluations,
        converged=run.status == Status.CONVERGED,
        status=run.status,
        trace=run.trace,
        aux=aux,
        path=run.path,
        tol=run.tol,
        jacobian=jacobian_of(method_of(settings, inputs), run.state),
    )


def jacobian_of(method: Any, state: Any) -> Array | None:
    """The Jacobian of the residuals, of methods that carry it."""
    return method.jacobian(state) if hasattr(method, "jacobian") else None


def whole(settings: Settings, params: PyTree, inputs: Inputs) -> MinimizeResult:
    """A whole run, whose solution can be differentiated."""
    settings, inputs = _closed(settings, params, inputs)
    fun, flat = settings.fun, flattener(params)
    if settings.differentiate == "unroll":
        return _unrolled(settings, params, inputs)

    def case_of(inputs: Inputs) -> tuple[Problem, Any]:
        return problem_of(settings, flat, inputs), method_of(settings, inputs)

    def held_by(inputs: Inputs) -> Constraints:
        return constraints_of(flat, settings.equality, settings.inequality, inputs.args)

    def aux_of(params: PyTree, inputs: Inputs) -> Any:
        return fun(params, *inputs.args)[1] if settings.has_aux else None

    @jax.custom_jvp
    def solve(params: PyTree, inputs: Inputs) -> MinimizeResult:
        if settings.constrained:
            return _constrained(settings, params, inputs, held_by(inputs))
        run = begin(settings, params, inputs)
        return finish(settings, params, inputs, go_on(settings, params, inputs, run, settings.max_steps))

    @solve.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[MinimizeResult, MinimizeResult]:
        inputs, moves = primals[1], tangents[1]
        result = solve(*primals)
        held = held_by if settings.constrained else None
        return result, implicit_tangents(flat, case_of, aux_of, result, inputs, moves, held)

    return solve(params, inputs)


def _closed(settings: Settings, params: PyTree, inputs: Inputs) -> tuple[Settings, Inputs]:
    """With values that functions close over as arguments, so that derivatives with respect to them are known, too."""
    count, args, made = len(inputs.args), inputs.args, {}
    for name in ("fun", "equality", "inequality"):
        if getattr(settings, name) is None:
            continue
        fun, consts = jax.closure_convert(getattr(settings, name), params, *inputs.args)
        made[name] = functools.partial(_with_consts, fun, count, len(args), len(args) + len(consts))
        args = (*args, *consts)
    return dataclasses.replace(settings, **made), inputs._replace(args=args)


def _with_consts(fun: Any, count: int, start: int, stop: int, params: PyTree, *args: Any) -> Any:
    return fun(params, *args[:count], *args[start:stop])


def _constrained(settings: Settings, params: PyTree, inputs: Inputs, held: Constraints) -> MinimizeResult:
    flat = flattener(params)
    problem, method, tol = problem_of(settings, flat, inputs), method_of(settings, inputs), tol_of(inputs, flat.dtype)
    end = solve_constrained(problem, method, held, flat.ravel(params), tol, settings.max_steps, settings.trace)
    # the value of a run is that of the Lagrangian: one evaluation more for the function's own
    cost = end.run.evaluations._replace(values=end.run.evaluations.values + 1)
    point = end.run.point._replace(value=method.point(problem, end.run.point.params).value)
    result = finish(settings, params, inputs, end.run._replace(point=point, evaluations=cost, status=end.status))
    return result._replace(multipliers=held.multipliers(end.forces), violation=end.violation)


def _unrolled(settings: Settings, params: PyTree, inputs: Inputs) -> MinimizeResult:
    flat = flattener(params)
    still = problem_of(settings, flat, jax.tree.map(jax.lax.stop_gradient, inputs))
    problem = dataclasses.replace(problem_of(settings, flat, inputs), detached=still)
    method, tol = method_of(settings, inputs), tol_of(inputs, flat.dtype)
    run = _loop.start(problem, method, flat.ravel(params), tol, settings.max_steps, settings.trace)
    return finish(settings, params, inputs, _loop.unrolled(problem, method, run, tol, settings.max_steps))
