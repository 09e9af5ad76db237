r"""NorMuon: Muon whose update is normalized neuron by neuron.

$$
\begin{aligned}
m_t &= \beta m_{t-1} + (1-\beta)\, g_t, \qquad O_t = \operatorname{NS}\bigl(\beta m_t + (1-\beta)\, g_t\bigr) \\
v_t &= \beta_2 v_{t-1} + (1-\beta_2)\, \operatorname{mean}_\text{in}(O_t^2), \qquad
\hat O_t = O_t / (\sqrt{v_t} + 10^{-10}) \\
\theta_t &= \theta_{t-1} - \eta\, \Bigl(s\, \frac{\lVert O_t \rVert}{\lVert \hat O_t \rVert}\, \hat O_t
            + \lambda\, \theta_{t-1}\Bigr)
\end{aligned}
$$

with the slots $m$ (`mu`) and $v$ (`neuron`, one number an output), and $s = \sqrt{\max(1, n/m)}$ for `m` inputs by `n`
outputs. Leaves that are not matrices get AdamW.

This is the authors' code. Their Algorithm 1 has no Nesterov momentum and steps of the root mean square 0.2, as with
`consistent_rms=0.2`. For kernels of convolutions their averages run over the width alone, here over all inputs.

References:
    - Li et al., "NorMuon: Making Muon more efficient", https://arxiv.org/abs/2510.05491, 2025, Algorithm 1.
"""

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
    real_dtype,
    root,
)
from jgd.rules.matrices._axes import as_matrices, from_matrices
from jgd.rules.matrices._lift import lift_beside_adamw
from jgd.rules.matrices._newton_schulz import NS_COEFFS, NSCoeffs, check_coeffs
from jgd.rules.matrices._orthogonal_momentum import OrthogonalMomentum, matrix_rule, shape_scale

TINY = 1e-10  # beside root and norm, as in the authors' code


def normuon_rule(axes: MuonDimensionNumbers, decays: bool, momentum: OrthogonalMomentum) -> Rule:
    """NorMuon for leaves whose matrix axes are `axes`."""

    def one_a_neuron(param: Array) -> Array:
        return jnp.zeros_like(as_matrices(param, axes)[:, :1], dtype=real_dtype(param.dtype))

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del step
        mu, mu_hat = momentum.average(grad, slots["mu"], hyper)
        direction = momentum.orthogonalize(as_matrices(mu_hat, axes), hyper)
        square = abs_sq(direction)
        mean = jnp.sum(square, axis=1, keepdims=True) / max(direction.shape[1], 1)
        neuron = hyper["b2"] * slots["neuron"] + hyper["1-b2"] * mean
        direction = direction / (jnp.sqrt(neuron) + TINY)
        norm = root(jnp.sum(abs_sq(direction), axis=(1, 2), keepdims=True))
        if "consistent_rms" in hyper:
            size = hyper["consistent_rms"] * math.sqrt(math.prod(direction.shape[1:]))
        else:
            size = root(jnp.sum(square, axis=(1, 2), keepdims=True))
            size = size * shape_scale(direction.shape, axes, grad.shape, "keller")
        direction = from_matrices(direction * (size / (norm + TINY)), grad.shape, axes)
        if decays:
            direction = direction + hyper["weight_decay"] * param
        return -hyper["learning_rate"] * direction, {"mu": mu, "neuron": neuron}

    return matrix_rule(update, momentum, neuron=one_a_neuron)


def normuon(
    learning_rate: ScalarOrSchedule,
    beta: ScalarOrSchedule = 0.95,
    b2: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 1e-7,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    nesterov: bool = True,
    ns_coeffs: NSCoeffs = NS_COEFFS["muon"],
    ns_steps: int = 5,
    ns_dtype: DTypeLike | None = None,
    consistent_rms: ScalarOrSchedule | None = None,
    matrix_axes: TreeOrFunction | None = None,
    adam_learning_rate: ScalarOrSchedule | None = None,
    adam_b1: ScalarOrSchedule = 0.9,
    adam_b2: ScalarOrSchedule = 0.95,
    adam_eps: ScalarOrSchedule = 1e-10,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """NorMuon for matrices, AdamW for the other leaves.

    Arguments that are not described here are those of `jgd.muon`.

    Args:
        learning_rate: The spectral norm of a step, about; at least 0. The authors' is 0.02.
        beta: Decay rate of the momentum, in [0, 1).
        b2: Decay rate of each neuron's average square, in [0, 1).
        eps: Added to the norm of the momentum, at least 0.
        mask: Which matrices decay; as for `jgd.adamw`.
        nesterov: Whether to use Nesterov momentum.
        ns_dtype: As for `jgd.muon`; the authors round to `"bfloat16"`.
        consistent_rms: The root mean square of a step with learning rate one; None keeps Muon's norm.
        matrix_axes: As `muon_weight_dimension_numbers` of `jgd.muon`.
        adam_learning_rate: AdamW's learning rate; None to share `learning_rate`. The authors' is 3e-4.
        adam_eps: AdamW's `eps`.

    Returns:
        An optimizer whose hyperparameters are `ns_coeffs` and the arguments that may be schedules, with the slots `mu`,
        `neuron` (one number an output) and `nu`.

    Raises:
        TypeError, ValueError: As for `jgd.muon`.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params, grads = jnp.eye(2), jnp.array([[3.0, 0.0], [0.0, 0.1]])
        >>> optimizer = jgd.normuon(0.1)
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
        >>> print(updates.round(2))
        [[-0.09 -0.  ]
         [-0.   -0.09]]
    """
    orthogonal_momentum = OrthogonalMomentum("keller", ns_steps, nesterov, ns_dtype=ns_dtype)
    hyperparams = {
        "learning_rate": learning_rate,
        "ns_coeffs": check_coeffs("normuon", ns_coeffs),
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
        lambda axes, decays: normuon_rule(axes, decays, orthogonal_momentum),
        hyperparams,
        matrix_axes,
        mask,
        name="normuon",
        state_dtype=state_dtype,
        layout=layout,
    )
