"""Golden traces: where an optimizer was after certain steps, recorded once and compared ever after."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import ArrayTree, GradientTransformation, checked
from jgd.testing._subject import Extra, OptimizerCheckError, as_subject, assert_close, by_path, check, gradients

STEPS = (1, 2, 3, 5, 10, 20)


@checked
def record_trace(
    optimizer: GradientTransformation,
    *,
    params: ArrayTree = None,
    extra: Extra = None,
    steps: Sequence[int] = STEPS,
) -> dict[str, dict[str, Any]]:
    """Where an optimizer's params stand after certain steps on a fixed noisy quadratic.

    The gradient of step `t` is `params` plus normal noise that is the same on every machine.

    Args:
        optimizer: Any optax optimizer.
        params: As for `check_optimizer`.
        extra: As for `check_optimizer`.
        steps: After which updates the params are recorded.

    Returns:
        Step to path to values, as strings and lists of numbers: `json.dump` writes it.

    Examples:
        >>> import jax.numpy as jnp, optax
        >>> from jgd.testing import record_trace
        >>> trace = record_trace(optax.sgd(1.0), params={"w": jnp.array([0.5, -0.5])}, steps=[1, 2])
        >>> list(trace), list(trace["1"])
        (['1', '2'], ["['w']"])
        >>> print(jnp.array(trace["1"]["['w']"]).round(2))  # minus the noise
        [ 1.75 -0.34]
    """
    if not steps or min(steps) < 1:
        raise ValueError(f"record_trace: steps must be at least one number, each from 1 on; got {steps!r}.")
    subject = as_subject(optimizer, params, extra)
    params = subject.params
    state, trace = subject.init(params), {}
    for number in range(1, max(steps) + 1):
        grads = jax.tree.map(_plus_param, gradients(params, number - 1), params)
        _, state, params = subject.step(grads, state, params)
        if number in steps:
            trace[str(number)] = {path: np.asarray(leaf).tolist() for path, leaf in by_path(params).items()}
    return trace


def _plus_param(noise: Any, param: Any) -> Any:
    return noise if noise.dtype == jax.dtypes.float0 else noise + jnp.asarray(param)


@check
def check_trace(
    optimizer: GradientTransformation,
    recorded: Mapping[str, Mapping[str, Any]],
    rtol: float = 1e-5,
    *,
    params: ArrayTree = None,
    extra: Extra = None,
) -> None:
    """An optimizer goes where a recorded one went.

    Args:
        optimizer: Any optax optimizer.
        recorded: What `record_trace` returned, perhaps by way of a JSON file.
        rtol: By how much an entry may differ, relative to the largest of its leaf.
        params: Those that it was recorded with.
        extra: Those that it was recorded with.

    Raises:
        OptimizerCheckError: The params differ; the message names the first step and the leaf.

    Examples:
        >>> import optax
        >>> from jgd.testing import check_trace, record_trace
        >>> recorded = record_trace(optax.sgd(0.5))
        >>> check_trace(optax.chain(optax.scale(-0.5)), recorded)
        >>> check_trace(optax.sgd(0.4), recorded)  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        jgd.testing.OptimizerCheckError: check_trace: after step 1 the param ['matrix'] at [1, 0] is ...
    """
    if not recorded:
        raise OptimizerCheckError("the recorded trace is empty.")
    trace = record_trace(optimizer, params=params, extra=extra, steps=[int(step) for step in recorded])
    for step, expected in recorded.items():
        for path, values in expected.items():
            if path not in trace[step]:
                raise OptimizerCheckError(f"the params have no leaf at {path}; they have {', '.join(trace[step])}.")
            what = f"after step {step} the param {path}"
            assert_close(what, np.asarray(trace[step][path]), np.asarray(values), rtol, "in the recorded trace")
