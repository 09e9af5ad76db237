r"""MuSGD: a step of Muon and a step of Nesterov's SGD in one, each with a momentum of its own.

$$
\begin{aligned}
b_t &= \mu b_{t-1} + (1-\mu)\, g_t, \qquad
\theta' = \theta_{t-1} - \eta\, w_M\, s \operatorname{NS}\bigl(\mu b_t + (1-\mu)\, g_t\bigr) \\
g'_t &= g_t + \lambda\, \theta', \qquad s_t = \mu s_{t-1} + g'_t \\
\theta_t &= \theta' - \eta\, w_S\, (g'_t + \mu s_t)
\end{aligned}
$$

with the slots $b$ (`mu`) and $s$ (`trace`), the shares $w_M$ (`muon`) and $w_S$ (`sgd`), and
$s = \sqrt{\max(1, n/m)}$ for a matrix of `m` inputs by `n` outputs; for kernels of convolutions it is
$\sqrt{\max(1, \text{height}/\text{width})}$. The decay enters the half of SGD alone, at params that Muon has moved.
Leaves that are not matrices get Nesterov's SGD with its whole learning rate.

It trains YOLO26. There is no paper; the shares are those of its trainer, where the class has 0.5 for both.

References:
    - Jocher et al., "Ultralytics YOLO26", https://docs.ultralytics.com/models/yolo26, 2026.
    - Jordan et al., "Muon: An optimizer for hidden layers", https://kellerjordan.github.io/posts/muon, 2024.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from optax.contrib import MuonDimensionNumbers

from jgd.core import (
    Array,
    Cached,
    DTypeLike,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    PyTree,
    Rule,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    TreeOrFunction,
    lift,
    zeros,
)
from jgd.rules._sgd import HEAVY_BALL, NESTEROV
from jgd.rules.matrices._axes import as_matrices, from_matrices, matrix_axes_for
from jgd.rules.matrices._lift import choose_matrices
from jgd.rules.matrices._newton_schulz import NS_COEFFS, NSCoeffs, check_coeffs
from jgd.rules.matrices._orthogonal_momentum import OrthogonalMomentum, matrix_rule, shape_scale


def musgd_rules(momentum: OrthogonalMomentum) -> Any:
    """`rule(axes, decays)` for matrices and `rule(decays)` for other leaves."""
    sgd = NESTEROV if momentum.nesterov else HEAVY_BALL

    def decaying_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        return sgd.update(grad + hyper["weight_decay"] * param, slots, param, hyper, step)

    def sgd_rule(decays: bool) -> Rule:
        return dataclasses.replace(sgd, update=decaying_update, needs_params=True) if decays else sgd

    def prepare(hyper: Hyper, step: Array) -> Hyper:
        return momentum.prepare(hyper | {"beta": hyper["momentum"], "1-beta": hyper["1-momentum"]}, step)

    @Cached
    def matrix_rule_for(axes: MuonDimensionNumbers, decays: bool) -> Rule:
        sgd_part = sgd_rule(decays)

        def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
            mu, mu_hat = momentum.average(grad, slots["mu"], hyper)
            matrices = as_matrices(mu_hat, axes)
            scale = shape_scale(matrices.shape, axes, grad.shape, "keller")
            direction = from_matrices(scale * momentum.orthogonalize(matrices, hyper), grad.shape, axes)
            muon_delta = -hyper["learning_rate"] * hyper["muon"] * direction
            sgd_hyper = hyper | {"learning_rate": hyper["learning_rate"] * hyper["sgd"]}
            sgd_delta, new_slots = sgd_part.update(grad, slots, param + muon_delta, sgd_hyper, step)
            return muon_delta + sgd_delta, {"mu": mu, "trace": new_slots["trace"]}

        return dataclasses.replace(matrix_rule(update, momentum, trace=zeros), prepare=prepare)

    return matrix_rule_for, Cached(sgd_rule)


def weights_of_layers(params: PyTree) -> PyTree:
    """Leaves of two and of four axes, as the trainer of YOLO26 takes them: weights of linear and conv layers."""
    return jax.tree.map(lambda leaf: matrix_axes_for(leaf, "conv") if jnp.ndim(leaf) in (2, 4) else None, params)


def musgd(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    nesterov: bool = True,
    muon: ScalarOrSchedule = 0.2,
    sgd: ScalarOrSchedule = 1.0,
    eps: ScalarOrSchedule = 1e-7,
    ns_coeffs: NSCoeffs = NS_COEFFS["muon"],
    ns_steps: int = 5,
    ns_dtype: DTypeLike | None = None,
    matrix_axes: TreeOrFunction | None = None,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """MuSGD: Muon and Nesterov's SGD for matrices and kernels, SGD for the other leaves.

    Arguments that are not described here are those of `jgd.muon` and `jgd.adamw`.

    Args:
        learning_rate: At least 0; the trainer of YOLO26 takes 0.01.
        momentum: Decay rate of both momenta, in [0, 1).
        weight_decay: Added to the gradient of SGD, times the param; at least 0.
        nesterov: Whether to use Nesterov momentum, in both.
        muon: The share of Muon's step.
        sgd: The share of SGD's step, for leaves that get both.
        eps: Added to the norm of the momentum, at least 0.
        ns_dtype: As for `jgd.muon`; the author rounds to `"bfloat16"`.
        matrix_axes: As `muon_weight_dimension_numbers` of `jgd.muon`; by default leaves of two axes, `[in, out]`, and
            of four, `[height, width, in, out]`.

    Returns:
        An optimizer whose hyperparameters are `ns_coeffs` and the arguments that may be schedules, with the slots
        `trace` and (for matrices alone) `mu`.

    Raises:
        TypeError, ValueError: As for `jgd.muon`.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params, grads = jnp.eye(2), jnp.array([[3.0, 0.0], [0.0, 0.1]])
        >>> optimizer = jgd.musgd(0.1)
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
        >>> print(updates.round(2))
        [[-0.58 -0.  ]
         [-0.   -0.04]]
    """
    matrix_rule_for, sgd_rule = musgd_rules(OrthogonalMomentum("keller", ns_steps, nesterov, ns_dtype=ns_dtype))
    hyperparams = {
        "learning_rate": learning_rate,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "muon": muon,
        "sgd": sgd,
        "eps": eps,
        "ns_coeffs": check_coeffs("musgd", ns_coeffs),
    }
    axes = weights_of_layers if matrix_axes is None else matrix_axes
    return lift(
        (matrix_rule_for(MuonDimensionNumbers(), True), sgd_rule(True)),
        hyperparams,
        name="musgd",
        choose=choose_matrices("musgd", axes, mask, matrix_rule_for, sgd_rule),
        arrays=("ns_coeffs",),
        state_dtype=state_dtype,
        layout=layout,
    )
