"""Faults that a tired engineer could write: each gives a wrong result or breaks a promise, and still compiles.

Each is planted alone in a copy of the repository, where a test must find it: see `plant.py`. `tests/test_faults.py`
sees to it that each row still fits the code. None is the same program in other words.
"""

from faults import core, gradients, minimize, others, rules, train, transforms
from faults.fault import Fault as Fault

FAULTS = [
    *core.FAULTS,
    *rules.FAULTS,
    *transforms.FAULTS,
    *train.FAULTS,
    *gradients.FAULTS,
    *minimize.FAULTS,
    *others.FAULTS,
]
