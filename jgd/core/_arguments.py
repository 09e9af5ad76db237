"""The door of the public functions: an argument that cannot be what its annotation says is refused in words.

`checked` reads a function's annotations once and looks at what is given: its kind, not its worth. Ranges, shapes and
structures are the function's own affair. What an annotation leaves open (`Any`) passes, and so do defaults; of numbers
that may be schedules `check_hyperparam` has more to say.
"""

import collections.abc
import functools
import inspect
import operator
import pathlib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jgd.core._alias import meaning
from jgd.core._checks import path_text
from jgd.core._types import ArrayLike, ArrayTree, DTypeLike, Reals, Scalar, ScalarOrSchedule, is_array, is_traced
from jgd.core._worth import is_integer

P = ParamSpec("P")
R = TypeVar("R")


class _Kind(NamedTuple):
    """What an annotation allows: whether a value is of the kind, the kind in words, and the error's type."""

    allows: Callable[[Any], bool]
    text: str
    error: type[Exception] = TypeError
    inside: Any = None  # of a container: the kind of its entries


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The function, with a look at each argument before it is called.

    Raises (the function that comes back):
        TypeError: An argument is of another kind than its annotation: `name must be True or False; got 'yes'.`
        ValueError: It is none of the choices of its `Literal`.
    """
    owner = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        signature = signature_of(function)
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return function(*args, **kwargs)  # which says itself what is missing or unknown
        kinds = kinds_of(function)
        for name in given.keys() & kinds.keys():
            if given[name] is not signature.parameters[name].default:
                _refuse(owner, name, kinds[name], given[name])
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
    kind = _kind(annotation)
    if kind is not None:
        _refuse(owner, name, kind, value)


def _refuse(owner: str, name: str, kind: _Kind, value: Any) -> None:
    if kind is _TREE:
        _refuse_leaves(owner, name, value)
    elif not kind.allows(value):
        for key, entry in _entries(kind, value):
            _refuse(owner, f"{name}[{key!r}]", kind.inside, entry)
        raise kind.error(f"{owner}: {name} must be {kind.text}; got {shown(value)}.{_hint(kind, value)}")


def _entries(kind: _Kind, value: Any) -> Iterable[tuple[Any, Any]]:
    """The entries of a container, by key or place, where it is what is in it that must be of a kind."""
    if kind.inside is None or not isinstance(value, Mapping | list | tuple):
        return ()
    return value.items() if isinstance(value, Mapping) else enumerate(value)


def _refuse_leaves(owner: str, name: str, tree: Any) -> None:
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if not _is_array(leaf):
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


def _hint(kind: _Kind, value: Any) -> str:
    if "an optimizer" in kind.text and inspect.isfunction(value) and value.__module__.startswith(("jgd.", "optax.")):
        return f" {value.__name__} makes one: call it, as {value.__name__}(...)."
    if kind.text.removesuffix(" or None") == "an optimizer" and isinstance(value, str) and value.isidentifier():
        return f" Call the factory: jgd.{value}(...)."
    classes = [leaf for leaf in jax.tree.leaves(value) if isinstance(leaf, type)]
    return f" Call it: {classes[0].__name__}()." if classes and "jgd." in kind.text else ""


#: Read at the first call: a package has hundreds of doors, and few are ever used.
signature_of = functools.cache(inspect.signature)


@functools.cache
def kinds_of(owner: Any) -> dict[str, _Kind]:
    """The kinds of a function's arguments, or of a dataclass's fields, that can be judged."""
    named = inspect.get_annotations(owner)
    if any(isinstance(annotation, str) for annotation in named.values()):
        named = {name: _evaluated(owner, annotation) for name, annotation in named.items()}
    if not isinstance(owner, type):
        open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        named = {p.name: named.get(p.name, Any) for p in signature_of(owner).parameters.values()
                 if p.kind not in open_ended}  # fmt: skip
    kinds = {name: _kind(annotation) for name, annotation in named.items()}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def _evaluated(owner: Any, annotation: Any) -> Any:
    try:
        return eval(annotation, inspect.getmodule(owner).__dict__) if isinstance(annotation, str) else annotation
    except NameError:  # known to type checkers alone
        return Any


def _kind(annotation: Any) -> _Kind | None:
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
        return _either(arguments)
    if origin is not None:
        return _container(origin, arguments)
    if isinstance(annotation, type) and _can_be_asked(annotation):
        return _Kind(lambda value: isinstance(value, annotation), f"a {_public_name(annotation)}")
    return None


def _choice(choices: tuple[Any, ...]) -> _Kind:
    def allows(value: Any) -> bool:
        return any(type(value) is type(choice) and value == choice for choice in choices)

    text = ", ".join(map(repr, choices))
    return _Kind(allows, f"one of {text}" if len(choices) > 1 else text, ValueError)


def _either(alternatives: tuple[Any, ...]) -> _Kind | None:
    kinds = [_kind(alternative) for alternative in alternatives]
    known = [kind for kind in kinds if kind is not None]
    if len(known) < len(kinds):
        return None
    texts = list(dict.fromkeys(kind.text for kind in known))
    error = ValueError if any(kind.error is ValueError for kind in known) else TypeError
    return _Kind(lambda value: any(kind.allows(value) for kind in known), " or ".join(texts), error)


def _container(origin: Any, arguments: tuple[Any, ...]) -> _Kind | None:
    if origin is collections.abc.Callable:
        return _PLAIN[Callable]
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return _pair(arguments)
    if not (isinstance(origin, type) and origin in _CONTAINERS):
        return None
    text, allows = _CONTAINERS[origin]
    inside = _kind(arguments[-1] if origin is not tuple else arguments[0]) if arguments else None
    if inside is None:
        return _Kind(allows, text)

    def all_inside(value: Any) -> bool:
        return allows(value) and all(map(inside.allows, value.values() if isinstance(value, Mapping) else value))

    return _Kind(all_inside, f"{text} whose entries are each {inside.text}", inside=inside)


def _pair(arguments: tuple[Any, ...]) -> _Kind:
    kinds = [_kind(argument) for argument in arguments]

    def allows(value: Any) -> bool:
        return (
            isinstance(value, tuple | list)
            and len(value) == len(kinds)
            and all(kind is None or kind.allows(part) for kind, part in zip(kinds, value, strict=True))
        )

    parts = ", ".join("any value" if kind is None else kind.text for kind in kinds)
    return _Kind(allows, f"a tuple of {len(kinds)}: ({parts})")


def _can_be_asked(annotation: type) -> bool:
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
        _is_array(value) and np.shape(value) == () and not jnp.issubdtype(jnp.result_type(value), jnp.complexfloating)
    )


def _is_array(value: Any) -> bool:
    if isinstance(value, int):
        return abs(value) <= jnp.iinfo(jnp.result_type(int)).max
    return is_array(value) or isinstance(value, jax.ShapeDtypeStruct)  # a leaf under `jax.eval_shape`


def _is_real(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) > 0 and all(map(_is_real, value))
    kinds = (jnp.integer, jnp.floating, jnp.bool_)
    return _is_array(value) and any(jnp.issubdtype(jnp.result_type(value), kind) for kind in kinds)


def _is_dtype(value: Any) -> bool:
    try:
        return value is not None and jnp.dtype(value).kind in "biufcV"
    except (TypeError, ValueError):
        return False


def _is_optimizer(value: Any) -> bool:
    # No tuple needed: optax's MultiSteps is none.
    return not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in ("init", "update"))


def _is_function(value: Any) -> bool:
    return callable(value) and not isinstance(value, type) and not _is_optimizer(value)


def _is_sequence(value: Any) -> bool:
    unordered = str | bytes | dict | set | frozenset
    return hasattr(value, "__iter__") and hasattr(value, "__len__") and not isinstance(value, unordered | type)


def _is_iterable(value: Any) -> bool:
    return hasattr(value, "__iter__") and not isinstance(value, str | bytes | type)


_TREE = _Kind(lambda value: all(map(_is_array, jax.tree.leaves(value))), "a tree of arrays")

_PLAIN: dict[Any, _Kind] = {
    ArrayTree: _TREE,
    Scalar: _Kind(_is_number, "a number"),
    ScalarOrSchedule: _Kind(
        lambda value: value is not None and not isinstance(value, type), "a number, a scalar array or a schedule"
    ),
    Reals: _Kind(_is_real, "real numbers"),
    None: _Kind(lambda value: value is None, "None"),
    types.NoneType: _Kind(lambda value: value is None, "None"),
    bool: _Kind(lambda value: isinstance(value, bool | np.bool_), "True or False"),
    int: _Kind(_is_integer, "an integer"),
    float: _Kind(_is_number, "a number"),
    str: _Kind(lambda value: isinstance(value, str), "a string"),
    pathlib.Path: _Kind(lambda value: isinstance(value, pathlib.PurePath), "a path"),
    jax.Array: _Kind(_is_array, "an array"),
    ArrayLike: _Kind(_is_array, "an array"),
    DTypeLike: _Kind(_is_dtype, "a dtype"),
    Callable: _Kind(_is_function, "a function"),
    optax.GradientTransformation: _Kind(_is_optimizer, "an optimizer"),
    tuple: _Kind(lambda value: isinstance(value, tuple), "a tuple"),
}

_CONTAINERS: dict[type, tuple[str, Callable[[Any], bool]]] = {
    collections.abc.Mapping: ("a dict", lambda value: isinstance(value, collections.abc.Mapping)),
    dict: ("a dict", lambda value: isinstance(value, dict)),
    collections.abc.Sequence: ("a sequence", _is_sequence),
    collections.abc.Iterable: ("an iterable", _is_iterable),
    tuple: ("a tuple", lambda value: isinstance(value, tuple)),
}
