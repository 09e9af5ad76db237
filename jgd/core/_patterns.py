"""Patterns for the paths of leaves."""

import fnmatch
import re


def path_matches(path: str, pattern: str) -> bool:
    """Whether a path such as `"dense/kernel"` fits a pattern: as in a shell, or `"re:"` and a regular expression.

    Examples:
        >>> from jgd.core import path_matches
        >>> print(path_matches("dense/kernel", "*kernel"), path_matches("dense/kernel", "re:.*/(bias|scale)"))
        True False
    """
    if pattern.startswith("re:"):
        return re.fullmatch(pattern[3:], path) is not None
    return fnmatch.fnmatchcase(path, pattern)
