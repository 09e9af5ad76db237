"""Programs that run but a few times: shared where they can be, and read as NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from jgd.minimizers import minimize


def numbers(tree):
    """The tree with NumPy's arrays: to compare those compiles nothing."""
    return jax.tree.map(np.asarray, tree)


def run(fun, start, **options):
    """`minimize` as one program, and its result in NumPy."""
    return numbers(jax.jit(lambda start: minimize(fun, start, **options))(start))


def padded(values, size, fill=0.0):
    """So many numbers, of which the first are given."""
    values = np.asarray(values, float)
    return np.pad(values, (0, size - len(values)), constant_values=fill)


def solver(functions, method, **settings):
    """One program for many functions: from a name, a start and a tolerance to a result in NumPy.

    Args:
        functions: Functions of params by name; all get params of one size, and use what they need of them.
        method: A method, its name, or a function that makes one of numbers, which are data then.
        **settings: More for `minimize`.
    """
    names, branches = list(functions), list(functions.values())

    def fun(x, i):
        return jax.lax.switch(i, branches, x)

    @jax.jit
    def program(start, i, tol, numbers, bounds):
        made = method(*numbers) if numbers else method
        return minimize(fun, start, args=(i,), method=made, tol=tol, bounds=bounds, **settings)

    def solve(name, start, *given, tol=1e-6, bounds=None):
        return numbers(program(np.asarray(start, float), names.index(name), tol, given, bounds))

    return solve


def padded_rows(residuals, size, x):
    """Residuals with zeros behind them, so that those of several problems are as many."""
    found = residuals(x)
    return jnp.pad(found, (0, size - found.size))
