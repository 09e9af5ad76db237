r"""AdamP: steps without the part that only makes scale-invariant weights grow.

$$
\theta_t = \theta_{t-1} - \eta\, \bigl(\Pi(u_t) + \lambda\, r\, \theta_{t-1}\bigr), \qquad
\Pi(u) = \begin{cases} u - \hat\theta\, (\hat\theta \cdot u) & \text{if } \max |\cos(\theta, g)| < \delta / \sqrt n \\
                       u & \text{otherwise} \end{cases}
$$

with $u$ Adam's step or the momentum, $\hat\theta = \theta / (\|\theta\| + \epsilon)$ and $n$ the number of entries of a
row. A weight before a normalization is orthogonal to its gradient, which is how such weights are found: first with a
row for each channel, then with the whole leaf as one row. Where one is found $r$ is `wd_ratio`, else one. Leaves of
fewer than two axes are never projected.

PyTorch's kernels have the channels that a layer puts out first, JAX's have them last: `channel_axis`. Under Nesterov
the mixed momentum is divided by $1-\beta_1^t$ as a whole.

References:
    - Heo et al., "AdamP: Slowing down the slowdown for momentum optimizers on scale-invariant weights",
      https://arxiv.org/abs/2006.08217, 2020, Algorithm 2.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from jgd.core import (
    Array,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    fixed_int,
    lift,
    squares,
)
from jgd.rules.parts._moments import MOMENT_SLOTS, adam_scales, denominator, moments
from jgd.rules.parts._weight_decay import choose_by_mask


def project(direction: Array, grad: Array, param: Array, hyper: Hyper, axis: int) -> tuple[Array, Array | float]:
    """The direction, without its part along the param where that is scale-invariant; and the factor on the decay."""
    if param.ndim < 2 or param.size == 0:
        return direction, 1.0
    projected, decay_factor = direction, 1.0
    for shape in ((1, -1), (param.shape[axis], -1)):  # that by channel goes before that of all
        x, g, d = (jnp.moveaxis(leaf, axis, 0).reshape(shape) for leaf in (param, grad, direction))
        x_sq, g_sq = squares([x], (1,)), squares([g], (1,))
        x, g = x_sq.scale * x, g_sq.scale * g
        param_norm, grad_norm = (jnp.maximum(sq.length, hyper["eps"] * sq.scale) for sq in (x_sq, g_sq))
        cosine = jnp.abs(jnp.sum(x * g, axis=1, keepdims=True)) / (param_norm * grad_norm)
        invariant = jnp.max(cosine) < hyper["delta"] / x.shape[1] ** 0.5
        unit = x / (x_sq.length + hyper["eps"] * x_sq.scale)
        tangent = d - unit * jnp.sum(unit * d, axis=1, keepdims=True)
        tangent = jnp.moveaxis(tangent.reshape(jnp.moveaxis(param, axis, 0).shape), 0, axis)
        projected, decay_factor = (
            jnp.where(invariant, tangent, projected),
            jnp.where(invariant, hyper["wd_ratio"], decay_factor),
        )
    return projected, decay_factor


def _adamp_rule(decays: bool, nesterov: bool, axis: int) -> Rule:
    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del step
        mu, nu = moments(grad, slots, hyper)
        numerator = hyper["b1"] * mu + hyper["1-b1"] * grad if nesterov else mu
        direction, decay_factor = project(numerator / denominator(nu, hyper), grad, param, hyper, axis)
        decay = hyper["learning_rate"] * hyper["weight_decay"] * decay_factor * param if decays else 0
        return -hyper["mu_scale"] * direction - decay, {"mu": mu, "nu": nu}

    def prepare(hyper: Hyper, step: Array) -> Hyper:
        return adam_scales(hyper, step) | {"eps_root": jnp.zeros_like(hyper["eps"])}

    return Rule(
        update,
        MOMENT_SLOTS,
        kind="leaf",
        needs_params=True,
        supports_complex=False,
        prepare=prepare,
        nonnegative=("nu",),
    )


def lift_projected(
    make_rule: Callable[[bool, bool, int], Rule],
    nesterov: bool,
    axis: int,
    hyperparams: Mapping[str, ScalarOrSchedule],
    mask: Mask,
    name: str,
    **more: Any,
) -> Optimizer:
    """Lifts the rules that `make_rule(decays, nesterov, axis)` makes, each leaf's as the mask says."""
    axis = fixed_int(name, "channel_axis", axis)
    rules = make_rule(True, nesterov, axis), make_rule(False, nesterov, axis)
    return lift(rules, hyperparams, name=name, choose=choose_by_mask(name, mask, *rules), **more)


def adamp(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    delta: ScalarOrSchedule = 0.1,
    wd_ratio: ScalarOrSchedule = 0.1,
    nesterov: bool = False,
    channel_axis: int = -1,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """AdamW that does not let scale-invariant weights grow.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: About the size of a step in each parameter, at least 0.
        eps: Added to the root of the second moment and to the norms of the projection, at least 0.
        delta: How near to orthogonal param and gradient must be for the projection; larger projects more.
        wd_ratio: The factor on the decay of what is projected.
        nesterov: Whether to use Nesterov momentum.
        channel_axis: The axis of a leaf that counts a layer's outputs; 0 for kernels laid out as in PyTorch.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules, with the slots `mu` and `nu`, two
        numbers a parameter.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, a leaf is complex, the mask
            does not fit the params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.eye(2)
        >>> optimizer = jgd.adamp(0.1, delta=3.0)
        >>> updates, state = optimizer.update(jnp.ones((2, 2)), optimizer.init(params), params)
        >>> print(updates.round(3))  # without what lies along the params
        [[-0.  -0.1]
         [-0.1 -0. ]]
    """
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "weight_decay": weight_decay}
    hyperparams |= {"delta": delta, "wd_ratio": wd_ratio}
    more = {"state_dtype": state_dtype, "layout": layout}
    return lift_projected(_adamp_rule, nesterov, channel_axis, hyperparams, mask, "adamp", **more)
