r"""Muon: momentum whose matrices are made orthogonal before the step.

$$
\begin{aligned}
m_t &= \beta m_{t-1} + (1-\beta)\, g_t, \qquad
\hat m_t = \beta\, m_t / (1-\beta^{t+1}) + (1-\beta)\, g_t / (1-\beta^t) \\
\theta_t &= \theta_{t-1} - \eta\, \bigl(s \cdot \operatorname{NS}(\hat m_t) + \lambda\, \theta_{t-1}\bigr)
\end{aligned}
$$

with the slot $m$ (`mu`), NS the Newton-Schulz iteration (every singular value becomes about one), and
$s = \sqrt{\max(1, n/m)}$ for a matrix of `m` inputs by `n` outputs. Leaves that are not matrices get AdamW.

The form is optax's, except with `adaptive=True`: here each matrix of a stack has its own dual norm, where optax 0.2.8
sums over the stack. The forms that `like` names omit both corrections $1-\beta^t$, and use Adam without Nesterov
momentum for the other leaves. Besides:

| `like` | differs in |
| --- | --- |
| `"keller"` | $s$ of a kernel of a convolution is $\sqrt{\max(1, \text{height}/\text{width})}$ |
| `"moonshot"` | $s = 0.2 \sqrt{\max(m, n)}$; $\epsilon$ is added before corrections, to the norm of gradients' sum |
| `"torch"` | NS divides by $\max(\lVert \hat m \rVert, \epsilon)$; `consistent_rms=0.2` is its `"match_rms_adamw"` |

The code of all three rounds to bfloat16 in NS (`ns_dtype`), has `eps=1e-7`, and weight decays of 0, 0.1 and 0.1.

References:
    - Jordan et al., "Muon: An optimizer for hidden layers", https://kellerjordan.github.io/posts/muon, 2024.
    - Liu et al., "Muon is scalable for LLM training", https://arxiv.org/abs/2502.16982, 2025 (`consistent_rms`).
    - Bernstein and Newhouse, "Old optimizer, new norm", https://arxiv.org/abs/2409.20325, 2024 (`adaptive`).
"""

import math

import jax.numpy as jnp
from optax.contrib import MuonDimensionNumbers as MuonDimensionNumbers

from jgd.core import (
    Array,
    DTypeLike,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    SlotDtype,
    Slots,
    StateDtype,
    TreeOrFunction,
    check_choice,
)
from jgd.rules.matrices._axes import as_matrices, from_matrices
from jgd.rules.matrices._lift import adamw_beside, lift_beside_adamw
from jgd.rules.matrices._newton_schulz import NS_COEFFS, NSCoeffs, Preconditioning, check_coeffs
from jgd.rules.matrices._orthogonal_momentum import Like, OrthogonalMomentum, matrix_rule, shape_scale


def muon_rule(axes: MuonDimensionNumbers, decays: bool, momentum: OrthogonalMomentum, adaptive: bool = False) -> Rule:
    """Muon for leaves whose matrix axes are `axes`."""

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del step
        mu, mu_hat = momentum.average(grad, slots["mu"], hyper)
        matrices = as_matrices(mu_hat, axes)
        direction = momentum.orthogonalize(matrices, hyper)
        if adaptive:
            direction = jnp.sum(matrices.conj() * direction, axis=(-2, -1), keepdims=True) * direction
        if "consistent_rms" in hyper:
            scale = hyper["consistent_rms"] * math.sqrt(max(matrices.shape[-2:]))
        else:
            scale = shape_scale(matrices.shape, axes, grad.shape, momentum.like)
        direction = from_matrices(direction * scale, grad.shape, axes)
        if decays:
            direction = direction + hyper["weight_decay"] * param
        return -hyper["learning_rate"] * direction, {"mu": mu}

    return matrix_rule(update, momentum)


def muon(
    learning_rate: ScalarOrSchedule,
    ns_coeffs: NSCoeffs = NS_COEFFS["standard"],
    ns_steps: int = 5,
    beta: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    mu_dtype: SlotDtype | None = "auto",
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    adam_b1: ScalarOrSchedule = 0.9,
    adam_b2: ScalarOrSchedule = 0.999,
    adam_eps_root: ScalarOrSchedule = 0.0,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    muon_weight_dimension_numbers: TreeOrFunction | None = None,
    consistent_rms: ScalarOrSchedule | None = None,
    adam_eps: ScalarOrSchedule | None = None,
    like: Like | None = None,
    ns_dtype: DTypeLike | None = None,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Muon for matrices, AdamW for the other leaves; as `optax.contrib.muon`.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: The spectral norm of a step, about; at least 0.
        ns_coeffs: Coefficients of the Newton-Schulz iteration: three numbers, rows of three (one iteration each), or
            the name of a preset: `"standard"` (also `"muon"`), `"dion"`, `"polar_express"`.
        ns_steps: Iterations with one triple; fixed when the step is compiled.
        beta: Decay rate of the momentum, in [0, 1).
        eps: Keeps zero matrices from being divided by zero.
        weight_decay: For the matrices: the share, times the learning rate, that a step takes away; at least 0.
        weight_decay_mask: Which matrices decay; as `mask` of `jgd.adamw`.
        nesterov: Whether to use Nesterov momentum, and in AdamW too where `like` is None.
        adaptive: Whether to scale each step by the dual norm of its momentum.
        preconditioning: How matrices are scaled before the iteration; see `jgd.rules.orthogonalize`.
        adam_b1: AdamW's `b1`.
        adam_b2: AdamW's `b2`.
        adam_eps_root: AdamW's `eps_root`.
        adam_weight_decay: AdamW's `weight_decay`.
        adam_learning_rate: AdamW's learning rate; None to share `learning_rate`.
        muon_weight_dimension_numbers: Which leaves get Muon, and which of their axes make the matrix: a tree (or a
            prefix, or a function from params to one) of `MuonDimensionNumbers`, None for AdamW, and names: `"stacks"`,
            `"conv"`, `"torch"`, `"torch_stacks"`, see `jgd.rules.matrix_axes_for`. By default leaves of two axes.
        consistent_rms: Scale steps by this times `sqrt(max(m, n))` instead; 0.2 matches AdamW's usual step.
        adam_eps: AdamW's `eps`; None to share `eps`.
        like: Whose form to take: `"keller"`, `"moonshot"`, `"torch"`, or optax's. The numbers stay as given.
        ns_dtype: What matrices are rounded to within the iteration, such as `"bfloat16"`; None for no rounding.

    Returns:
        An optimizer whose hyperparameters are `ns_coeffs` and the arguments that may be schedules, with the slots `mu`
        and `nu`; matrices have no `nu`.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, `ns_coeffs` are not triples,
            a name is unknown, the matrix axes do not fit a leaf, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}
        >>> grads = {"kernel": jnp.array([[3.0, 0.0], [0.0, 0.1]]), "bias": jnp.ones(2)}
        >>> optimizer = jgd.muon(0.1)
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
        >>> print(updates["kernel"].round(2))  # both singular values of the step are near 0.1
        [[-0.07 -0.  ]
         [-0.   -0.11]]
    """
    check_choice("muon", "preconditioning", preconditioning, Preconditioning)
    if like is not None:
        check_choice("muon", "like", like, Like)
    orthogonal_momentum = OrthogonalMomentum(like, ns_steps, nesterov, preconditioning, ns_dtype)
    hyperparams = {
        "learning_rate": learning_rate,
        "ns_coeffs": check_coeffs("muon", ns_coeffs),
        "beta": beta,
        "eps": eps,
        "weight_decay": weight_decay,
        "adam_b1": adam_b1,
        "adam_b2": adam_b2,
        "adam_eps_root": adam_eps_root,
        "adam_weight_decay": adam_weight_decay,
        "adam_learning_rate": adam_learning_rate,
        "consistent_rms": 0.2 if like == "moonshot" and consistent_rms is None else consistent_rms,
        "adam_eps": adam_eps,
    }
    return lift_beside_adamw(
        lambda axes, decays: muon_rule(axes, decays, orthogonal_momentum, adaptive),
        hyperparams,
        muon_weight_dimension_numbers,
        weight_decay_mask,
        adamw_beside(nesterov and like is None, eps_uncorrected=like == "moonshot"),
        name="muon",
        slot_dtypes={"mu": mu_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )
