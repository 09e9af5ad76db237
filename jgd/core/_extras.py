"""Optional packages: imported where they are used, and asked for by the name of the extra that brings them."""

import importlib
from types import ModuleType


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Imports an optional package.

    Raises:
        ImportError: It is not installed; the message says which extra to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise ImportError(f"{purpose} needs {package}, which is not installed: pip install 'jgd[{extra}]'.") from error
