r"""Dion: orthonormal steps of low rank, found by power iteration; what they leave out stays in the momentum.

$$
\begin{aligned}
B_t &= M_{t-1} + G_t, \qquad P_t = \operatorname{qr}(B_t\, Q_{t-1}), \qquad R_t = B_t^\top P_t \\
M_t &= B_t - (1-\mu)\, P_t R_t^\top, \qquad Q_t = R_t / (\lVert R_t \rVert_\text{columns} + \epsilon) \\
\theta_t &= \theta_{t-1} - \eta\, \bigl(\sqrt{n/m}\; P_t Q_t^\top + \lambda\, \theta_{t-1}\bigr)
\end{aligned}
$$

for a matrix of `m` inputs by `n` outputs, with the slots $M$ (`mu`) and $Q$ (`q`). $P$ lies on the longer side and $Q$
on the shorter, as in the authors' reference implementation. Leaves that are not matrices get AdamW.

$P$ comes from a QR made of matrix products (see `jgd.rules.matrices._orthonormal`), which gives the same steps as the
authors' randomized Cholesky QR. $Q$ starts with normal random numbers, the same for leaves of one shape. Where $B$ has
no full rank, columns of $R$ that are rounding alone give zeros in $Q$, as in exact arithmetic, and no directions.

References:
    - Ahn et al., "Dion: Distributed orthonormalized updates", https://arxiv.org/abs/2504.05295, 2025, Algorithm 1.
"""

import math

import jax
import jax.numpy as jnp
from optax.contrib import MuonDimensionNumbers

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
    TreeOrFunction,
    fixed,
    fixed_int,
    squares,
    zeros,
)
from jgd.rules.matrices._axes import as_matrices, from_matrices, tall, untall
from jgd.rules.matrices._lift import lift_beside_adamw
from jgd.rules.matrices._orthonormal import completed_basis, orthonormal_to_within
from jgd.rules.matrices._preconditioners import over_blocks


def dion_rule(
    axes: MuonDimensionNumbers, decays: bool, rank_fraction: float, rank_multiple_of: int, power_iters: int, seed: int
) -> Rule:
    """Dion for leaves whose matrix axes are `axes`."""

    def first_basis(param: Array) -> Array:
        stack, _, shorter = tall(as_matrices(param, axes)).shape
        rank = rank_multiple_of * math.ceil(rank_fraction * shorter / rank_multiple_of)
        return jax.random.normal(jax.random.key(seed), (stack, shorter, min(rank, shorter)), param.dtype)

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del step
        shape = as_matrices(grad, axes).shape
        b, q = tall(as_matrices(slots["mu"] + grad, axes)), slots["q"]
        r = q
        for _ in range(power_iters):
            p = over_blocks(completed_basis, b @ r)
            r = b.mT @ p
        is_zero = jnp.all(b == 0, axis=(1, 2), keepdims=True)
        p, r = jnp.where(is_zero, 0, p), jnp.where(is_zero, q, r)
        mu = b - hyper["1-momentum"] * (p @ r.mT)
        r_sq = squares([r], (1,))
        norms = r_sq.length / r_sq.scale
        rounding = orthonormal_to_within(r.shape[2], r.dtype) * jnp.max(norms, axis=2, keepdims=True, initial=0)
        q = r / jnp.where(norms > rounding, norms + hyper["eps"], jnp.inf)
        direction = untall(p @ q.mT, shape) * math.sqrt(shape[2] / max(shape[1], 1))
        direction = from_matrices(direction, grad.shape, axes)
        if decays:
            direction = direction + hyper["weight_decay"] * param
        mu = from_matrices(untall(mu, shape), grad.shape, axes)
        return -hyper["learning_rate"] * direction, {"mu": mu, "q": q}

    slots = {"mu": zeros, "q": first_basis}
    return Rule(update, slots=slots, kind="matrix", needs_params=True, supports_complex=False, exact=("q",))


def dion(
    learning_rate: ScalarOrSchedule,
    rank_fraction: float = 1.0,
    momentum: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.01,
    mask: Mask = None,
    *,
    rank_multiple_of: int = 1,
    power_iters: int = 1,
    matrix_axes: TreeOrFunction | None = None,
    seed: int = 0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    adam_b1: ScalarOrSchedule = 0.9,
    adam_b2: ScalarOrSchedule = 0.95,
    adam_eps: ScalarOrSchedule | None = None,
    adam_weight_decay: ScalarOrSchedule = 0.01,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Dion for matrices, AdamW for the other leaves.

    Arguments that are not described here are those of `jgd.muon`.

    Args:
        learning_rate: About the root mean square change of an output, at least 0. The authors' is 0.01.
        rank_fraction: The rank of a step, as a share of the shorter side, in (0, 1]; fixed when the state is made.
        momentum: What is kept of the part of the momentum that was stepped along, in [0, 1).
        eps: Added to the norms of columns, at least 0.
        mask: Which matrices decay; as for `jgd.adamw`.
        rank_multiple_of: The rank is rounded up to a multiple of this.
        power_iters: Power iterations a step; fixed when the step is compiled.
        matrix_axes: As `muon_weight_dimension_numbers` of `jgd.muon`.
        seed: Of the first `q`.

    Returns:
        An optimizer whose hyperparameters are the arguments that may be schedules, with the slots `mu`, `q` (of
        matrices, the shorter side by the rank) and `nu` (of the other leaves).

    Raises:
        TypeError, ValueError: As for `jgd.muon`; a leaf is complex; `rank_fraction` is outside its range.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params, grads = jnp.eye(2), jnp.array([[3.0, 0.0], [0.0, 0.1]])
        >>> optimizer = jgd.dion(0.1, weight_decay=0.0)
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
        >>> print(jnp.linalg.norm(updates, axis=0).round(1))
        [0.1 0.1]
    """
    rank_multiple_of = fixed_int("dion", "rank_multiple_of", rank_multiple_of, least=1)
    power_iters = fixed_int("dion", "power_iters", power_iters, least=1)
    if not 0 < (rank_fraction := float(fixed("dion", "rank_fraction", rank_fraction))) <= 1:
        raise ValueError(f"dion: rank_fraction must be above 0 and at most 1; got {rank_fraction}.")
    hyperparams = {
        "learning_rate": learning_rate,
        "momentum": momentum,
        "eps": eps,
        "weight_decay": weight_decay,
        "adam_learning_rate": adam_learning_rate,
        "adam_b1": adam_b1,
        "adam_b2": adam_b2,
        "adam_eps": adam_eps,
        "adam_weight_decay": adam_weight_decay,
    }
    return lift_beside_adamw(
        lambda axes, decays: dion_rule(axes, decays, rank_fraction, rank_multiple_of, power_iters, seed),
        hyperparams,
        matrix_axes,
        mask,
        name="dion",
        state_dtype=state_dtype,
        layout=layout,
    )
