"""Rosenbrock, Himmelblau, Powell, Wood and other classics, to 1,000 variables; regressions if scikit-learn is there."""

import importlib.util

from ._classics import CLASSICS
from ._models import models
from ._problem import by_name

HAS_DATA = importlib.util.find_spec("sklearn") is not None
PROBLEMS = by_name([*CLASSICS, *(models() if HAS_DATA else ())])
