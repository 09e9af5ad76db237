"""What the checks share: the optimizer under test, params and gradients to feed it, comparisons that name the leaf."""

import contextlib
import functools
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jgd.core import GradientTransformation, Optimizer, PyTree, apply_updates, check_kind, path_text

#: What `update` needs beside gradients, state and params: a dict, or a function of params and gradients that makes it.
Extra = Mapping[str, Any] | Callable[[PyTree, PyTree], Mapping[str, Any]] | None

LOW_PRECISION = ("bfloat16", "float16")

_TINY = float(np.finfo(np.float32).tiny)  # below it one program keeps a number and another flushes it to zero

P = ParamSpec("P")
T = TypeVar("T")


class OptimizerCheckError(AssertionError):
    """An optimizer breaks a promise; the message names the check, the leaf's path and the numbers.

    Attributes:
        failures: Name of the check to its message, for every check that failed.
    """

    def __init__(self, message: str, failures: Mapping[str, str] | None = None):
        super().__init__(message)
        self.failures = dict(failures or {})


class Subject(optax.GradientTransformationExtraArgs):
    """The optimizer under test, with the extra arguments bound and its step compiled once for all checks.

    Attributes:
        params: What the checks start from.
        of_jgd: Whether it is an optimizer of jgd's, which refuses packed params where they would change its numbers.
        is_default: Whether nobody gave the params.
        plain_step: `(grads, state, params) -> (updates, state, params)`.
        step: The same under `jax.jit`.
    """

    params: PyTree
    of_jgd: bool
    is_default: bool
    plain_step: Callable[..., Any]
    step: Callable[..., Any]


def as_subject(optimizer: Any, params: PyTree = None, extra: Extra = None) -> Subject:
    """The optimizer as a subject; one that is a subject already stays as it is, with all that is compiled for it."""
    if isinstance(optimizer, Subject):
        return optimizer
    if isinstance(optimizer, optax.MultiSteps):  # no transform itself, though it has both functions
        optimizer = optimizer.gradient_transformation()
    check_kind("check_optimizer", "optimizer", optimizer, GradientTransformation)
    full = optax.with_extra_args_support(optimizer)

    def update(updates: PyTree, state: PyTree, params: PyTree = None, **_: Any) -> tuple[PyTree, PyTree]:
        more = extra(params, updates) if callable(extra) else extra or {}
        return full.update(updates, state, params, **more)

    def step(grads: PyTree, state: PyTree, params: PyTree) -> tuple[PyTree, PyTree, PyTree]:
        updates, state = update(grads, state, params)
        return updates, state, apply_updates(params, updates)

    subject = Subject(optimizer.init, update)
    subject.params = default_params() if params is None else jax.tree.map(jnp.asarray, params)
    subject.of_jgd, subject.is_default = isinstance(optimizer, Optimizer), params is None
    subject.plain_step, subject.step = step, jax.jit(step)
    return subject


def check(function: Callable[P, T]) -> Callable[P, T]:
    """Puts the check's name before what it finds; whatever else the optimizer raises becomes a finding as well."""

    @functools.wraps(function)
    def named(*args: P.args, **kwargs: P.kwargs) -> T:
        name = function.__name__
        try:
            with during("the optimizer"):
                return function(*args, **kwargs)
        except OptimizerCheckError as error:
            raise OptimizerCheckError(f"{name}: {error}", {name: str(error)}) from error.__cause__

    return named


@contextlib.contextmanager
def during(what: str) -> Iterator[None]:
    """Turns any error into an `OptimizerCheckError` that says what was going on."""
    try:
        yield
    except OptimizerCheckError:
        raise
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [""])[0]
        text = textwrap.shorten(first_line, 200, placeholder=" ...")
        notes = "".join(f" {note}" for note in getattr(error, "__notes__", []) if not note.startswith("---"))
        raise OptimizerCheckError(f"{what} raised {type(error).__name__}: {text}{notes}") from error


def default_params() -> PyTree:
    """A matrix, a vector, a scalar and a stack of matrices: the smallest tree on which the layouts differ."""
    random = np.random.RandomState(0)
    shapes = {"matrix": (4, 3), "scalar": (), "stack": (2, 2, 3), "vector": (3,)}
    return {name: jnp.asarray(np.asarray(random.normal(size=shape)), float) for name, shape in shapes.items()}


def gradients(params: PyTree, seed: int) -> PyTree:
    """Normal random numbers in the shapes and dtypes of the params; for integers what `jax.grad` gives."""
    random = np.random.RandomState(100 + seed)  # other numbers than the default params

    def draw(param: Any) -> Any:
        if not jnp.issubdtype(jnp.result_type(param), jnp.inexact):
            return np.zeros(jnp.shape(param), jax.dtypes.float0)
        grad = np.asarray(random.normal(size=jnp.shape(param)))
        if jnp.iscomplexobj(param):
            grad = grad + 1j * random.normal(size=jnp.shape(param))
        return jnp.asarray(grad, jnp.result_type(param))

    return jax.tree.map(draw, params)


def cast(tree: PyTree, dtype: Any) -> PyTree:
    """The tree with its real float leaves in another dtype."""

    def change(leaf: Any) -> Any:
        is_float = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        return jnp.asarray(leaf, dtype) if is_float else leaf

    return jax.tree.map(change, tree)


def scaled(tree: PyTree, factor: float) -> PyTree:
    """The tree with its float and complex leaves times a number."""

    def scale(leaf: Any) -> Any:
        is_number = jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
        return leaf * jnp.asarray(factor, leaf.dtype) if is_number else leaf

    return jax.tree.map(scale, tree)


def quadratic(params: PyTree) -> jax.Array:
    """Half the sum of the squares of all params: the loss that `check_descends` descends on; its gradient is `params`.

    Args:
        params: A tree of arrays; integer leaves are left out.

    Returns:
        A scalar, for optimizers whose update reads the loss: see `extra` of `jgd.testing.check_optimizer`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.testing import quadratic
        >>> print(quadratic({"w": jnp.array([3.0, 4.0])}))
        12.5
    """
    leaves = [leaf for leaf in jax.tree.leaves(params) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
    wide = [jnp.asarray(leaf, jnp.promote_types(jnp.result_type(leaf), jnp.float32)) for leaf in leaves]
    return 0.5 * sum((jnp.sum(jnp.abs(leaf) ** 2) for leaf in wide), jnp.zeros(()))


def by_path(tree: PyTree) -> dict[str, Any]:
    """The leaves by their paths."""
    return {path_text(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def at(path: str, index: Any = ()) -> str:
    """A place in a tree, for a message: a leaf's path, and the entry in it."""
    entry = str(list(map(int, index))) if len(index) else ""
    place = ("" if path == path_text(()) else path) + entry
    return f" at {place}" if place else ""


def numbers(leaf: Any) -> np.ndarray:
    """A leaf on the host, wide enough to compare; a random key as the integers that it stands for."""
    if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    if array.dtype == jax.dtypes.float0:
        return np.zeros(array.shape)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def type_of(leaf: Any) -> Any:
    """The leaf as JAX sees it: shape, dtype and weak type."""
    aval = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)


def types_of(tree: PyTree) -> PyTree:
    """Every leaf's `type_of`."""
    return jax.tree.map(type_of, tree)


def _type_text(aval: Any) -> str:
    return f"{'weakly typed ' if aval.weak_type else ''}{aval.dtype}{list(aval.shape)}"


def assert_same_structure(what: str, actual: PyTree, expected: PyTree) -> None:
    """Raises where the trees differ, and names the first leaf that only one of them has."""
    try:
        chex.assert_trees_all_equal_structs(actual, expected)
    except AssertionError:
        actual_leaves, expected_leaves = by_path(actual), by_path(expected)
        missing = [path for path in expected_leaves if path not in actual_leaves]
        extra = [path for path in actual_leaves if path not in expected_leaves]
        detail = f"no leaf at {missing[0]}" if missing else f"a leaf too many at {extra[0]}" if extra else ""
        detail = detail or f"{jax.tree.structure(actual)} instead of {jax.tree.structure(expected)}"
        raise OptimizerCheckError(f"{what} has another structure: {detail}.") from None


def assert_same_types(what: str, actual: PyTree, expected: PyTree, *, weak: bool = True) -> None:
    """Raises where structure, shapes, dtypes or (with `weak`) weak types differ."""
    assert_same_structure(what, actual, expected)
    pairs = zip(by_path(types_of(actual)).items(), jax.tree.leaves(types_of(expected)), strict=True)
    for (path, new), old in pairs:
        same = (new.shape, new.dtype) == (old.shape, old.dtype)
        if not same or (weak and new.weak_type != old.weak_type):
            raise OptimizerCheckError(f"{what}{at(path)} is {_type_text(new)}; expected {_type_text(old)}.")


def assert_close(what: str, actual: PyTree, expected: PyTree, rtol: float, than: str, params: PyTree = None) -> None:
    """Raises where numbers differ by more than `rtol` times the largest entry of their leaf; `than` tells them apart.

    Entries that are not finite must be the same on both sides. Updates come with their `params`: where an update is a
    difference of two points, it has the rounding error of the params.
    """
    assert_same_structure(what, actual, expected)
    beside = jax.tree.leaves(expected if params is None else params)
    for (path, left), right, param in zip(by_path(actual).items(), jax.tree.leaves(expected), beside, strict=True):
        left, right = numbers(left), numbers(right)
        rounding = 0.0 if params is None else 1e-6 * np.max(np.abs(numbers(param)), initial=0.0)
        if left.shape != right.shape:
            raise OptimizerCheckError(f"{what}{at(path)} has shape {left.shape}, {right.shape} {than}.")
        largest = np.max(np.abs(right), initial=0.0, where=np.isfinite(right))
        try:
            chex.assert_trees_all_close(left, right, rtol=0.0, atol=rtol * largest + rounding + _TINY)
        except AssertionError:
            with np.errstate(invalid="ignore"):
                difference = np.abs(left - right)
            worst = np.unravel_index(np.argmax(np.where(np.isnan(difference), np.inf, difference)), left.shape)
            raise OptimizerCheckError(
                f"{what}{at(path, worst)} is {left[worst]:.7g}, {right[worst]:.7g} {than};"
                f" they may differ by {rtol:g} of the leaf's largest entry, {largest:.3g}."
            ) from None


def assert_finite(what: str, tree: PyTree, before: PyTree = None, *, infinite: bool = False) -> None:
    """Raises where a number is not finite; with `infinite`, where it is NaN.

    Entries that were not finite `before` are let pass: a best loss starts at infinity.
    """
    is_nonfinite = np.isnan if infinite else lambda array: ~np.isfinite(array)
    leaves = jax.tree.leaves(tree)
    earlier = leaves if before is None else jax.tree.leaves(before)
    for path, leaf, old in zip(by_path(tree), leaves, earlier, strict=True):
        actual = numbers(leaf)
        wrong = is_nonfinite(actual) if before is None else is_nonfinite(actual) & ~is_nonfinite(numbers(old))
        if np.any(wrong):
            where = np.unravel_index(np.argmax(wrong), actual.shape)
            raise OptimizerCheckError(f"{what}{at(path, where)} is {actual[where]}.")
