"""The unconstrained and the bounded problems of sif2jax, CUTEst's in JAX: about 220 of at most 1,000 variables.

The package is imported when the problems are asked for. Its constrained problems, of which one takes two minutes to
import, are left out.

References:
    N. I. M. Gould, D. Orban and P. L. Toint, "CUTEst: a Constrained and Unconstrained Testing Environment with safe
    threads for mathematical optimization", 2015, https://doi.org/10.1007/s10589-014-9687-3
"""

import dataclasses
import functools
import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

from ._problem import Problem, by_name

LARGEST = 1000


def is_installed() -> bool:
    """Whether sif2jax is there."""
    # once its packages are imported the name stands for an empty one, of which nothing can be asked
    return "sif2jax" in sys.modules or importlib.util.find_spec("sif2jax") is not None


@functools.cache
def _packages() -> tuple[Any, Any]:
    """sif2jax's packages of unconstrained and of bounded problems, alone."""
    if "sif2jax" not in sys.modules:
        spec = importlib.util.find_spec("sif2jax")
        if spec is None or spec.origin is None:
            raise ImportError("these problems need sif2jax: pip install 'jgd[problems]'")
        root = Path(spec.origin).parent
        # Empty packages that know where their modules are: what the real ones import is not wanted.
        for name, folder in (("sif2jax", root), ("sif2jax.cutest", root / "cutest")):
            package = types.ModuleType(name)
            package.__path__ = [str(folder)]
            sys.modules[name] = package
    unconstrained = importlib.import_module("sif2jax.cutest._unconstrained_minimisation")
    return unconstrained, importlib.import_module("sif2jax.cutest._bounded_minimisation")


def _adapt(theirs: Any, name: str, *, bounded: bool = False) -> Problem:
    shape = np.shape(theirs.y0)
    bounds = theirs.bounds if bounded else None  # some without bounds have infinite ones
    start = np.asarray(theirs.y0, np.float64).ravel()
    if bounds is not None:
        lower, upper = (np.asarray(bound, np.float64).ravel() for bound in bounds)
        start, bounds = np.clip(start, lower, upper), (lower, upper)
    # What they expect as the minimum is a bound, a local minimum or a misprint in some: the best that is found counts.
    return Problem(name, lambda x: theirs.objective(x.reshape(shape), theirs.args), start, None, bounds=bounds)


def _sized(theirs: Any, size: int) -> Problem | None:
    """A problem of thousands of variables at another size, where its class takes one as its field n or N."""
    field = next((f.name for f in dataclasses.fields(theirs) if f.name in ("n", "N")), None)
    if field is None:
        return None
    try:
        smaller = dataclasses.replace(theirs, **{field: size})
    except (TypeError, ValueError):  # a class with a constructor of its own
        return None
    return _adapt(smaller, f"{theirs.name.lower()}_{size}") if smaller.num_variables() == size else None


@functools.cache
def problems(kind: str = "unconstrained", largest: int = LARGEST) -> dict[str, Problem]:
    """The problems of one kind, each of at most so many variables.

    Args:
        kind: "unconstrained", "bounded" or "sized": unconstrained ones of more variables, at the largest size.
        largest: Of how many variables at most.
    """
    unconstrained, bounded = _packages()
    found = (
        bounded.bounded_minimisation_problems
        if kind == "bounded"
        else unconstrained.unconstrained_minimisation_problems
    )
    distinct = {problem.name: problem for problem in found}.values()
    if kind == "sized":
        sized = [_sized(problem, largest) for problem in distinct if problem.num_variables() > largest]
        return by_name([problem for problem in sized if problem is not None])
    return by_name(
        [
            _adapt(problem, problem.name.lower(), bounded=kind == "bounded")
            for problem in distinct
            if problem.num_variables() <= largest
        ]
    )
