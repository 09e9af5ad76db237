"""The few names for types that the whole library shares."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from jgd.core._alias import show_by_name

Array = jax.Array

#: Any tree of arrays that JAX knows how to flatten: dicts, tuples, dataclasses, Equinox modules, ...
PyTree = Any

#: A tree in which each leaf is an array or a number: the door of a public function refuses another, by its path.
ArrayTree = Annotated[Any, "arrays"]

#: An array, or what JAX makes one of.
ArrayLike = Annotated[jax.typing.ArrayLike, "array"]

#: A real number: Python's, NumPy's, or a scalar array.
Scalar = Annotated[float | jax.Array, "scalar"]

#: What JAX takes for a dtype.
DTypeLike = Annotated[jax.typing.DTypeLike, "dtype"]

#: A dtype of floats. Whoever computes in it says what is wrong with it, not the door of a public function.
FloatDtype = Annotated[jax.typing.DTypeLike, "float dtype"]

#: A number that a state starts from. `check_hyperparam` says what is wrong with it, not the door of a public function.
StartValue = Annotated[jax.typing.ArrayLike, "start"]

#: A key of `jax.random`, or an integer to make one of. `random_key` says what is wrong with it, not the door.
KeyLike = Annotated[jax.Array | int, "key"]

#: A function of the step count, which runs on the device.
Schedule = Callable[[Array], Any]

#: A real number or an array of them.
Reals = Annotated[jax.typing.ArrayLike, "reals"]

#: What follows optax's protocol: a pair of functions, `init` and `update`.
GradientTransformation = optax.GradientTransformation

#: The hyperparameters of one update by name, as arrays. Beside each decay rate, such as `b1`, stands its complement
#: `1-b1`, taken from the number that the factory was given: float32's 1 - 0.999 is off by 1e-5.
Hyper = dict[str, Array]

#: The slots of one leaf by name (`mu`, `nu`, `trace`, ...): arrays, or trees of arrays.
Slots = Mapping[str, Any]

#: A loss: `loss_fn(params, batch[, key])` returns a real scalar, or a tuple that begins with one.
LossFn = Callable[..., Any]

#: A number, a scalar array, or a function from the step count to either. This is optax's own object, since tools
#: (optax's tests among them) find the arguments that take a schedule by this annotation.
ScalarOrSchedule = optax.ScalarOrSchedule

show_by_name(globals(), "PyTree", "ArrayTree", "ArrayLike", "Scalar", "Reals", "DTypeLike", "FloatDtype", "KeyLike")
show_by_name(globals(), "StartValue", "Schedule", "ScalarOrSchedule", "GradientTransformation", "LossFn")


def is_traced(value: Any) -> bool:
    """Whether a value is known only when the compiled program runs."""
    return isinstance(value, Tracer)


def is_array(value: Any) -> bool:
    """Whether JAX takes a value for one array or number: no None, no list, no text, no tensor of another library."""
    if isinstance(value, bool | int | float | complex):
        return True
    if isinstance(value, type) or not (hasattr(value, "dtype") or hasattr(value, "__jax_array__")):
        return False  # JAX takes some types for dtypes
    try:
        jnp.result_type(value)
    except (TypeError, ValueError):
        return False
    return True
