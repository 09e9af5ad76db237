"""The door of the public functions: an argument that cannot be what its annotation says is refused in words.

`checked` reads a function's annotations once and compares the kinds of its arguments with them. Ranges, shapes and
structures are the function's own affair. What an annotation leaves open (`Any`) passes, and so do defaults; numbers
that may be schedules are checked further by `check_hyperparam`.
"""

import functools
import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

from jgd.core._checks import path_text
from jgd.core._kinds import OPTIMIZER, TREE, Kind, is_array_like, kind_of, kinds_of, signature_of

P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The function, with its arguments checked before it is called.

    Raises (the function that comes back):
        TypeError: An argument is of another kind than its annotation: `name must be True or False; got 'yes'.`
        ValueError: It is not among the choices of its `Literal`.
    """
    owner = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        signature = signature_of(function)
        try:
            arguments = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return function(*args, **kwargs)  # which says itself what is missing or unknown
        kinds = kinds_of(function)
        for name in arguments.keys() & kinds.keys():
            if arguments[name] is not signature.parameters[name].default:
                _refuse(owner, name, kinds[name], arguments[name])
        return function(*args, **kwargs)

    return call


def check_fields(value: Any, owner: str | None = None) -> None:
    """Refuses a dataclass with a field of another kind than its annotation; `owner` is its class's name.

    Raises:
        TypeError, ValueError: As for `checked`.
    """
    kinds = kinds_of(type(value))
    for name in kinds:
        _refuse(owner or type(value).__name__, name, kinds[name], getattr(value, name))


def check_kind(owner: str, name: str, value: Any, annotation: Any) -> None:
    """Refuses a value of another kind than an annotation.

    Raises:
        TypeError, ValueError: As for `checked`.
    """
    kind = kind_of(annotation)
    if kind is not None:
        _refuse(owner, name, kind, value)


def _refuse(owner: str, name: str, kind: Kind, value: Any) -> None:
    if kind is TREE:
        _refuse_leaves(owner, name, value)
    elif not kind.allows(value):
        for key, entry in _entries(kind, value):
            _refuse(owner, f"{name}[{key!r}]", kind.inside, entry)
        raise kind.error(f"{owner}: {name} must be {kind.text}; got {shown(value)}.{_hint(kind, value)}")


def _entries(kind: Kind, value: Any) -> Iterable[tuple[Any, Any]]:
    """The entries of a container, by key or place, where it is what is in it that must be of a kind."""
    if kind.inside is None or not isinstance(value, Mapping | list | tuple):
        return ()
    return value.items() if isinstance(value, Mapping) else enumerate(value)


def _refuse_leaves(owner: str, name: str, tree: Any) -> None:
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if not is_array_like(leaf):
            at = f", at {path_text(path)}" if path else ""
            raise TypeError(f"{owner}: {name} must be a tree of arrays; got {shown(leaf)}{at}.")


def shown(value: Any) -> str:
    """A value in an error's words, in one line."""
    if isinstance(value, np.ndarray | jax.Array):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, types.ModuleType):
        return f"the module {value.__name__}"
    if inspect.isroutine(value):
        return f"the function {getattr(value, '__name__', value)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}... of type {type(value).__name__}"


def _hint(kind: Kind, value: Any) -> str:
    if "an optimizer" in kind.text and inspect.isfunction(value) and value.__module__.startswith(("jgd.", "optax.")):
        return f" {value.__name__} makes one: call it, as {value.__name__}(...)."
    if kind is OPTIMIZER and callable(value):
        name = getattr(value, "__name__", "the function")
        return f" If {name} makes one, call it: {name}(...)."
    if kind.text.removesuffix(" or None") == "an optimizer" and isinstance(value, str) and value.isidentifier():
        return f" Call the factory: jgd.{value}(...)."
    classes = [leaf for leaf in jax.tree.leaves(value) if isinstance(leaf, type)]
    return f" Call it: {classes[0].__name__}()." if classes and "jgd." in kind.text else ""
