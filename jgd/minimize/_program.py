"""The compiled part of `minimize`: from settings, a start and arguments to a result."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree
from jgd.minimize import _loop
from jgd.minimize._flatten import Flattener, flattener
from jgd.minimize._implicit import implicit_tangents
from jgd.minimize._problem import Problem
from jgd.minimize._result import MinimizeResult, Status
from jgd.minimize._value import half_sum_of_squares, residual_vector, scalar, terms_of


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a program is compiled for; hashable where its parts are."""

    fun: Callable[..., Any]
    method: Any
    max_steps: int
    has_aux: bool
    trace: bool
    differentiate: str
    value_dtype: Any


def make_problem(settings: Settings, flat: Flattener, fun: Callable[..., Any], args: tuple, bounds: Any) -> Problem:
    """The problem of a function of trees."""

    def output(x: Array) -> Any:
        out = fun(flat.unravel(x), *args)
        return out[0] if settings.has_aux else out

    least_squares = settings.method.least_squares

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
        bounds=bounds,
    )


def len_of(flat: Flattener) -> int:
    """How many numbers move."""
    return sum(int(jnp.size(leaf)) for leaf, moves in zip(flat.leaves, flat.moving, strict=True) if moves)


def _prepare(settings: Settings, params: PyTree, args: tuple, bounds: Any) -> tuple[Flattener, Problem, Array]:
    flat = flattener(params)
    return flat, make_problem(settings, flat, settings.fun, args, bounds), flat.ravel(params)


def begin(settings: Settings, params: PyTree, args: tuple, bounds: Any, tol: Array) -> _loop.Run:
    """The run before its first step."""
    flat, problem, x = _prepare(settings, params, args, bounds)
    return _loop.start(problem, settings.method, x, jnp.asarray(tol, flat.dtype), settings.max_steps, settings.trace)


def go_on(
    settings: Settings, params: PyTree, args: tuple, bounds: Any, tol: Array, run: _loop.Run, limit: Any
) -> _loop.Run:
    """The run after `limit` steps."""
    flat, problem, _ = _prepare(settings, params, args, bounds)
    return _loop.advance(problem, settings.method, run, jnp.asarray(tol, flat.dtype), settings.max_steps, limit)


def finish(settings: Settings, params: PyTree, args: tuple, tol: Array, run: _loop.Run) -> MinimizeResult:
    """The result of a run."""
    flat = flattener(params)
    solution = flat.unravel(run.point.params)
    aux, evaluations = None, run.evaluations
    if settings.has_aux:
        # one evaluation more: what comes with a value need not be carried through all the loops
        aux = settings.fun(solution, *args)[1]
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
        tol=jnp.asarray(tol, run.grad_norm.dtype),
    )


def whole(settings: Settings, params: PyTree, args: tuple, bounds: Any, tol: Array) -> MinimizeResult:
    """A whole run, whose solution can be differentiated."""
    # values that fun closes over become arguments, so that derivatives with respect to them are known, too
    fun, consts = jax.closure_convert(settings.fun, params, *args)
    settings = dataclasses.replace(settings, fun=fun)
    flat = flattener(params)
    if settings.differentiate == "unroll":
        return _unrolled(settings, params, (*args, *consts), bounds, tol)

    @jax.custom_jvp
    def solve(params: PyTree, args: tuple, bounds: Any, tol: Array) -> MinimizeResult:
        run = begin(settings, params, args, bounds, tol)
        return finish(settings, params, args, tol, go_on(settings, params, args, bounds, tol, run, settings.max_steps))

    @solve.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[MinimizeResult, MinimizeResult]:
        _, args, bounds, _ = primals
        result = solve(*primals)

        def problem_of(args: tuple) -> Problem:
            return make_problem(settings, flat, fun, args, bounds)

        def aux_of(params: PyTree, args: tuple) -> Any:
            return fun(params, *args)[1] if settings.has_aux else None

        return result, implicit_tangents(settings.method, flat, problem_of, aux_of, result, args, tangents[1])

    return solve(params, (*args, *consts), bounds, tol)


def _unrolled(settings: Settings, params: PyTree, args: tuple, bounds: Any, tol: Array) -> MinimizeResult:
    flat, problem, x = _prepare(settings, params, args, bounds)
    still = jax.tree.map(jax.lax.stop_gradient, args)
    problem = dataclasses.replace(problem, detached=make_problem(settings, flat, settings.fun, still, bounds))
    tol = jnp.asarray(tol, flat.dtype)
    run = _loop.start(problem, settings.method, x, tol, settings.max_steps, settings.trace)
    run = _loop.unrolled(problem, settings.method, run, tol, settings.max_steps)
    return finish(settings, params, args, tol, run)
