"""What the docstrings say of each argument of a function: its own, or that of the function that it names for the rest.

A factory describes the arguments that are its own. Of the others it says "Arguments that are not described here are
those of `jgd.adam`.", and the pages of rules, made by `rule_facts.py`, show those too.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any

import jgd

#: The sentence that names one function or two.
OTHERS = re.compile(
    r"Arguments\s+that\s+are\s+not\s+described\s+here\s+are\s+those\s+of\s+((?:`jgd\.\w+`(?:\s+and\s+)?)+)\."
)


def described(function: Callable[..., Any]) -> dict[str, str]:
    """The meaning of each argument that is described, by name, in the order of the signature."""
    meanings = {}
    for source in sources(function):
        meanings = _own(source) | meanings
    return {name: meanings[name] for name in inspect.signature(function).parameters if name in meanings}


def undescribed(function: Callable[..., Any]) -> list[str]:
    """The arguments that neither the function's docstring describes nor one that it names."""
    meanings = described(function)
    return [name for name in inspect.signature(function).parameters if name not in meanings]


def sources(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """The function, those that it names for other arguments, and those that they name; the first meaning counts."""
    sentence = OTHERS.search(inspect.getdoc(function) or "")
    named = re.findall(r"`jgd\.(\w+)`", sentence[1]) if sentence else []
    return [function, *(source for name in named for source in sources(getattr(jgd, name)))]


def _own(function: Callable[..., Any]) -> dict[str, str]:
    section = re.search(r"^Args:\n((?:[ \t]+.*\n|\n)+)", f"{inspect.getdoc(function)}\n", flags=re.MULTILINE)
    entries = re.findall(r"^    \*{0,2}(\w+): (.*(?:\n {5,}.*)*)", section[1] if section else "", flags=re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in entries}
