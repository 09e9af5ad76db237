"""Types that `help` and `inspect.signature` show by their names."""

import inspect
from collections.abc import MutableMapping
from typing import Any, Union


class Alias:
    """A type under its own name. It equals what it stands for, so that tools that compare annotations find that.

    Attributes:
        __name__: Its name, which is all that is printed of it.
        __value__: What it stands for, as `typing.TypeAliasType` calls it.
    """

    def __init__(self, name: str, value: Any) -> None:
        self.__name__, self.__value__ = name, meaning(value)

    def __repr__(self) -> str:
        return self.__name__

    def __eq__(self, other: object) -> bool:
        return self.__value__ == meaning(other)

    def __hash__(self) -> int:
        return hash(self.__value__)

    def __or__(self, other: Any) -> "Alias":
        return Alias(f"{self} | {_text(other)}", Union[self.__value__, meaning(other)])  # noqa: UP007

    def __ror__(self, other: Any) -> "Alias":
        return Alias(f"{_text(other)} | {self}", Union[meaning(other), self.__value__])  # noqa: UP007


def meaning(annotation: Any) -> Any:
    """What an annotation stands for: itself, unless it is an alias."""
    return annotation.__value__ if isinstance(annotation, Alias) else annotation


def show_by_name(module: MutableMapping[str, Any], *names: str) -> None:
    """Makes types of a module, given as its `globals()`, print as their names. Type checkers see them as written."""
    module.update({name: Alias(name, module[name]) for name in names})


def _text(annotation: Any) -> str:
    return "None" if annotation is None else inspect.formatannotation(annotation)
