r"""APOLLO: steps of SGD whose channels have the size that Adam would give them, learned in a small random space.

$$
\begin{aligned}
R_t &= G_t\, P / \sqrt{r}, \qquad
\hat R_t = \operatorname{Adam}(R_t), \qquad s_t = \lVert \hat R_t \rVert / (\lVert R_t \rVert + 10^{-8}) \\
U_t &= s_t\, G_t \cdot \min\bigl(1,\; 1.01\, \lVert U_{t-1} \rVert / \lVert s_t G_t \rVert\bigr) \\
\theta_t &= (\theta_{t-1} - \eta \sqrt{\alpha}\; U_t)\, (1 - \eta \lambda)
\end{aligned}
$$

with $G$ turned so that its longer side counts the channels (rows), $P$ normal random numbers, `r` for each entry of
the shorter side, redrawn every `update_proj_gap` steps, and $\alpha$ the `scale`. Norms in $s$ are those of rows,
or of the whole matrix with `scale_type="tensor"`. Slots: the moments `mu` and `nu` of $R$, and `norm`, that of $U$.
Leaves that are not matrices get AdamW.

In paper and code Adam's $\epsilon$ stands beside the root of the uncorrected second moment, and decay comes after the
step. $P$ is not stored but drawn again at each step; leaves of one shape share it. Where $\lVert U_{t-1} \rVert$ is
zero nothing is limited: the authors' code would then need a thousand steps to grow back.

References:
    - Zhu et al., "APOLLO: SGD-like memory, AdamW-level performance", https://arxiv.org/abs/2412.05270, 2024,
      Algorithm 1.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from optax.contrib import MuonDimensionNumbers

from jgd.core import (
    Array,
    Cached,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    TreeOrFunction,
    check_choice,
    debias,
    fixed_int,
    lift,
    root,
)
from jgd.rules.matrices._axes import as_matrices, from_matrices, tall, untall
from jgd.rules.matrices._lift import choose_matrices, plain_adam
from jgd.rules.parts._moments import moments
from jgd.rules.parts._weight_decay import decayed

TINY, GROWTH = 1e-8, 1.01


def step_size(hyper: Hyper, step: Array) -> Hyper:
    """Adds the learning rate, with both corrections of Adam."""
    correction = jnp.sqrt(debias(hyper["1-b2"], step)) / debias(hyper["1-b1"], step)
    return hyper | {"step_size": hyper["learning_rate"] * correction}


def apollo_rule(axes: MuonDimensionNumbers, rank: int, gap: int, by_channel: bool, seed: int) -> Rule:
    """APOLLO for leaves whose matrix axes are `axes`."""

    def low_rank_zeros(param: Array) -> Array:
        shape = tall(as_matrices(param, axes)).shape
        return jnp.zeros((*shape[:2], rank), param.dtype)

    def zero_per_matrix(param: Array) -> Array:
        return jnp.zeros(as_matrices(param, axes).shape[0], param.dtype)

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del param
        matrices = as_matrices(grad, axes)
        channels = tall(matrices)
        key = jax.random.fold_in(jax.random.key(seed), (step - 1) // gap)
        projection = jax.random.normal(key, (channels.shape[2], rank), grad.dtype) / math.sqrt(rank)
        low_rank_grad = channels @ projection
        mu, nu = moments(low_rank_grad, slots, hyper)
        direction = mu / (jnp.sqrt(nu) + hyper["eps"])
        axis = 2 if by_channel else (1, 2)
        scaled = channels * (_norm(direction, axis) / (_norm(low_rank_grad, axis) + TINY))
        norm, last_norm = _norm(scaled, (1, 2)), slots["norm"][:, None, None]
        limiter = jnp.where(last_norm > 0, jnp.maximum(norm / (last_norm + TINY), GROWTH) / GROWTH, 1)
        delta = -hyper["step_size"] * jnp.sqrt(hyper["scale"]) * untall(scaled / limiter, matrices.shape)
        return from_matrices(delta, grad.shape, axes), {"mu": mu, "nu": nu, "norm": (norm / limiter)[:, 0, 0]}

    slots = {"mu": low_rank_zeros, "nu": low_rank_zeros, "norm": zero_per_matrix}
    return Rule(update, slots, "matrix", supports_complex=False, prepare=step_size, nonnegative=("nu", "norm"))


def _norm(x: Array, axis: int | tuple[int, ...]) -> Array:
    return root(jnp.sum(jnp.square(x), axis=axis, keepdims=True))


def apollo(
    learning_rate: ScalarOrSchedule,
    rank: int = 256,
    scale: ScalarOrSchedule = 1.0,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    scale_type: Literal["channel", "tensor"] = "channel",
    update_proj_gap: int = 200,
    seed: int = 0,
    matrix_axes: TreeOrFunction | None = None,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """APOLLO for matrices, AdamW for the other leaves. APOLLO-Mini is `rank=1, scale=128, scale_type="tensor"`.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: As for AdamW, at least 0.
        rank: Numbers a channel that are remembered twice; fixed when the state is made.
        scale: Steps of matrices are multiplied by its root.
        b1: Decay rate of the average of gradients, in [0, 1).
        b2: Decay rate of the average of squared gradients, in [0, 1).
        eps: Added to the root of the second moment before that is corrected, at least 0.
        scale_type: Whether each `"channel"` has a scale of its own, or the whole `"tensor"` one.
        update_proj_gap: Steps between two draws of the random projection.
        seed: Of the random projections.
        matrix_axes: As `muon_weight_dimension_numbers` of `jgd.muon`.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules, with the slots `mu`, `nu` (longer
        side by rank) and `norm` (one number).

    Raises:
        TypeError, ValueError: As for `jgd.muon`; a leaf is complex; `scale_type` is unknown.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params, grads = jgd.apollo(0.1, rank=1), jnp.eye(2), jnp.array([[3.0, 0.0], [0.0, 0.1]])
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
        >>> print(state.slots["mu"].shape)
        (1, 2, 1)
    """
    check_choice("apollo", "scale_type", scale_type, Literal["channel", "tensor"])
    rank = fixed_int("apollo", "rank", rank, least=1)
    adam = plain_adam(eps_uncorrected=True)

    @Cached
    def make_rule(axes: MuonDimensionNumbers | None, decays: bool) -> Rule:
        rule = adam if axes is None else apollo_rule(axes, rank, update_proj_gap, scale_type == "channel", seed)
        return decayed(rule, "after") if decays else rule

    hyperparams = {"learning_rate": learning_rate, "scale": scale, "b1": b1, "b2": b2, "eps": eps}
    return lift(
        (make_rule(MuonDimensionNumbers(), True), make_rule(None, True)),
        hyperparams | {"weight_decay": weight_decay},
        name="apollo",
        choose=choose_matrices("apollo", matrix_axes, mask, make_rule, lambda decays: make_rule(None, decays)),
        state_dtype=state_dtype,
        layout=layout,
    )
