"""Kinds of arguments: what an annotation allows, whether a value is of that kind, and how to say it in words."""

import collections.abc
import functools
import inspect
import operator
import pathlib
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core._alias import meaning
from jgd.core._numbers import is_integer
from jgd.core._types import (
    ArrayLike,
    ArrayTree,
    DTypeLike,
    GradientTransformation,
    Reals,
    Scalar,
    ScalarOrSchedule,
    is_array,
    is_traced,
)


class Kind(NamedTuple):
    """What an annotation allows: whether a value is of the kind, the kind in words, and the error's type."""

    allows: Callable[[Any], bool]
    text: str
    error: type[Exception] = TypeError
    inside: Any = None  # of a container: the kind of its entries


#: Read at the first call: a package has hundreds of doors, and few are ever used.
signature_of = functools.cache(inspect.signature)


@functools.cache
def kinds_of(owner: Any) -> dict[str, Kind]:
    """The kinds of a function's arguments, or of a dataclass's fields, that can be judged."""
    named = inspect.get_annotations(owner)
    if any(isinstance(annotation, str) for annotation in named.values()):
        named = {name: _evaluated(owner, annotation) for name, annotation in named.items()}
    if not isinstance(owner, type):
        open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        named = {p.name: named.get(p.name, Any) for p in signature_of(owner).parameters.values()
                 if p.kind not in open_ended}  # fmt: skip
    kinds = {name: kind_of(annotation) for name, annotation in named.items()}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def _evaluated(owner: Any, annotation: Any) -> Any:
    try:
        return eval(annotation, inspect.getmodule(owner).__dict__) if isinstance(annotation, str) else annotation
    except NameError:  # known to type checkers alone
        return Any


def kind_of(annotation: Any) -> Kind | None:
    """None where the annotation leaves it open."""
    annotation = meaning(annotation)
    if annotation is inspect.Parameter.empty or annotation in (Any, jax.typing.ArrayLike):
        return None
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return _choice(arguments)
    if origin in (typing.Union, types.UnionType):
        return _union(arguments)
    if origin is not None:
        return _container(origin, arguments)
    if isinstance(annotation, type) and _is_checkable(annotation):
        return Kind(lambda value: isinstance(value, annotation), f"a {_public_name(annotation)}")
    return None


def _choice(choices: tuple[Any, ...]) -> Kind:
    def allows(value: Any) -> bool:
        return any(type(value) is type(choice) and value == choice for choice in choices)

    text = ", ".join(map(repr, choices))
    return Kind(allows, f"one of {text}" if len(choices) > 1 else text, ValueError)


def _union(alternatives: tuple[Any, ...]) -> Kind | None:
    kinds = [kind_of(alternative) for alternative in alternatives]
    known = [kind for kind in kinds if kind is not None]
    if len(known) < len(kinds):
        return None
    texts = list(dict.fromkeys(kind.text for kind in known))
    error = ValueError if any(kind.error is ValueError for kind in known) else TypeError
    return Kind(lambda value: any(kind.allows(value) for kind in known), " or ".join(texts), error)


def _container(origin: Any, arguments: tuple[Any, ...]) -> Kind | None:
    if origin is collections.abc.Callable:
        return _PLAIN[Callable]
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return _fixed_tuple(arguments)
    if not (isinstance(origin, type) and origin in _CONTAINERS):
        return None
    text, allows = _CONTAINERS[origin]
    inside = kind_of(arguments[-1] if origin is not tuple else arguments[0]) if arguments else None
    if inside is None:
        return Kind(allows, text)

    def all_inside(value: Any) -> bool:
        return allows(value) and all(map(inside.allows, value.values() if isinstance(value, Mapping) else value))

    return Kind(all_inside, f"{text} whose entries are each {inside.text}", inside=inside)


def _fixed_tuple(arguments: tuple[Any, ...]) -> Kind:
    kinds = [kind_of(argument) for argument in arguments]

    def allows(value: Any) -> bool:
        return (
            isinstance(value, tuple | list)
            and len(value) == len(kinds)
            and all(kind is None or kind.allows(part) for kind, part in zip(kinds, value, strict=True))
        )

    parts = ", ".join("any value" if kind is None else kind.text for kind in kinds)
    return Kind(allows, f"a tuple of {len(kinds)}: ({parts})")


def _is_checkable(annotation: type) -> bool:
    return not getattr(annotation, "_is_protocol", False) or getattr(annotation, "_is_runtime_protocol", False)


def _public_name(annotation: type) -> str:
    if annotation.__module__.partition(".")[0] != "jgd":
        return annotation.__name__
    return ("jgd.minimizers." if annotation.__module__.startswith("jgd.minimizers.") else "jgd.") + annotation.__name__


def _is_integer(value: Any) -> bool:
    if is_traced(value):
        return jnp.issubdtype(value.dtype, jnp.integer) and value.ndim == 0
    return is_integer(value) and abs(operator.index(value)) < 2**63


def _is_number(value: Any) -> bool:
    if isinstance(value, bool | str | bytes) or value is None:
        return False
    if isinstance(value, float):
        return True
    return (
        is_array_like(value)
        and np.shape(value) == ()
        and not jnp.issubdtype(jnp.result_type(value), jnp.complexfloating)
    )


def is_array_like(value: Any) -> bool:
    if isinstance(value, int):
        return abs(value) <= jnp.iinfo(jnp.result_type(int)).max
    return is_array(value) or isinstance(value, jax.ShapeDtypeStruct)  # a leaf under `jax.eval_shape`


def _is_real(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) > 0 and all(map(_is_real, value))
    kinds = (jnp.integer, jnp.floating, jnp.bool_)
    return is_array_like(value) and any(jnp.issubdtype(jnp.result_type(value), kind) for kind in kinds)


def _is_dtype(value: Any) -> bool:
    try:
        return value is not None and jnp.dtype(value).kind in "biufcV"
    except (TypeError, ValueError):
        return False


def _is_optimizer(value: Any) -> bool:
    # No tuple needed: optax's MultiSteps is not one.
    return not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in ("init", "update"))


def _is_function(value: Any) -> bool:
    return callable(value) and not isinstance(value, type) and not _is_optimizer(value)


def _is_sequence(value: Any) -> bool:
    unordered = str | bytes | dict | set | frozenset
    return hasattr(value, "__iter__") and hasattr(value, "__len__") and not isinstance(value, unordered | type)


def _is_iterable(value: Any) -> bool:
    return hasattr(value, "__iter__") and not isinstance(value, str | bytes | type)


TREE = Kind(lambda value: all(map(is_array_like, jax.tree.leaves(value))), "a tree of arrays")

OPTIMIZER = Kind(_is_optimizer, "an optimizer")

_PLAIN: dict[Any, Kind] = {
    ArrayTree: TREE,
    Scalar: Kind(_is_number, "a number"),
    ScalarOrSchedule: Kind(
        lambda value: value is not None and not isinstance(value, type), "a number, a scalar array or a schedule"
    ),
    Reals: Kind(_is_real, "real numbers"),
    None: Kind(lambda value: value is None, "None"),
    types.NoneType: Kind(lambda value: value is None, "None"),
    bool: Kind(lambda value: isinstance(value, bool | np.bool_), "True or False"),
    int: Kind(_is_integer, "an integer"),
    float: Kind(_is_number, "a number"),
    str: Kind(lambda value: isinstance(value, str), "a string"),
    pathlib.Path: Kind(lambda value: isinstance(value, pathlib.PurePath), "a path"),
    jax.Array: Kind(is_array_like, "an array"),
    ArrayLike: Kind(is_array_like, "an array"),
    DTypeLike: Kind(_is_dtype, "a dtype"),
    Callable: Kind(_is_function, "a function"),
    GradientTransformation: OPTIMIZER,
    tuple: Kind(lambda value: isinstance(value, tuple), "a tuple"),
}

_CONTAINERS: dict[type, tuple[str, Callable[[Any], bool]]] = {
    collections.abc.Mapping: ("a dict", lambda value: isinstance(value, collections.abc.Mapping)),
    dict: ("a dict", lambda value: isinstance(value, dict)),
    collections.abc.Sequence: ("a sequence", _is_sequence),
    collections.abc.Iterable: ("an iterable", _is_iterable),
    tuple: ("a tuple", lambda value: isinstance(value, tuple)),
}
