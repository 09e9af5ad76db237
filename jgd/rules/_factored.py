r"""Adafactor: a second moment kept as the product of a row and a column.

$$
\begin{aligned}
\beta_t &= 1 - (t - t_0)^{-c}, \qquad
R_t = \beta_t R_{t-1} + (1-\beta_t)\, \langle g_t^2 + \epsilon \rangle_\text{columns}, \qquad C_t \text{ likewise} \\
u_t &= g_t / \sqrt{R_t C_t / \langle R_t \rangle}, \qquad u_t \leftarrow u_t / \max(1, \operatorname{RMS}(u_t) / d) \\
\theta_t &= \theta_{t-1} - \eta \max(10^{-3}, \operatorname{RMS}(\theta_{t-1}))\, u_t - \lambda\, \theta_{t-1}
\end{aligned}
$$

over the two largest axes, where the smaller has `min_dim_size_to_factor` entries at least; other leaves keep a full
second moment. The slots are `v_row`, `v_col`, `v`, and `ema` with momentum. As in optax the decay is not multiplied by
the learning rate.

References:
    - Shazeer and Stern, "Adafactor: Adaptive learning rates with sublinear memory cost",
      https://arxiv.org/abs/1804.04235, 2018, Algorithms 4 and 5.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jgd.core import Array, Hyper, Rule, Slots, abs_sq, fixed_int, real_dtype, root, squares, zeros

_SMALLEST_SCALE = 1e-3


def factored_axes(shape: tuple[int, ...], factored: bool, least: Any) -> tuple[int, int] | None:
    """The second largest and the largest axis, or None where the leaf keeps a full second moment."""
    if not factored or len(shape) < 2:
        return None
    order = np.argsort(shape)
    least = fixed_int("adafactor", "min_dim_size_to_factor", least)
    return None if shape[order[-2]] < least else (int(order[-2]), int(order[-1]))


def _rms(x: Array) -> Array:
    found = squares([x])
    return root(found.total / max(x.size, 1)) / found.scale


def factored_rule(factored: bool, least: Any, by_param: bool, clips: bool, momentum: bool, decays: bool) -> Rule:
    """The rule in the form asked for."""

    def without(axis_of: int) -> Any:
        def make(param: Array) -> Array:
            axes, dtype = factored_axes(param.shape, factored, least), real_dtype(param.dtype)
            # A sum over the axis that goes keeps the sharding of the others.
            return jnp.zeros(1, dtype) if axes is None else jnp.zeros_like(jnp.sum(param, axes[axis_of]), dtype=dtype)

        return make

    def whole(param: Array) -> Array:
        dtype = real_dtype(param.dtype)
        is_factored = factored_axes(param.shape, factored, least) is not None
        return jnp.zeros(1, dtype) if is_factored else jnp.zeros_like(param, dtype=dtype)

    def scaled(grad: Array, slots: Slots, hyper: Hyper) -> tuple[Array, dict[str, Array]]:
        # The state says whether a leaf is factored: `least` may be traced here, and is not when the state is made.
        axes = factored_axes(grad.shape, slots["v"].shape != grad.shape, 0)
        keep, square = hyper["keep"], abs_sq(grad) + hyper["eps"]
        if axes is None:
            v = keep * slots["v"] + (1 - keep) * square
            return grad / jnp.sqrt(jnp.where(v > 0, v, 1)), {**slots, "v": v}
        d1, d0 = axes
        row = keep * slots["v_row"] + (1 - keep) * jnp.mean(square, axis=d0)
        column = keep * slots["v_col"] + (1 - keep) * jnp.mean(square, axis=d1)
        mean = jnp.mean(row, axis=d1 - 1 if d1 > d0 else d1, keepdims=True)
        row_root = jnp.sqrt(row / jnp.where(mean > 0, mean, 1))
        roots = jnp.expand_dims(row_root, d0), jnp.expand_dims(jnp.sqrt(column), d1)
        safe = [jnp.where(root > 0, root, 1) for root in roots]
        return grad / safe[0] / safe[1], {**slots, "v_row": row, "v_col": column}

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del step
        u, new = scaled(grad, slots, hyper)
        if clips:
            u = u / jnp.maximum(1, root(jnp.sum(abs_sq(u)) / max(u.size, 1)) / hyper["clipping_threshold"])
        u = hyper["learning_rate"] * u
        if by_param:
            u = jnp.maximum(_rms(param), _SMALLEST_SCALE) * u
        if momentum:
            u = new["ema"] = hyper["momentum"] * slots["ema"] + hyper["1-momentum"] * u
        return -(u + hyper["weight_decay_rate"] * param if decays else u), new

    def prepare(hyper: Hyper, step: Array) -> Hyper:
        after = jnp.maximum(step - hyper["decay_offset"], 1)
        return hyper | {"keep": 1 - after.astype(hyper["eps"].dtype) ** -hyper["decay_rate"]}

    slots = {"v_row": without(1), "v_col": without(0), "v": whole} | ({"ema": zeros} if momentum else {})
    squares = ("v_row", "v_col", "v")
    return Rule(update, slots=slots, kind="leaf", needs_params=True, prepare=prepare, nonnegative=squares)
