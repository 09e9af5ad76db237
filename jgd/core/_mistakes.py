"""What a rule's author may get wrong, in words: which rule, which leaf and slot, what was found, what was expected.

All of it is seen while a step is traced, from shapes, dtypes and structures: none of it is in the compiled program.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jgd.core._arguments import shown
from jgd.core._checks import path_text
from jgd.core._types import PyTree, is_array, is_traced

_VALUE_NEEDED = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
_TRACED = (
    "asks Python for the value of an array (an `if`, `float()`, a NumPy function, an index by a mask), which is known"
    " only when the compiled program runs; expected jax.numpy, and jnp.where in the place of `if`"
)


class MistakeError(Exception):
    """Something wrong in a rule, said before it is known where.

    Attributes:
        error: The type of the error to raise.
        text: What was found and expected; the rest of a sentence that begins with the function it is about.
        leaf: Which of all leaves it is about, for rules that see them all.
    """

    def __init__(self, error: type[Exception], text: str, leaf: int | None = None):
        super().__init__(text)
        self.error, self.text, self.leaf = error, text, leaf


class MissingNameError(KeyError, ValueError):
    """A name that a rule reads and nobody gave it; a `KeyError` in plain words."""

    def __str__(self) -> str:
        return str(self.args[0])


@contextlib.contextmanager
def key_errors_explained(hyper: Mapping[str, Any], slots: Mapping[str, Any]) -> Iterator[None]:
    """Says what there is where a rule looks up a name that is not.

    Raises:
        MistakeError: What was a `KeyError`.
    """
    try:
        yield
    except KeyError as error:
        numbers = ", ".join(repr(key) for key in hyper if not key.startswith("1-")) or "none"
        text = f"looks up {error}, which there is not. Hyperparameters: {numbers}; slots: {_listed(slots)}"
        raise MistakeError(MissingNameError, text) from error


@contextlib.contextmanager
def errors_at(owner: str, function: str, paths: Sequence[Any] = ()) -> Iterator[None]:
    """Says where a mistake is: in which function of which rule, at which leaves. Errors of other kinds get a note.

    Raises:
        TypeError, ValueError: What was a `MistakeError`.
    """
    try:
        yield
    except Exception as error:
        if str(error).startswith(f"{owner}:"):  # told already, of a function inside of this one
            raise
        leaf = getattr(error, "leaf", None)
        where = f"{owner}:{_places(paths if leaf is None else [paths[leaf]])} {function}"
        if isinstance(error, MistakeError):
            raise error.error(f"{where} {error.text}.") from error.__cause__
        if isinstance(error, _VALUE_NEEDED):
            raise TypeError(f"{where} {_TRACED}.") from error
        error.add_note(f"{where} raised this {type(error).__name__}.")
        raise


def _places(paths: Sequence[Any]) -> str:
    if not paths:
        return ""
    first = ", ".join(path_text(path) for path in paths[:3])
    return f" at {first}{f' and {len(paths) - 3} leaves more' if len(paths) > 3 else ''}"


def check_prepared(hyper: Any) -> dict[str, Any]:
    """What `prepare` returned, as a plain dict.

    Raises:
        MistakeError: It is not a dict of arrays.
    """
    if not isinstance(hyper, Mapping):
        raise MistakeError(
            TypeError, f"returned {in_words(hyper)}; expected the hyperparameters, such as hyper | {{...}}"
        )
    for name, value in hyper.items():
        if not all(map(is_array, jax.tree.leaves(value))) or value is None:
            raise MistakeError(TypeError, f"returned {in_words(value)} as {name!r}; expected an array or a number")
    return dict(hyper)


def check_returned(
    returned: Any, grad: Any, old_slots: Mapping[str, Any], *, result: str = "delta", every_slot: bool = True
) -> tuple[Any, Mapping[str, Any]]:
    """What the formula of one leaf returned: a delta like the gradient, and the slots that it was given.

    `result` is how messages call the delta. Where it need not return `every_slot`, those that it left out are left out.

    Raises:
        MistakeError: It is not.
    """
    delta, slots = _delta_and_slots(returned, result)
    expected = old_slots if every_slot else {name: value for name, value in old_slots.items() if name in slots}
    check_names(slots, expected, declared=old_slots)
    for name, value in expected.items():
        check_like(f"the slot {name!r}", slots[name], value)
    return check_delta(delta, grad, what=f"the {result}"), slots


def check_all_returned(
    returned: Any, grads: Sequence[Any], old_slots: Mapping[str, Any], scalars: Sequence[str]
) -> tuple[Any, Mapping[str, Any]]:
    """As `check_returned`, for rules that see all leaves: lists of deltas and of slots, and single arrays (`scalars`).

    Raises:
        MistakeError: It is not.
    """
    deltas, slots = _delta_and_slots(returned, "deltas")
    check_names(slots, old_slots)
    _check_list("deltas", deltas, len(grads))
    for name, value in old_slots.items():
        if name in scalars:
            check_like(f"the slot {name!r}", slots[name], value)
            continue
        _check_list(f"the slot {name!r}", slots[name], len(grads))
        for i, (new, old) in enumerate(zip(slots[name], value, strict=True)):
            check_like(f"the slot {name!r}", new, old, i)
    return [check_delta(delta, grad, i) for i, (delta, grad) in enumerate(zip(deltas, grads, strict=True))], slots


def _delta_and_slots(returned: Any, delta: str) -> tuple[Any, Any]:
    if not (isinstance(returned, tuple | list) and len(returned) == 2):
        raise MistakeError(
            TypeError, f"returned {in_words(returned)}; expected two values, ({delta}, slots), slots as a dict"
        )
    if not isinstance(returned[1], Mapping):
        turned = f". They may be the other way round: return {delta}, slots" if isinstance(returned[0], Mapping) else ""
        empty = " ({} where there are none)" if returned[1] is None else ""
        raise MistakeError(TypeError, f"returned {in_words(returned[1])} as slots; expected a dict{empty}{turned}")
    return returned[0], returned[1]


def _check_list(what: str, values: Any, length: int) -> None:
    if not isinstance(values, list | tuple) or len(values) != length:
        raise MistakeError(
            ValueError, f"returned {in_words(values)} as {what}; expected a list, one for each of {length} leaves"
        )


def check_names(
    slots: Mapping[str, Any], expected: Mapping[str, Any], declared: Mapping[str, Any] | None = None
) -> None:
    """Refuses other slots than those expected; messages list those `declared`, where these are more.

    Raises:
        MistakeError: One is missing, or one too many.
    """
    advice = f"expected those that the rule declares: {_listed(expected if declared is None else declared)}"
    for name in expected:
        if name not in slots:
            raise MistakeError(ValueError, f"returned no slot {name!r}; {advice}")
    for name in slots:
        if name not in expected:
            raise MistakeError(ValueError, f"returned a slot {name!r}; {advice}")


def check_delta(delta: Any, grad: Any, leaf: int | None = None, what: str = "the delta") -> Any:
    """The delta as an array.

    Raises:
        MistakeError: It is not an array, or of another shape or dtype than the gradient.
    """
    check_like(what, delta, grad, leaf)
    return delta if isinstance(delta, jax.Array) else jnp.asarray(delta, grad.dtype)


def check_like(what: str, new: Any, old: PyTree, leaf: int | None = None) -> None:
    """Refuses a tree whose arrays have not the shapes and dtypes of another.

    Raises:
        MistakeError: There is one; what is weakly typed takes any dtype of its kind.
    """
    if jax.tree.structure(new) != jax.tree.structure(old):
        raise MistakeError(TypeError, f"returned {in_words(new)} as {what}; expected {in_words(old)}", leaf)
    for (path, value), like in zip(jax.tree_util.tree_flatten_with_path(new)[0], jax.tree.leaves(old), strict=True):
        part = f"{what}{jax.tree_util.keystr(path)}"
        if not is_array(value):
            raise MistakeError(TypeError, f"returned {in_words(value)} as {part}; expected an array", leaf)
        if jnp.shape(value) != like.shape:
            raise MistakeError(
                ValueError, f"returned {part} with shape {jnp.shape(value)}; expected {like.shape}", leaf
            )
        if not _has_dtype(value, like.dtype, leaf is not None):
            dtype = jnp.result_type(value)
            raise MistakeError(TypeError, f"returned {part} with dtype {dtype}; expected {like.dtype}", leaf)


def _has_dtype(value: Any, dtype: Any, among_all: bool) -> bool:
    """Whether a value has the dtype; or is weakly typed, or one of all leaves and wider: they share numbers."""
    actual = jnp.result_type(value)
    weak = not hasattr(value, "dtype") or getattr(value, "weak_type", False)
    wider = among_all and jnp.promote_types(actual, dtype) == actual
    return actual == dtype or ((weak or wider) and _number_class(actual) == _number_class(dtype))


def _number_class(dtype: Any) -> Any:
    return next((kind for kind in (jnp.complexfloating, jnp.floating) if jnp.issubdtype(dtype, kind)), None)


def first_value(make: Callable[[Any], Any], param: jax.Array, elementwise: bool) -> PyTree:
    """What a slot starts as.

    Args:
        make: The function that the rule declares for it.
        param: The leaf in its compute dtype.
        elementwise: Whether the rule sees each entry alone.

    Raises:
        MistakeError: It is neither an array nor a tree of arrays with the dtype that a rule is given; or it has another
            shape than the leaf, and the rule is elementwise.
    """
    value = make(param)
    if value is None:
        raise MistakeError(TypeError, f"starts as {in_words(value)}; expected an array, such as jnp.zeros_like(param)")
    wide = (param.dtype, jnp.finfo(param.dtype).dtype)
    for path, leaf in jax.tree_util.tree_flatten_with_path(value)[0]:
        part = f"{jax.tree_util.keystr(path)} " if path else ""
        if not isinstance(leaf, jax.Array):
            actual = in_words(leaf)
            raise MistakeError(
                TypeError, f"{part}starts as {actual}; expected an array of JAX, such as jnp.zeros_like(param)"
            )
        if jnp.issubdtype(leaf.dtype, jnp.inexact) and leaf.dtype not in wide:
            raise MistakeError(
                TypeError,
                f"{part}starts with dtype {leaf.dtype}; expected {' or '.join(map(str, dict.fromkeys(wide)))}. How"
                " it is stored is for state_dtype to say",
            )
        if elementwise and leaf.shape != param.shape:
            raise MistakeError(
                ValueError,
                f"{part}starts with shape {leaf.shape}; expected the leaf's, {param.shape}, since the rule says that it"
                " is elementwise. A rule that looks at whole leaves says kind='leaf'",
            )
    if not is_traced(param):  # nothing may hang on what the leaf holds, or `init` fails under `jit` alone
        jax.eval_shape(make, jax.ShapeDtypeStruct(param.shape, param.dtype))
    return value


def first_of_tree(make: Callable[[list[Any]], Any], params: list[jax.Array]) -> jax.Array:
    """What a slot of the whole tree starts as.

    Raises:
        MistakeError: It is neither an array nor a number.
    """
    value = make(params)
    if not is_array(value):
        raise MistakeError(TypeError, f"starts as {in_words(value)}; expected one array, such as jnp.zeros(())")
    return jnp.asarray(value)


def in_words(value: Any) -> str:
    """A returned value, in words."""
    if isinstance(value, jax.Array):
        return f"an array of shape {value.shape}"
    if isinstance(value, Mapping):
        return f"a dict with the keys {', '.join(map(repr, value)) or 'none'}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return shown(value)


def _listed(slots: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, slots)) or "none"
