"""What jgd has no form of its own of is optax's, handed on by name: `import jgd as optax` finds all it looks for."""

import importlib
import sys
from typing import Any


def from_optax(module: str, name: str, theirs: str) -> Any:
    """A name of optax's, for the `__getattr__` of one of jgd's modules.

    Args:
        module: The module of jgd that was asked.
        name: The name asked for.
        theirs: The module of optax that stands in.

    Raises:
        AttributeError: optax has no such name either.
    """
    if not name.startswith("_"):
        optax_module = importlib.import_module(theirs)
        if hasattr(optax_module, name):
            return getattr(optax_module, name)
    message = f"module {module!r} has no attribute {name!r}"
    raise AttributeError(message, name=name, obj=sys.modules[module])
