"""Which arguments of a factory are data, and which are not."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import check_hyperparam, meaning


def bind(name: str, factory: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by name, with defaults and with those that go through `**kwargs`."""
    signature = inspect.signature(factory)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name}: {error}; its arguments are {', '.join(signature.parameters)}.") from None
    bound.apply_defaults()
    arguments = dict(bound.arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= arguments.pop(parameter.name)
    return arguments


def merged(
    factory: Callable[..., Any], bound: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments with the data put in, as the factory's signature wants them."""
    arguments = dict(bound) | dict(values)
    positional: list[Any] = []
    for parameter in inspect.signature(factory).parameters.values():
        if parameter.kind is parameter.POSITIONAL_ONLY or (
            parameter.kind is parameter.POSITIONAL_OR_KEYWORD and _has_star(factory)
        ):
            positional.append(arguments.pop(parameter.name))
        elif parameter.kind is parameter.VAR_POSITIONAL:
            positional.extend(arguments.pop(parameter.name))
    return positional, arguments


def _has_star(factory: Callable[..., Any]) -> bool:
    return any(
        parameter.kind is parameter.VAR_POSITIONAL for parameter in inspect.signature(factory).parameters.values()
    )


def data_arguments(
    name: str, factory: Callable[..., Any], bound: Mapping[str, Any], static: str | Sequence[str]
) -> dict[str, Any]:
    """Those of the arguments that become data in the state: numbers, scalar arrays, schedules, tuples of floats."""
    if isinstance(static, str):
        static = (static,)
    for key in static:
        if key not in bound:
            raise TypeError(f"{name}: static={key!r} is none of its arguments: {', '.join(bound)}.")
    parameters = inspect.signature(factory).parameters
    candidates = {key: value for key, value in bound.items() if key not in static}
    return {key: value for key, value in candidates.items() if _is_data(name, key, value, parameters.get(key))}


def _is_data(owner: str, name: str, value: Any, parameter: inspect.Parameter | None) -> bool:
    if value is None or isinstance(value, bool | np.bool_ | str | type | np.dtype):
        return False
    if isinstance(value, int | np.integer):
        return not _is_integer_parameter(parameter)
    if isinstance(value, float | np.floating):
        return True
    if isinstance(value, jax.Array | np.ndarray):
        return value.ndim == 0 and bool(jnp.issubdtype(value.dtype, jnp.number))
    if type(value) is tuple:
        return len(value) > 0 and all(isinstance(entry, float) for entry in value)
    if callable(value) and hasattr(value, "init") and hasattr(value, "update"):
        raise TypeError(
            f"{owner}: {name} is a schedule with a state of its own; expected a function of the step count. Use"
            " optax.inject_hyperparams for it."
        )
    return callable(value) and _takes_schedule(parameter) and _is_schedule(value)


def outside_usual_range(name: str, factory: Callable[..., Any], data: Mapping[str, Any]) -> list[str]:
    """Arguments whose own default lies outside the range that their name has in jgd."""
    outside = []
    for key, parameter in inspect.signature(factory).parameters.items():
        if key in data and isinstance(parameter.default, float):
            try:
                check_hyperparam(name, key, parameter.default)
            except ValueError:
                outside.append(key)
    return outside


def _takes_schedule(parameter: inspect.Parameter | None) -> bool:
    """Whether a function given here may be a schedule; by its annotation and default it may be something else."""
    if parameter is None or parameter.annotation is parameter.empty:
        return parameter is None or not callable(parameter.default) or parameter.default is parameter.empty
    annotation = meaning(parameter.annotation)
    if get_origin(annotation) is Callable:
        return False
    kinds = (*get_args(annotation), annotation)
    return any(kind in kinds for kind in (Any, float, jax.Array))


def _is_integer_parameter(parameter: inspect.Parameter | None) -> bool:
    """Whether the factory means an integer: by its default where it has one, else by its annotation."""
    if parameter is None:
        return False
    default = parameter.default
    if default is not parameter.empty and default is not None:
        return isinstance(default, int) and not isinstance(default, bool)
    annotation = meaning(parameter.annotation)
    kinds = set(get_args(annotation)) or {annotation}
    return int in kinds and float not in kinds


def _is_schedule(value: Callable[..., Any]) -> bool:
    """Whether a callable gives a number for a step; masks and the like give trees, truth values, or errors."""
    try:
        result = jax.eval_shape(value, jax.ShapeDtypeStruct((), jnp.int32))
    except Exception:
        return False
    if not isinstance(result, jax.ShapeDtypeStruct) or result.shape:
        return False
    return bool(jnp.issubdtype(result.dtype, jnp.floating) or jnp.issubdtype(result.dtype, jnp.integer))
