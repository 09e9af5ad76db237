"""What `minimize` compiles: a function of trees as a problem of a vector, the loop that solves it, and the result."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, DTypeLike, PyTree, Scalar
from jgd.minimizers.constrained._multipliers import Constraints, constraints_of
from jgd.minimizers.loop._fields import Status
from jgd.minimizers.loop._loop import Loop, RunState
from jgd.minimizers.loop._result import MinimizeResult
from jgd.minimizers.methods._base import BaseMethod
from jgd.minimizers.problem._data import join
from jgd.minimizers.problem._flatten import Flattener
from jgd.minimizers.problem._problem import Problem
from jgd.minimizers.problem._value import count_terms, half_sum_of_squares, residual_vector, value_and_aux, value_of


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a program is compiled for; hashable where its parts are.

    Attributes:
        fun: The function of a tree of params and of args.
        method: The method without its arrays, as `split` leaves it.
        max_steps: Steps at most.
        has_aux: Whether `fun` returns a pair.
        trace: Whether to record each step.
        differentiate: How the solution is differentiated.
        value_dtype: The dtype that the value is summed in, or None.
        equality: A constraint, or None.
        inequality: A constraint, or None.
    """

    fun: Callable[..., Any]
    method: Any  # a method, or what `split` makes of one
    max_steps: int
    has_aux: bool
    trace: bool
    differentiate: str
    value_dtype: DTypeLike | None
    equality: Callable[..., Any] | None = None
    inequality: Callable[..., Any] | None = None

    @property
    def constrained(self) -> bool:
        """Whether there are constraints besides bounds."""
        return self.equality is not None or self.inequality is not None


class Inputs(NamedTuple):
    """What a program is run with, besides the start.

    Attributes:
        args: More arguments of the function.
        bounds: Lower and upper bounds [n], or None.
        arrays: The arrays of the method.
        tol: The bound of the gradient norm; None for one by dtype and scale.
    """

    args: tuple
    bounds: tuple[Array, Array] | None
    arrays: tuple[Array, ...]
    tol: Scalar | None


@dataclasses.dataclass(frozen=True)
class Program:
    """A run of `minimize`, ready to start: built once in each compiled program, by `build`.

    Attributes:
        settings: What it is compiled for.
        inputs: What it is run with.
        flat: How params become a vector, and back.
        loop: The method at work on the problem.
    """

    settings: Settings
    inputs: Inputs
    flat: Flattener
    loop: Loop

    @property
    def problem(self) -> Problem:
        """The function of a vector."""
        return self.loop.problem

    @property
    def method(self) -> BaseMethod:
        """The method with its arrays."""
        return self.loop.method

    @property
    def tol(self) -> Array | None:
        """The tolerance in the dtype of the params."""
        return None if self.inputs.tol is None else jnp.asarray(self.inputs.tol, self.flat.dtype)

    @property
    def constraints(self) -> Constraints | None:
        """The constraints besides bounds."""
        if not self.settings.constrained:
            return None
        return constraints_of(self.flat, self.settings.equality, self.settings.inequality, self.inputs.args)

    def init(self, params: PyTree) -> RunState:
        """The state before the first step."""
        return self.loop.init(self.flat.ravel(params), self.tol, trace=self.settings.trace)

    def aux(self, params: PyTree) -> PyTree:
        """What `fun` returns beside the value; None without `has_aux`."""
        return self.settings.fun(params, *self.inputs.args)[1] if self.settings.has_aux else None

    def result(self, run: RunState) -> MinimizeResult:
        """The result of a run."""
        solution, evaluations = self.flat.unravel(run.point.params), run.evaluations
        if self.settings.has_aux:
            # one evaluation more: what comes with a value need not be carried through all the loops
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
            aux=self.aux(solution),
            path=run.path,
            tol=run.tol,
            jacobian=self.method.jacobian(run.state) if hasattr(self.method, "jacobian") else None,
        )


def build(settings: Settings, flat: Flattener, inputs: Inputs) -> Program:
    """The program for these inputs."""
    method: BaseMethod = join(settings.method, inputs.arrays)
    problem = _problem(settings, flat, inputs, method.least_squares)
    loop = Loop(problem, method, settings.max_steps, automatic_tol=inputs.tol is None)
    return Program(settings, inputs, flat, loop)


def call_compiled(program: Callable[..., Any], settings: Settings, *rest: Any) -> Any:
    """What `program(settings, *rest)` returns, compiled once for equal settings."""
    try:
        hash(settings)
    except TypeError:  # a function or a method that cannot be hashed: compiled anew in each call
        return program(settings, *rest)
    return _compiled(program)(settings, *rest)


@functools.cache
def _compiled(program: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(program, static_argnums=0)


def _problem(settings: Settings, flat: Flattener, inputs: Inputs, least_squares: bool) -> Problem:
    """The problem of a function of trees."""

    def output(x: Array) -> PyTree:
        out = settings.fun(flat.unravel(x), *inputs.args)
        return value_and_aux(out)[0] if settings.has_aux else out

    def residuals(x: Array) -> Array:
        return residual_vector(output(x), flat.dtype)

    def value(x: Array) -> Array:
        if least_squares:
            return half_sum_of_squares(residuals(x), settings.value_dtype)
        return value_of(output(x), flat.dtype, settings.value_dtype)

    eps = float(jnp.finfo(flat.dtype).eps)
    if settings.value_dtype is not None:
        # errors of terms that are rounded one by one cancel in part, where their sum adds none
        terms = count_terms(output, jax.ShapeDtypeStruct((flat.size,), flat.dtype))
        eps = max(eps / math.sqrt(terms), float(jnp.finfo(settings.value_dtype).eps))
    return Problem(
        value,
        residuals if least_squares else None,
        eps=eps,
        ravel=flat.ravel,
        unravel=flat.unravel,
        bounds=inputs.bounds,
    )
