"""What `minimize` is called with: other libraries' names of arguments, and checks of what the types leave open."""

from typing import Any

import jax.numpy as jnp

from jgd.core import ArrayTree, DTypeLike, FloatDtype, Scalar, check_integers, check_numbers, is_traced

#: Other libraries' arguments, and what to write here instead.
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
    "callback": "trace=True for the numbers of each step, or Stepper for a loop of your own",
    "jac": "nothing: JAX differentiates fun (jax.custom_jvp for a derivative of your own)",
    "value_and_grad": "nothing: JAX differentiates fun (jax.custom_jvp for a derivative of your own)",
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


def refuse_unknown(unknown: dict[str, Any]) -> None:
    """Refuses arguments that `minimize` does not have.

    Raises:
        TypeError: There is one.
    """
    for name in unknown:
        if name in RENAMED:
            raise TypeError(f"minimize: there is no argument {name!r}; here it is {RENAMED[name]}.")
        raise TypeError(f"minimize: there is no argument {name!r}; jax.jit, vmap and grad take others around a lambda.")


def as_tuple(args: ArrayTree) -> tuple:
    """More arguments of the function as a tuple: what is not one is one argument."""
    return args if isinstance(args, tuple) else (args,)


def check_limits(owner: str, tol: Scalar | None, max_steps: int) -> None:
    """Checks the tolerance and the number of steps.

    Raises:
        TypeError: One is not a number, or `max_steps` is known only when the program runs.
        ValueError: One is out of range.
    """
    if is_traced(max_steps):
        raise TypeError(f"{owner}: max_steps must be known before the program runs; got a traced value.")
    check_integers(owner, 0, max_steps=max_steps)
    if tol is not None:
        check_numbers(owner, 0, tol=tol)


def check_constraints(method: object, differentiate: str, progress: bool) -> None:
    """Checks what goes with constraints.

    Raises:
        ValueError: The method or an option does not.
    """
    if getattr(method, "least_squares", False):
        raise ValueError(
            "minimize: methods for least squares know no constraints; let fun return the sum, and use 'lbfgs'."
        )
    if differentiate == "unroll":
        raise ValueError('minimize: with constraints expected differentiate="implicit"; got "unroll".')
    if progress:
        raise ValueError("minimize: with constraints there is no progress bar; expected progress=False.")


def as_float_dtype(value_dtype: FloatDtype | None) -> DTypeLike | None:
    """The dtype that the value is summed in, or None.

    Raises:
        TypeError: It is not a dtype of floats.
        ValueError: It needs x64.
    """
    if value_dtype is None:
        return None
    try:
        dtype = jnp.dtype(value_dtype)
    except TypeError:
        dtype = None
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"minimize: value_dtype must be a dtype of floats or None; got {value_dtype!r}.")
    if dtype.itemsize > jnp.dtype(jnp.result_type(float)).itemsize:
        raise ValueError(f"minimize: value_dtype={dtype} needs jax.config.update('jax_enable_x64', True).")
    return dtype
