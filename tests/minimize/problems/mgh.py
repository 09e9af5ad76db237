"""The 35 problems of More, Garbow and Hillstrom (1981), with the sizes and starts of their paper."""

import dataclasses

import numpy as np

from ._mgh_fixed import FIXED
from ._mgh_minimizers import MINIMIZERS
from ._mgh_sized import SIZED
from ._problem import Problem, by_name


def _complete(problem: Problem) -> Problem:
    """A problem with its minimizer, which some lack in closed form."""
    if problem.minimizer is not None:
        return problem
    return dataclasses.replace(problem, minimizer=np.array(MINIMIZERS[problem.name]))


PROBLEMS = by_name([_complete(problem) for problem in (*FIXED, *SIZED)])
