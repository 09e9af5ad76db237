"""The doors of a package: each of its public functions looks at its arguments before it uses them.

A package ends with `globals().update(behind_doors(globals()))`, and a function that is added to it has its door.
Doors are for what is called once, before a run; what a step calls has none.
"""

import dataclasses
import functools
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax

from jgd.core._arguments import check_kind, checked
from jgd.core._fixed import called_by_injection, fixed
from jgd.core._kinds import signature_of
from jgd.core._optimizer import Optimizer
from jgd.core._ranges import check_hyperparam
from jgd.core._types import is_traced

# Numbers that slots start from, and that are not hyperparameters afterwards.
_STARTS = ("initial_accumulator_value", "initial_scale", "estim_lr0", "init_estim_sq_dist", "precond_init_scale")


def behind_doors(names: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
    """The public functions of a package, each with a door; it takes their place in their modules too.

    Classes of settings (frozen dataclasses) get one in front of `__init__`, and stay the classes they are.

    Args:
        names: What the package holds. What is another library's, or has a door, is left alone.
    """
    public = {name: value for name, value in names.items() if _is_own(name, value, names["__name__"])}
    for value in public.values():
        if isinstance(value, type) and dataclasses.is_dataclass(value) and "__wrapped__" not in vars(value.__init__):
            value.__init__ = checked(value.__init__)
    functions = {name: value for name, value in public.items() if isinstance(value, types.FunctionType)}
    doors = {name: _door(value) for name, value in functions.items() if not hasattr(value, "__wrapped__")}
    for function in doors.values():
        setattr(sys.modules[function.__module__], function.__name__, function)  # where pickle looks for it
    return doors


def _is_own(name: str, value: Any, package: str) -> bool:
    return not name.startswith("_") and (getattr(value, "__module__", None) or "").startswith(package)


def _door(function: Callable[..., Any]) -> Callable[..., Any]:
    return _factory_door(function) if function.__annotations__.get("return") is Optimizer else checked(function)


def _factory_door(factory: Callable[..., Optimizer]) -> Callable[..., Optimizer]:
    """As `checked`, for numbers that `optax.inject_hyperparams` hands over as arrays, whatever they were before.

    Those that must be known, factories ask for by `jgd.core.fixed`; switches are asked for here.
    """
    owner = factory.__name__

    @functools.wraps(factory)
    def call(*args: Any, **kwargs: Any) -> Optimizer:
        parameters = signature_of(factory).parameters
        for name, value in (dict(zip(parameters, args, strict=False)) | kwargs).items():
            if name not in parameters or value is parameters[name].default:
                continue
            if parameters[name].kind is parameters[name].VAR_POSITIONAL:
                continue
            if name in _STARTS:
                check_hyperparam(owner, name, value, changes=False)
            elif not (isinstance(value, jax.Array) and (is_traced(value) or called_by_injection())):
                check_kind(owner, name, value, parameters[name].annotation)
            elif parameters[name].annotation is bool:
                fixed(owner, name, value)
        return factory(*args, **kwargs)

    return call
