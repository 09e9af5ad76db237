"""Whether the optimizer that made a state is that of the step: a user passes it twice, and the two should be one.

An optimizer is two functions. What they were made of stands in their closures, and that is what is compared: only where
a state meets a step for the first time, and only where the two are not the same object.
"""

import contextlib
import dataclasses
import functools
import types
import warnings
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import Array, GradientTransformation, PyTree, is_array, is_traced, path_text, transform_text

#: Arrays of more entries are compared by shape and dtype alone.
FEW = 64
#: The results that `jgd.core.Cached` holds so far, and how leaves lie while an update runs: neither changes a result.
IGNORED = ("_results", "layout")


class Difference(NamedTuple):
    """Something that is not the same in two optimizers."""

    name: str
    first: Any
    second: Any
    is_number: bool  # rather than an option or another function

    def __str__(self) -> str:
        return f"{self.name} is {self.first} and {self.second}"


_MADE: dict[int, tuple[Any, Any]] = {}  # by the id of the state's `step`: a weak reference to it, and what made it


def remember(step: Array, optimizer: GradientTransformation) -> None:
    """Notes which optimizer made the state with this very `step`."""
    if not is_traced(step):
        mark = id(step)
        _MADE[mark] = (weakref.ref(step, lambda _, makers=_MADE: makers.pop(mark, None)), optimizer)


def check_same_optimizer(step: Array, optimizer: GradientTransformation) -> None:
    """Refuses a state that another optimizer made; a state of unknown origin passes.

    Args:
        step: The `step` of a state.
        optimizer: That of the step function.

    Raises:
        ValueError: They are different rules, or differ in options or in how they were put together. Where they differ
            in numbers alone, it is a warning.
    """
    reference, maker = _MADE.get(id(step), (None, None))
    if reference is None or maker is optimizer or reference() is not step:
        return
    unequal = differences(maker, optimizer)
    _MADE[id(step)] = (reference, optimizer)  # told once
    if not unequal:
        return
    texts = transform_text(maker), transform_text(optimizer)
    listed = ", ".join(map(str, unequal[:5])) + (", ..." if len(unequal) > 5 else "")
    if not all(difference.is_number for difference in unequal):
        raise ValueError(
            f"this state was made for another optimizer: TrainState.create was given {texts[0]}, make_step {texts[1]}."
            f"{'' if texts[0] != texts[1] else f' They differ in {listed}.'} Give both the same one."
        )
    warnings.warn(
        f"TrainState.create and make_step were given optimizers that differ: {listed}. Numbers that"
        " jgd.get_hyperparams(state.opt_state) lists are taken from the state, all others from the step. Give both the"
        " same optimizer, and change the numbers of a state by jgd.set_hyperparams.",
        UserWarning,
        stacklevel=4,
    )


@contextlib.contextmanager
def explain_foreign_state(optimizer: GradientTransformation, params: PyTree, opt_state: PyTree) -> Iterator[None]:
    """Turns the error of an update into one that says that the state is another optimizer's, where that is the cause.

    Raises:
        ValueError: The update failed, and the state has another structure than `optimizer.init` makes.
    """
    try:
        yield
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        expected = jax.eval_shape(optimizer.init, params)
        if jax.tree.structure(opt_state) == jax.tree.structure(expected):
            raise
        raise ValueError(
            f"make_step: this state's opt_state is another optimizer's than {transform_text(optimizer)}:"
            f" {_first_difference(opt_state, expected)}. Make the state with TrainState.create(params, optimizer) and"
            " the step's own optimizer."
        ) from error


def _first_difference(opt_state: PyTree, expected: PyTree) -> str:
    paths = [
        [path_text(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]] for tree in (opt_state, expected)
    ]
    for mine, others, text in ((paths[1], paths[0], "it lacks"), (paths[0], paths[1], "it has")):
        missing = [path for path in mine if path not in others]
        if missing:
            return f"{text} a leaf at {missing[0]}"
    return "its leaves stand in other containers"


def differences(first: GradientTransformation, second: GradientTransformation) -> list[Difference]:
    """What is not the same in two optimizers; what cannot be compared is left out."""
    by_name: dict[str, Difference] = {}
    _compare("", first, second, set(), by_name)
    return list(by_name.values())


def _compare(name: str, a: Any, b: Any, visited: set[tuple[int, int]], by_name: dict[str, Difference]) -> None:
    if a is b or name in IGNORED or (id(a), id(b)) in visited or is_traced(a) or is_traced(b):
        return
    visited.add((id(a), id(b)))

    def note(is_number: bool, first: Any = a, second: Any = b) -> None:
        by_name.setdefault(name, Difference(name, first, second, is_number))

    a, b = _unwrapped(a), _unwrapped(b)
    if _is_plain(a) or _is_plain(b):
        if not _equal(a, b):
            note(_is_number(a) and _is_number(b), _shown(a), _shown(b))
    elif isinstance(a, types.FunctionType) and isinstance(b, types.FunctionType):
        if _program(a.__code__) != _program(b.__code__):
            note(False, a.__qualname__.partition(".")[0], b.__qualname__.partition(".")[0])
            return
        for inside, x, y in zip(a.__code__.co_freevars, a.__closure__ or (), b.__closure__ or (), strict=True):
            _compare(inside, _content(x), _content(y), visited, by_name)
        _compare(name, a.__defaults__, b.__defaults__, visited, by_name)
        _compare(name, a.__kwdefaults__, b.__kwdefaults__, visited, by_name)
    elif type(a) is not type(b):
        note(False, type(a).__name__, type(b).__name__)
    else:
        mine, others = _parts(name, a), _parts(name, b)
        if [key for key, _ in mine] != [key for key, _ in others]:
            note(False, *(f"{len(parts)} parts" for parts in (mine, others)))
            return
        for (key, x), (_, y) in zip(mine, others, strict=True):
            _compare(key, x, y, visited, by_name)


def _unwrapped(value: Any) -> Any:
    """The function behind wrappers; the parts of a method or a partial."""
    if isinstance(value, types.MethodType):
        return value.__func__, value.__self__
    if isinstance(value, functools.partial):
        return value.func, value.args, value.keywords
    while not isinstance(value, types.FunctionType) and callable(getattr(value, "__wrapped__", None)):
        value = value.__wrapped__
    return getattr(value, "__func__", value)


def _parts(name: str, value: Any) -> list[tuple[str, Any]]:
    """The parts of an object by name; none where they are not known."""
    if isinstance(value, Mapping):
        return [(str(key), value[key]) for key in sorted(value, key=str)]
    if isinstance(value, tuple | list):
        fields = getattr(value, "_fields", None)
        return list(zip(fields or [name] * len(value), value, strict=True))
    if isinstance(value, type):
        return []
    if dataclasses.is_dataclass(value):  # its fields alone: what else it holds was noted while it was used
        return [(field.name.lstrip("_"), getattr(value, field.name)) for field in dataclasses.fields(value)]
    if type(value).__module__.partition(".")[0] in ("jgd", "optax") and hasattr(value, "__dict__"):
        return [(key.lstrip("_"), item) for key, item in vars(value).items() if key not in IGNORED]
    return []


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | bytes | np.dtype) or is_array(value)


def _is_number(value: Any) -> bool:
    return is_array(value) and jnp.issubdtype(jnp.result_type(value), jnp.number)


def _equal(a: Any, b: Any) -> bool:
    if not (is_array(a) and is_array(b)):
        return type(a) is type(b) and bool(a == b)
    if jnp.shape(a) != jnp.shape(b):
        return False
    if np.size(a) > FEW or not (_can_be_read(a) and _can_be_read(b)):
        return jnp.result_type(a) == jnp.result_type(b)
    # 0.1 is the same number in float32 and in float64.
    wide = [np.asarray(x).astype(jnp.promote_types(jnp.result_type(x), jnp.float32)) for x in (a, b)]
    return bool(np.allclose(*wide, rtol=1e-6, atol=0, equal_nan=True))


def _can_be_read(array: Any) -> bool:
    if jnp.issubdtype(jnp.result_type(array), jax.dtypes.extended):  # a key
        return False
    return not isinstance(array, jax.Array) or (array.is_fully_addressable and not array.is_deleted())


def _shown(value: Any) -> str:
    if is_array(value):
        return (
            str(np.asarray(value))
            if np.size(value) == 1 and _can_be_read(value)
            else f"{jnp.result_type(value)}{list(jnp.shape(value))}"
        )
    return repr(value) if _is_plain(value) else f"a {type(value).__name__}"


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _program(code: types.CodeType) -> tuple[Any, ...]:
    """A function's program, wherever it was defined: a lambda written twice is the same."""
    consts = tuple(_program(item) if isinstance(item, types.CodeType) else repr(item) for item in code.co_consts)
    return code.co_code, code.co_names, code.co_freevars, consts
