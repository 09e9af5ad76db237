r"""Averages of the params, to be evaluated in their place: exponential, uniform (Polyak, SWA).

References:
    - Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992.
    - Izmailov et al., "Averaging weights leads to wider optima and better generalization",
      https://arxiv.org/abs/1803.05407, 2018 (SWA).
"""

from typing import Any, Literal

import jax.numpy as jnp

from jgd.core import (
    Array,
    GradientTransformation,
    Hyper,
    Optimizer,
    ScalarOrSchedule,
    Slots,
    Wrapper,
    check_choice,
    debias,
    wrap,
)


def _weight(kind: str, hyper: Hyper, step: Array) -> Array:
    """The weight of the new params in the average."""
    if kind == "ema":
        # From the first params on: the correction of a start at zero, put into the weight.
        return hyper["1-decay"] / debias(hyper["1-decay"], step)
    start, every = hyper["start"], hyper["every"]
    since = step.astype(start.dtype) - start
    # Before the start the average is the params; then every `every`-th step has the same weight.
    averaged = jnp.floor(since / every)
    is_due = (since > 0) & (jnp.mod(since, every) == 0)
    return jnp.where(since <= 0, 1, jnp.where(is_due, 1 / (averaged + 1), 0))


def average_params(
    optimizer: GradientTransformation,
    kind: Literal["ema", "polyak"] = "ema",
    *,
    decay: ScalarOrSchedule = 0.999,
    start: ScalarOrSchedule = 0,
    every: ScalarOrSchedule = 1,
) -> Optimizer:
    r"""Keeps an average of the params beside any optimizer; `jgd.eval_params` reads it.

    With $\theta_t$ the params after the step the average is $a_t = (1 - w_t)\, a_{t-1} + w_t\, \theta_t$. `"ema"` has
    $w_t = (1-\beta) / (1-\beta^t)$, an exponential average with decay $\beta$ that is free of its start. `"polyak"` is
    the plain mean of the params after step `start` and of every `every`-th after it: stochastic weight averaging for a
    late start.

    Args:
        optimizer: Any optimizer.
        kind: Which average.
        decay: Decay rate of the exponential average, in [0, 1).
        start: The step after which the plain mean begins; the params themselves before it.
        every: How many steps apart its params are, at least 1.

    Returns:
        An optimizer with the hyperparameter `decay`, or `start` and `every`, and the slot `average`, one number a
        parameter, whose state is `WrapperState(own, inner)`.

    Raises:
        TypeError, ValueError: `optimizer` is not an optimizer, `kind` is not known, a hyperparameter is not a
            finite number in its range, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.average_params(jgd.sgd(1.0), "polyak"), jnp.array(0.0)
        >>> state = optimizer.init(params)
        >>> for _ in range(3):
        ...     updates, state = optimizer.update(jnp.array(-1.0), state, params)
        ...     params = jgd.apply_updates(params, updates)
        >>> print(params, jgd.eval_params(state, params))  # the mean of 0, 1, 2 and 3
        3.0 1.5
    """
    check_choice("average_params", "kind", kind, Literal["ema", "polyak"])

    def after(delta: Array, grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del grad
        weight = _weight(kind, hyper, step)
        return delta, {"average": slots["average"] + weight * (param + delta - slots["average"])}

    def same(param: Array) -> Array:
        return param

    hyperparams: dict[str, Any] = {"decay": decay} if kind == "ema" else {"start": start, "every": every}
    wrapper = Wrapper(after=after, slots={"average": same}, needs_params=True, elementwise=True)
    return wrap(optimizer, wrapper, hyperparams, name="average_params")
