"""A run from its start to its result, whose solution can be differentiated."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from jgd.core import PyTree
from jgd.minimizers.constrained._augmented_lagrangian import minimize_constrained
from jgd.minimizers.constrained._multipliers import Constraints
from jgd.minimizers.loop._implicit import implicit_tangents
from jgd.minimizers.loop._program import Inputs, Program, Settings, build
from jgd.minimizers.loop._result import MinimizeResult
from jgd.minimizers.problem._flatten import Flattener, flattener


def solve(settings: Settings, params: PyTree, inputs: Inputs) -> MinimizeResult:
    """Runs a program from params to its result."""
    settings, inputs = _with_constants(settings, params, inputs)
    flat = flattener(params)
    if settings.differentiate == "unroll":
        return _unrolled(settings, flat, params, inputs)

    @jax.custom_jvp
    def run(params: PyTree, inputs: Inputs) -> MinimizeResult:
        program = build(settings, flat, inputs)
        constraints = program.constraints
        if constraints is not None:
            return _constrained(program, constraints, params)
        return program.result(program.loop.iterate(program.init(params), settings.max_steps))

    @run.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[MinimizeResult, MinimizeResult]:
        result = run(*primals)
        return result, implicit_tangents(functools.partial(build, settings, flat), result, primals[1], tangents[1])

    return run(params, inputs)


def _with_constants(settings: Settings, params: PyTree, inputs: Inputs) -> tuple[Settings, Inputs]:
    """What the functions close over as more arguments, so that derivatives with respect to it are known, too."""
    count, args, converted = len(inputs.args), inputs.args, {}
    for name in ("fun", "equality", "inequality"):
        if getattr(settings, name) is None:
            continue
        fun, consts = jax.closure_convert(getattr(settings, name), params, *inputs.args)
        converted[name] = functools.partial(_call, fun, count, len(args), len(args) + len(consts))
        args = (*args, *consts)
    return dataclasses.replace(settings, **converted), inputs._replace(args=args)


def _call(fun: Callable[..., Any], count: int, start: int, stop: int, params: PyTree, *args: Any) -> Any:
    """Calls a converted function with its arguments, the first `count`, and its constants, `start` to `stop`."""
    return fun(params, *args[:count], *args[start:stop])


def _constrained(program: Program, constraints: Constraints, params: PyTree) -> MinimizeResult:
    """A run of the method of multipliers."""
    x = program.flat.ravel(params)
    end = minimize_constrained(program.loop, constraints, x, program.tol, program.settings.trace)
    # the value of its run is that of the Lagrangian: one evaluation more for the function's own
    cost = end.run.evaluations._replace(values=end.run.evaluations.values + 1)
    value = program.method.point(program.problem, end.run.point.params).value
    run = end.run._replace(point=end.run.point._replace(value=value), evaluations=cost, status=end.status)
    multipliers = constraints.unflatten(end.multipliers)
    return program.result(run)._replace(multipliers=multipliers, violation=end.violation)


def _unrolled(settings: Settings, flat: Flattener, params: PyTree, inputs: Inputs) -> MinimizeResult:
    """A run of `max_steps` steps that is differentiated step by step."""
    program = build(settings, flat, inputs)
    detached = build(settings, flat, jax.tree.map(jax.lax.stop_gradient, inputs)).problem
    loop = dataclasses.replace(program.loop, problem=dataclasses.replace(program.problem, detached=detached))
    program = dataclasses.replace(program, loop=loop)
    return program.result(loop.unroll(program.init(params)))
