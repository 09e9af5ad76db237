"""The rows of the golden traces, one file a family."""

import importlib
import pkgutil

ROWS = [
    row for module in pkgutil.iter_modules(__path__) for row in importlib.import_module(f"golden.{module.name}").ROWS
]
