"""The door of the factories: each argument is looked at before it is used, and must be of the kind it is annotated as.

Traced values pass: under `optax.inject_hyperparams` all numbers are. Those that must be known, factories ask for by
`jgd.core.fixed`; switches are asked for here.
"""

import functools
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.typing import ArrayLike

from jgd.core import Optimizer, check_hyperparam, check_kind, fixed, is_traced
from jgd.core._fixed import called_by_injection

# Numbers that slots start from, and that are no hyperparameters afterwards.
_STARTS = ("initial_accumulator_value", "initial_scale", "estim_lr0", "init_estim_sq_dist", "precond_init_scale")


def behind_doors(functions: Mapping[str, Any]) -> dict[str, Callable[..., Optimizer]]:
    """The factories among some functions, each with a door; it takes their place in their modules too."""
    found = {name: _door(make) for name, make in functions.items() if _is_factory(make)}
    for make in found.values():
        setattr(sys.modules[make.__module__], make.__name__, make)  # where pickle looks for it
    return found


def _is_factory(make: Any) -> bool:
    return isinstance(make, types.FunctionType) and inspect.signature(make).return_annotation is Optimizer


def _door(factory: Callable[..., Optimizer]) -> Callable[..., Optimizer]:
    parameters, owner = inspect.signature(factory).parameters, factory.__name__

    @functools.wraps(factory)
    def call(*args: Any, **kwargs: Any) -> Optimizer:
        for name, value in (dict(zip(parameters, args, strict=False)) | kwargs).items():
            if name not in parameters or value is parameters[name].default or parameters[name].annotation == ArrayLike:
                continue
            if name in _STARTS:
                check_hyperparam(owner, name, value, changes=False)
            elif not (isinstance(value, jax.Array) and (is_traced(value) or called_by_injection())):
                check_kind(owner, name, value, parameters[name].annotation)
            elif parameters[name].annotation is bool:
                fixed(owner, name, value)
        return factory(*args, **kwargs)

    return call
