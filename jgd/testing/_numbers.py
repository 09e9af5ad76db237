"""Checks of arithmetic: gradients of zero, huge gradients, low precision, and whether the loss falls at all."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import GradientTransformation, PyTree
from jgd.testing._subject import (
    LOW_PRECISION,
    Extra,
    OptimizerCheckError,
    as_subject,
    assert_finite,
    at,
    by_path,
    cast,
    check,
    during,
    gradients,
    numbers,
    quadratic,
    scaled,
)


@check
def check_zero_gradients(optimizer: GradientTransformation, *, params: PyTree = None, extra: Extra = None) -> None:
    """Three gradients of zero leave updates and state finite, in float32, bfloat16 and float16.

    An `eps` of 1e-8 is zero in float16, and what it guards against becomes 0/0.

    Args:
        optimizer: Any optax optimizer.
        params: As for `check_optimizer`.
        extra: As for `check_optimizer`.

    Raises:
        OptimizerCheckError: A number is not finite; entries of the state that `init` made infinite are let pass.

    Examples:
        >>> import optax
        >>> from jgd.testing import check_zero_gradients
        >>> check_zero_gradients(optax.sgd(0.1))
    """
    subject = as_subject(optimizer, params, extra)
    for dtype in ("float32", *LOW_PRECISION):
        params = cast(subject.params, dtype)
        with during(f"init or update in {dtype}"):
            state = first = subject.init(params)
            grads = scaled(gradients(params, 0), 0.0)
            for number in range(1, 4):
                updates, state, params = subject.step(grads, state, params)
                assert_finite(f"after zero gradients in {dtype} update {number}", updates)
                assert_finite(f"after zero gradients in {dtype} the state", state, first)


@check
def check_huge_gradients(
    optimizer: GradientTransformation, *, params: PyTree = None, extra: Extra = None, size: float = 1e30
) -> None:
    """One gradient of 1e30 in float32, between ordinary ones, leaves the updates finite, and no NaN in the state.

    Its square is beyond float32, so that a second moment may become infinite; a step divided by it is zero.

    Args:
        optimizer: Any optax optimizer.
        params: As for `check_optimizer`.
        extra: As for `check_optimizer`.
        size: How large the gradient is.

    Raises:
        OptimizerCheckError: An update is not finite, or an entry of the state is NaN.

    Examples:
        >>> import optax
        >>> from jgd.testing import check_huge_gradients
        >>> check_huge_gradients(optax.adam(0.1))
    """
    subject = as_subject(optimizer, params, extra)
    params = cast(subject.params, "float32")
    state = subject.init(params)
    for number, factor in enumerate((1.0, size, 1.0, 1.0), 1):
        # The params stay where they are: what is asked is whether the optimizer bears it, not the model.
        updates, state, _ = subject.step(scaled(gradients(params, number), factor), state, params)
        assert_finite(f"with a gradient of {size:g} as the second of four, update {number}", updates)
        assert_finite(f"with a gradient of {size:g} as the second of four, the state", state, infinite=True)


@check
def check_low_precision(
    optimizer: GradientTransformation,
    *,
    params: PyTree = None,
    extra: Extra = None,
    steps: int = 1500,
    rtol: float = 0.05,
) -> None:
    """In bfloat16 and float16 updates have the dtype of their params, and are close to those of float32.

    The run is long enough for an average of squares kept in bfloat16 to stall: what a step adds, a thousandth of the
    square, is rounded away where the average has grown to some hundreds of times that. An optimizer that adds noise
    draws other numbers in each dtype, and skips this check.

    Args:
        optimizer: Any optax optimizer.
        params: As for `check_optimizer`; they stay fixed, so that nothing but the optimizer's arithmetic is compared.
        extra: As for `check_optimizer`.
        steps: How many updates, along gradients of steady sign.
        rtol: How far the sum of the last four updates may lie from that in float32, relative to its norm, leaf by
            leaf; the same for the first four.

    Raises:
        OptimizerCheckError: An update has a dtype that is neither its param's nor its gradient's, is not finite, or
            lies too far from the one in float32. The message says which leaf of the state is furthest off.

    Examples:
        >>> import jgd
        >>> from jgd.testing import check_low_precision
        >>> check_low_precision(jgd.adam(0.1))
    """
    subject = as_subject(optimizer, params, extra)
    for param_dtype, grad_dtype in (("float32", "float32"), *((low, low) for low in LOW_PRECISION)):
        _check_update_dtypes(subject, param_dtype, {grad_dtype})
    _check_update_dtypes(subject, "bfloat16", {"bfloat16", "float32"}, "float32")
    for dtype in LOW_PRECISION:
        params = cast(subject.params, dtype)
        # The same numbers on both sides, positive and of changing size.
        grads = [jax.tree.map(_positive, gradients(params, seed)) for seed in range(4)]
        with during(f"a run in {dtype}"):
            actual, state = _windows(subject, params, grads, steps)
            wide_grads = [cast(grad, "float32") for grad in grads]
            expected, wide_state = _windows(subject, cast(params, "float32"), wide_grads, steps)
        for which, low, wide in zip(("first", f"last of {steps}"), actual, expected, strict=True):
            what = f"the sum of four updates ({which}) in {dtype}"
            for path, value in low.items():
                if not np.all(np.isfinite(wide[path])):
                    continue  # an estimated step may grow without end on this problem, which has no minimum
                if not np.all(np.isfinite(value)):
                    raise OptimizerCheckError(f"{what}{at(path)} is not finite; it is in float32.")
                error, norm = np.linalg.norm(value - wide[path]), np.linalg.norm(wide[path])
                # Below its smallest numbers a dtype cannot follow.
                smallest = 4 * float(jnp.finfo(dtype).smallest_subnormal) * np.sqrt(np.size(value))
                if error > rtol * norm + smallest:
                    raise OptimizerCheckError(
                        f"{what}{at(path)} has norm {np.linalg.norm(value):.4g}, {norm:.4g} in float32: off by"
                        f" {error / max(norm, 1e-30):.2g}, and {rtol:g} is allowed.{_furthest(state, wide_state, rtol)}"
                    )


def _check_update_dtypes(subject: Any, dtype: str, allowed: set[str], grad_dtype: str | None = None) -> None:
    params = cast(subject.params, dtype)
    grads = cast(gradients(params, 0), grad_dtype or dtype)
    with during(f"init or update of {dtype} params"):
        updates, _ = jax.eval_shape(subject.update, grads, subject.init(params), params)
    for (path, update), param in zip(by_path(updates).items(), jax.tree.leaves(params), strict=True):
        if param.dtype == dtype and str(update.dtype) not in allowed:
            gave = f"{dtype} params and {grad_dtype or dtype} gradients"
            raise OptimizerCheckError(
                f"the update{at(path)} is {update.dtype} for {gave}; expected {' or '.join(sorted(allowed))}."
            )


def _positive(grad: Any) -> Any:
    return grad if grad.dtype == jax.dtypes.float0 else jnp.abs(grad) + jnp.asarray(0.5, grad.dtype)


def _windows(
    subject: Any, params: PyTree, grads: list[PyTree], steps: int
) -> tuple[list[dict[str, np.ndarray]], PyTree]:
    """The sums of the first and of the last updates, one for each gradient in turn, and the last state."""
    state, all_updates, width = subject.init(params), [], len(grads)
    for number in range(steps):
        updates, state, _ = subject.step(grads[number % width], state, params)
        if number < width or number >= steps - width:
            all_updates.append(by_path(updates))
    sums = [
        {path: np.sum([numbers(updates[path]) for updates in part], axis=0) for path in all_updates[0]}
        for part in (all_updates[:width], all_updates[-width:])
    ]
    return sums, state


def _furthest(state: PyTree, wide_state: PyTree, rtol: float) -> str:
    """Which leaf of the state is furthest from its value in float32, where the states can be compared."""
    wide, worst, text = by_path(wide_state), rtol, ""
    for path, leaf in by_path(state).items():
        if path in wide and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            actual, expected = numbers(leaf), numbers(wide[path])
            norm = np.linalg.norm(expected)
            if actual.shape == expected.shape and np.linalg.norm(actual - expected) > worst * norm > 0:
                worst = np.linalg.norm(actual - expected) / norm
                size = f"{np.linalg.norm(actual):.4g}, {norm:.4g} in float32"
                text = f" In the state {path} is furthest off: its norm is {size}."
    return text


@check
def check_descends(
    optimizer: GradientTransformation, *, params: PyTree = None, extra: Extra = None, steps: int = 100
) -> None:
    """The loss falls on the simplest of all problems, `jgd.testing.quadratic`.

    Parts of optimizers that do not end in a step downhill, such as `optax.scale_by_adam`, skip it.

    Args:
        optimizer: Any optax optimizer.
        params: As for `check_optimizer`: the start. The minimum is at zero.
        extra: As for `check_optimizer`.
        steps: How many updates.

    Raises:
        OptimizerCheckError: The loss at the end is not below that at the start.

    Examples:
        >>> import optax
        >>> from jgd.testing import check_descends
        >>> check_descends(optax.sgd(0.1))
    """
    subject = as_subject(optimizer, params, extra)
    params = subject.params
    state = subject.init(params)
    for _ in range(steps):
        grads = jax.tree.map(_gradient_of_quadratic, params)
        _, state, params = subject.step(grads, state, params)
    start, end = float(quadratic(subject.params)), float(quadratic(params))
    if not end < start:
        raise OptimizerCheckError(f"after {steps} updates the loss is {end:.7g}; it started at {start:.7g}.")


def _gradient_of_quadratic(param: Any) -> Any:
    is_float = jnp.issubdtype(jnp.result_type(param), jnp.inexact)
    return param if is_float else np.zeros(jnp.shape(param), jax.dtypes.float0)
