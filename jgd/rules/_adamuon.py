r"""AdaMuon: Muon on the sign of the momentum, each entry divided by the root of its average square.

$$
\begin{aligned}
m_t &= \beta m_{t-1} + (1-\beta)\, g_t, \qquad
O_t = \operatorname{NS}\bigl(\operatorname{sign}(\beta m_t + (1-\beta)\, g_t)\bigr) \\
v_t &= \beta_2 v_{t-1} + (1-\beta_2)\, O_t^2, \qquad \hat O_t = O_t / (\sqrt{v_t} + \epsilon) \\
\theta_t &= \theta_{t-1} - \eta\, \Bigl(0.2\, \frac{\sqrt{mn}}{\lVert \hat O_t \rVert + \epsilon}\, \hat O_t
            + \lambda\, \theta_{t-1}\Bigr)
\end{aligned}
$$

with the slots $m$ (`mu`) and $v$ (`nu`), for a matrix of `m` by `n`; every step has the root mean square 0.2, as
AdamW's has. $\beta_2 = \beta$ in paper and code. Leaves that are not matrices get AdamW.

The first version of the paper took NS of the momentum itself, with a $\beta_2$ of its own.

References:
    - Si et al., "AdaMuon: Adaptive Muon optimizer", https://arxiv.org/abs/2507.11005, 2025, Algorithm 1.
"""

import dataclasses
import math

import jax.numpy as jnp
from optax.contrib import MuonDimensionNumbers

from jgd.core import (
    Array,
    DTypeLike,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    TreeOrFunction,
    abs_sq,
    real_zeros,
    root,
)
from jgd.rules.matrices._axes import as_matrices, from_matrices
from jgd.rules.matrices._lift import lift_beside_adamw
from jgd.rules.matrices._newton_schulz import NS_COEFFS, NSCoeffs, check_coeffs
from jgd.rules.matrices._orthogonal_momentum import OrthogonalMomentum, matrix_rule

NS_EPS = 1e-7


def adamuon_rule(axes: MuonDimensionNumbers, decays: bool, momentum: OrthogonalMomentum) -> Rule:
    """AdaMuon for leaves whose matrix axes are `axes`."""

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del step
        mu, mu_hat = momentum.average(grad, slots["mu"], hyper)
        direction = momentum.orthogonalize(
            as_matrices(jnp.sign(mu_hat), axes), hyper | {"ns_eps": jnp.full_like(hyper["eps"], NS_EPS)}
        )
        b2, weight = (hyper["b2"], hyper["1-b2"]) if "b2" in hyper else (hyper["beta"], hyper["1-beta"])
        nu = b2 * as_matrices(slots["nu"], axes) + weight * abs_sq(direction)
        direction = direction / (jnp.sqrt(nu) + hyper["eps"])
        norm = root(jnp.sum(abs_sq(direction), axis=(1, 2), keepdims=True))
        size = hyper["consistent_rms"] * math.sqrt(math.prod(direction.shape[1:]))
        direction = from_matrices(direction * (size / (norm + hyper["eps"])), grad.shape, axes)
        if decays:
            direction = direction + hyper["weight_decay"] * param
        return -hyper["learning_rate"] * direction, {"mu": mu, "nu": from_matrices(nu, grad.shape, axes)}

    return dataclasses.replace(matrix_rule(update, momentum, nu=real_zeros), nonnegative=("nu",))


def adamuon(
    learning_rate: ScalarOrSchedule,
    beta: ScalarOrSchedule = 0.95,
    b2: ScalarOrSchedule | None = None,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.01,
    mask: Mask = None,
    *,
    nesterov: bool = True,
    ns_coeffs: NSCoeffs = NS_COEFFS["muon"],
    ns_steps: int = 5,
    ns_dtype: DTypeLike | None = None,
    consistent_rms: ScalarOrSchedule = 0.2,
    matrix_axes: TreeOrFunction | None = None,
    adam_learning_rate: ScalarOrSchedule | None = None,
    adam_b1: ScalarOrSchedule = 0.9,
    adam_b2: ScalarOrSchedule = 0.95,
    adam_eps: ScalarOrSchedule | None = None,
    adam_weight_decay: ScalarOrSchedule = 0.01,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """AdaMuon for matrices, AdamW for the other leaves.

    Arguments that are not described here are those of `jgd.muon`.

    Args:
        learning_rate: Five times the root mean square of a step, at least 0; what AdamW would take.
        beta: Decay rate of the momentum, in [0, 1).
        b2: Decay rate of the average square, in [0, 1); None for `beta`.
        eps: Added to the root and to the norm, at least 0.
        mask: Which matrices decay; as for `jgd.adamw`.
        nesterov: Whether to use Nesterov momentum.
        ns_dtype: As for `jgd.muon`; the authors round to `"bfloat16"`.
        consistent_rms: The root mean square of a step with learning rate one, above 0.
        matrix_axes: As `muon_weight_dimension_numbers` of `jgd.muon`.

    Returns:
        An optimizer whose hyperparameters are `ns_coeffs` and the arguments that may be schedules, with the slots `mu`
        and `nu`.

    Raises:
        TypeError, ValueError: As for `jgd.muon`.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params, grads = jnp.eye(2), jnp.array([[3.0, 0.0], [0.0, 0.1]])
        >>> optimizer = jgd.adamuon(0.1, weight_decay=0.0)
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
        >>> print((updates**2).mean() ** 0.5)
        0.02
    """
    orthogonal_momentum = OrthogonalMomentum("keller", ns_steps, nesterov, ns_dtype=ns_dtype)
    hyperparams = {
        "learning_rate": learning_rate,
        "ns_coeffs": check_coeffs("adamuon", ns_coeffs),
        "beta": beta,
        "b2": b2,
        "eps": eps,
        "weight_decay": weight_decay,
        "consistent_rms": consistent_rms,
        "adam_learning_rate": adam_learning_rate,
        "adam_b1": adam_b1,
        "adam_b2": adam_b2,
        "adam_eps": adam_eps,
        "adam_weight_decay": adam_weight_decay,
    }
    return lift_beside_adamw(
        lambda axes, decays: adamuon_rule(axes, decays, orthogonal_momentum),
        hyperparams,
        matrix_axes,
        mask,
        name="adamuon",
        state_dtype=state_dtype,
        layout=layout,
    )
