"""What `minimize` is called with: scipy's and jaxopt's names for things, and what makes no sense, in words."""

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import FloatDtype, is_traced

#: What others call an argument, and what to write here.
RENAMED = {
    "x0": "the second argument, params",
    "init_params": "the second argument, params",
    "maxiter": "max_steps",
    "max_iter": "max_steps",
    "maxfun": "max_steps, which counts steps",
    "maxls": "line_search=StrongWolfe(max_evaluations=...)",
    "gtol": "tol",
    "xtol": "tol, which bounds the gradient",
    "ftol": "tol, which bounds the gradient",
    "atol": "tol, which bounds the gradient",
    "rtol": "tol, which bounds the gradient",
    "options": "max_steps, tol and line_search, and the settings of a method object such as LBFGS(memory=20)",
    "callback": "trace=True for the numbers of each step, or Stepper for a loop of one's own",
    "jac": "nothing: JAX differentiates fun (jax.custom_jvp for a derivative of one's own)",
    "value_and_grad": "nothing: JAX differentiates fun (jax.custom_jvp for a derivative of one's own)",
    "hess": "nothing: JAX differentiates fun",
    "hessp": "nothing: JAX differentiates fun",
    "constraints": "equality=g for g(params) = 0 and inequality=h for h(params) <= 0",
    "disp": "print(result), or progress=True",
    "verbose": "print(result), or progress=True",
    "full_output": "nothing: the result has it all",
    "return_all": "trace=True",
    "linesearch": "line_search",
    "stepsize": "method=GradientDescent(stepsize)",
    "learning_rate": "method=GradientDescent(learning_rate)",
    "history_size": "method=LBFGS(memory=...)",
    "implicit_diff": 'differentiate="implicit" or "unroll"',
    "projection": "method=ProjectedGradient(projection)",
    "prox": "method=ProximalGradient(penalty)",
    "jit": "nothing: it is compiled",
}


def refuse(others: dict[str, Any]) -> None:
    """Refuses arguments that `minimize` does not have.

    Raises:
        TypeError: There is one.
    """
    for name in others:
        if name in RENAMED:
            raise TypeError(f"minimize: there is no argument {name!r}; here it is {RENAMED[name]}.")
        raise TypeError(f"minimize: there is no argument {name!r}; jax.jit, vmap and grad take others around a lambda.")


def as_args(args: Any) -> tuple:
    """More arguments of the function: a tuple as it is, anything else is one argument."""
    return args if isinstance(args, tuple) else (args,)


def check_numbers(fun: Any, tol: Any, max_steps: Any) -> int:
    """Checks the function, the tolerance and the number of steps, which it returns.

    Raises:
        TypeError: `fun` is no function, or a number is none.
        ValueError: A number is out of range.
    """
    if not callable(fun):
        raise TypeError(f"minimize: fun must be a function of params; got {_text(fun)}.")
    try:
        steps = operator.index(max_steps)
    except TypeError:
        steps = None
    if steps is None or isinstance(max_steps, bool):
        raise TypeError(
            f"minimize: max_steps must be an integer, known before the program runs; got {_text(max_steps)}."
        )
    if steps < 0:
        raise ValueError(f"minimize: max_steps must be at least 0; got {steps}.")
    if steps >= 2**31:
        raise ValueError(f"minimize: max_steps must be an int32, as counts are; got {steps}.")
    if tol is not None:
        _check_tol(tol)
    return steps


def _check_tol(tol: Any) -> None:
    known = isinstance(tol, int | float | np.ndarray | np.generic | jax.Array) and not isinstance(tol, bool)
    if not known or jnp.ndim(tol) > 0 or not jnp.issubdtype(jnp.result_type(tol), jnp.number):
        raise TypeError(f"minimize: tol must be None or a number; got {_text(tol)}.")
    if not is_traced(tol) and not (float(tol) >= 0 and math.isfinite(float(tol))):
        raise ValueError(f"minimize: tol must be finite and at least 0; got {tol}.")


def check_flags(**flags: Any) -> None:
    """Checks what is true or false.

    Raises:
        TypeError: It is neither.
    """
    for name, flag in flags.items():
        if not isinstance(flag, bool | np.bool_):
            raise TypeError(f"minimize: {name} must be True or False; got {_text(flag)}.")


def check_constraints(method: Any, equality: Any, inequality: Any, differentiate: str, progress: bool) -> None:
    """Checks what goes with constraints.

    Raises:
        TypeError: A constraint is no function.
        ValueError: The method or an option knows none.
    """
    for name, fun in (("equality", equality), ("inequality", inequality)):
        if fun is not None and not callable(fun):
            raise TypeError(f"minimize: {name} must be a function of params; got {_text(fun)}.")
    if getattr(method, "least_squares", False):
        raise ValueError(
            "minimize: methods for least squares know no constraints; let fun return the sum, and use 'lbfgs'."
        )
    if differentiate == "unroll":
        raise ValueError('minimize: with constraints expected differentiate="implicit"; got "unroll".')
    if progress:
        raise ValueError("minimize: with constraints there is no progress bar; expected progress=False.")


def value_dtype_of(value_dtype: FloatDtype | None) -> Any:
    """The dtype that the value is summed in, or None.

    Raises:
        TypeError: It is no dtype of floats.
        ValueError: It needs x64.
    """
    if value_dtype is None:
        return None
    try:
        found = jnp.dtype(value_dtype)
    except TypeError:
        found = None
    if found is None or not jnp.issubdtype(found, jnp.floating):
        raise TypeError(f"minimize: value_dtype must be a dtype of floats or None; got {value_dtype!r}.")
    if found.itemsize > jnp.dtype(jnp.result_type(float)).itemsize:
        raise ValueError(f"minimize: value_dtype={found} needs jax.config.update('jax_enable_x64', True).")
    return found


def _text(value: Any) -> str:
    if is_traced(value):
        return "a value that is known only when the program runs"
    return f"{value!r}" if isinstance(value, int | float | str | bool | None) else f"a {type(value).__name__}"
