r"""Schedule-free training: an average of the iterates in place of a falling learning rate.

$$
z_t = z_{t-1} + u(y_{t-1}), \qquad x_t = (1-c_t)\, x_{t-1} + c_t z_t, \qquad y_t = \beta_1 x_t + (1-\beta_1)\, z_t,
\qquad c_t = \frac{w_t}{\sum_{i \le t} w_i}, \quad w_t = t^r\, \bigl(\max_{i \le t} \eta_i\bigr)^p
$$

where $u$ is the inner optimizer's update from the gradient at $y$. The params are $y$; `jgd.eval_params` gives $x$, to
be evaluated. The slots are $z$ (`z`), and for the tree `weight_sum` and `max_lr`. optax takes $\eta_t$ one step later
than the inner optimizer does; the authors' code takes the same, which is `like="author"`.

References:
    - Defazio et al., "The road less scheduled", https://arxiv.org/abs/2405.15682, 2024, Algorithm 1.
"""

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import optax

from jgd.core import (
    NOT_NEGATIVE,
    Array,
    DTypeLike,
    GradientTransformation,
    Hyperparams,
    Optimizer,
    OptState,
    PyTree,
    Range,
    ScalarOrSchedule,
    begin_update,
    check_choice,
    check_params_given,
    check_params_of,
    compute_dtype,
    first_state,
    make_optimizer,
    map_floats,
    transform_text,
    zero_update,
)


class ScheduleFreeState(NamedTuple):
    """The state: `own` of the averaging, `inner` of the optimizer inside."""

    own: OptState
    inner: PyTree

    def eval_params(self, params: PyTree) -> PyTree:
        """The average $x$, from the params $y$ and the slot $z$."""
        b1 = self.own.hyperparams["b1"]
        check_params_of("eval_params", "z", self.own.slots["z"], params)
        return map_floats(lambda y, z: _average(jnp.asarray(y), z, b1).astype(y.dtype), params, self.own.slots["z"])


def _average(y: Array, z: Array, b1: Array) -> Array:
    dtype = compute_dtype(jnp.promote_types(y.dtype, z.dtype))
    beta = b1.astype(jnp.finfo(dtype).dtype)
    return (y.astype(dtype) - (1 - beta) * z.astype(dtype)) / beta


def schedule_free(
    base_optimizer: GradientTransformation,
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    weight_lr_power: ScalarOrSchedule = 2.0,
    state_dtype: DTypeLike | None = None,
    *,
    r: ScalarOrSchedule = 0.0,
    like: Literal["optax", "author"] = "optax",
) -> Optimizer:
    """Turns an optimizer into its schedule-free form.

    Args:
        base_optimizer: Any optimizer without momentum; it may have a warm-up.
        learning_rate: The learning rate that the base optimizer has: it weighs the iterates.
        b1: How much nearer to the average than to $z$ gradients are taken, in (0, 1).
        weight_lr_power: The power $p$ of the learning rate in the weights.
        state_dtype: The dtype of the slot `z`; None for float32, wider where the param is wider.
        r: The power $r$ of the step in the weights.
        like: At which step the weights take the learning rate; see the notes above.

    Returns:
        An optimizer with the hyperparameters `averaging_learning_rate`, `b1`, `weight_lr_power`, `r`, and the slot `z`,
        one number a parameter, whose state is `ScheduleFreeState(own, inner)`.

    Raises:
        TypeError, ValueError: `base_optimizer` is not an optimizer, a hyperparameter is not a finite number in
            its range, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.schedule_free(jgd.sgd(0.5), 0.5), jnp.array([4.0])
        >>> state = optimizer.init(params)
        >>> for _ in range(100):
        ...     updates, state = optimizer.update(params, state, params)
        ...     params = jgd.apply_updates(params, updates)
        >>> print(bool(jnp.abs(jgd.eval_params(state, params)[0]) < 0.05))
        True
    """
    check_choice("schedule_free", "like", like, Literal["optax", "author"])
    if state_dtype is not None and not jnp.issubdtype(jnp.dtype(state_dtype), jnp.inexact):
        raise TypeError(f"schedule_free: state_dtype must be a float dtype, since z are params; got {state_dtype!r}.")
    base = optax.with_extra_args_support(base_optimizer)
    averaging_rate: Any = learning_rate
    if callable(learning_rate) and like == "optax":
        averaging_rate = lambda count: learning_rate(count + 1)  # noqa: E731
    hyperparams = {"averaging_learning_rate": averaging_rate, "b1": b1, "weight_lr_power": weight_lr_power, "r": r}
    ranges = {"b1": Range(low_allowed=False, high=1.0), "averaging_learning_rate": NOT_NEGATIVE}
    numbers = Hyperparams("schedule_free", hyperparams, ranges=ranges)

    def initial_z(leaf: Any) -> Array:
        wide = compute_dtype(jnp.result_type(leaf)) if state_dtype is None else jnp.dtype(state_dtype)
        return jnp.array(leaf, dtype=wide, copy=True)

    def init(params: PyTree) -> ScheduleFreeState:
        slots = {
            "z": map_floats(initial_z, params, others=lambda leaf: jnp.array(leaf, copy=True)),
            "weight_sum": jnp.zeros((), jnp.result_type(float)),
            "max_lr": jnp.zeros((), jnp.result_type(float)),
        }
        return ScheduleFreeState(first_state(numbers, slots), base.init(params))

    def update(grads: PyTree, state: ScheduleFreeState, params: PyTree = None, **extra: Any) -> Any:
        hyper, step = begin_update(numbers, state, ScheduleFreeState)
        check_params_given("schedule_free", params)
        own = state.own
        max_lr = jnp.maximum(own.slots["max_lr"], hyper["averaging_learning_rate"])
        weight = max_lr ** hyper["weight_lr_power"] * step.astype(max_lr.dtype) ** hyper["r"]
        weight_sum = own.slots["weight_sum"] + weight
        share = jnp.where(weight_sum > 0, weight / jnp.where(weight_sum > 0, weight_sum, 1), 0)
        base_updates, inner = base.update(grads, state.inner, params, **extra)

        def step_z(z: Array, update: Array) -> Array:
            return (z.astype(compute_dtype(z.dtype)) + update).astype(z.dtype)

        def update_y(y: Any, z: Array, new_z: Array, update: Array) -> Array:
            y = jnp.asarray(y)
            x = _average(y, z, hyper["b1"])
            c, beta = (s.astype(jnp.finfo(x.dtype).dtype) for s in (share, hyper["b1"]))
            x = x + c * (new_z.astype(x.dtype) - x)
            return (beta * x + (1 - beta) * new_z.astype(x.dtype) - y.astype(x.dtype)).astype(update.dtype)

        z = map_floats(step_z, own.slots["z"], base_updates)
        updates = map_floats(update_y, params, own.slots["z"], z, base_updates, others=zero_update)
        slots = {"z": z, "weight_sum": weight_sum, "max_lr": max_lr}
        return updates, ScheduleFreeState(OptState(step, hyper, slots), inner)

    return make_optimizer(init, update, f"jgd.schedule_free({transform_text(base_optimizer)}, {numbers.text()})")
