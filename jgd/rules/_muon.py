r"""Muon: momentum whose matrices are made orthogonal before the step.

$$
\begin{aligned}
m_t &= \beta m_{t-1} + (1-\beta)\, g_t \\
\hat m_t &= \beta\, m_t / (1-\beta^{t+1}) + (1-\beta)\, g_t / (1-\beta^t) \\
\theta_t &= \theta_{t-1} - \eta\, \bigl(s \cdot \operatorname{NS}(\hat m_t) + \lambda\, \theta_{t-1}\bigr)
\end{aligned}
$$

with the slot $m$ (`mu`), NS the Newton-Schulz iteration (every singular value becomes about one), and
$s = \sqrt{\max(1, n/m)}$ for a matrix of `m` inputs by `n` outputs. Leaves that are no matrices get AdamW.

The form is optax's: momentum is corrected for its start at zero, which Jordan's code does not do. With `adaptive=True`
each matrix of a stack has its own dual norm, where optax 0.2.8 sums over the stack.

References:
    - Jordan et al., "Muon: An optimizer for hidden layers", https://kellerjordan.github.io/posts/muon, 2024.
    - Liu et al., "Muon is scalable for LLM training", https://arxiv.org/abs/2502.16982, 2025 (`consistent_rms`).
    - Bernstein and Newhouse, "Old optimizer, new norm", https://arxiv.org/abs/2409.20325, 2024 (`adaptive`).
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from optax.contrib import MuonDimensionNumbers

from jgd.core import (
    Array,
    Hyper,
    Mask,
    Optimizer,
    PyTree,
    Rule,
    ScalarOrSchedule,
    Slots,
    broadcast_mask,
    debias,
    increment,
    lift,
    under_prefix,
    zeros,
)
from jgd.rules._adam import ADAM, NADAM
from jgd.rules._matrix_axes import as_matrices, axes_of, from_matrices
from jgd.rules._newton_schulz import NS_COEFFS, Preconditioning, check_coeffs, check_preconditioning, orthogonalize
from jgd.rules._weight_decay import decayed


def muon_rule(
    axes: MuonDimensionNumbers,
    decays: bool,
    steps: int,
    nesterov: bool,
    adaptive: bool,
    preconditioning: Preconditioning,
) -> Rule:
    """The rule for leaves whose matrix axes are `axes`."""

    def prepare(hyper: Hyper, step: Array) -> Hyper:
        beta, weight = hyper["beta"], hyper["1-beta"]
        if not nesterov:
            return hyper | {"mu_scale": 1 / debias(weight, step)}
        scales = {"mu_scale": beta / debias(weight, increment(step)), "grad_scale": weight / debias(weight, step)}
        return hyper | scales

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del step
        mu = hyper["beta"] * slots["mu"] + hyper["1-beta"] * grad
        mu_hat = hyper["mu_scale"] * mu
        if nesterov:
            mu_hat = mu_hat + hyper["grad_scale"] * grad
        matrices = as_matrices(mu_hat, axes)
        direction = orthogonalize(matrices, hyper["ns_coeffs"], steps, hyper["eps"], preconditioning)
        if adaptive:
            direction = jnp.sum(matrices.conj() * direction, axis=(-2, -1), keepdims=True) * direction
        direction = from_matrices(direction * _shape_scale(matrices.shape, hyper), grad.shape, axes)
        if decays:
            direction = direction + hyper["weight_decay"] * param
        return -hyper["learning_rate"] * direction, {"mu": mu}

    return Rule(update, slots={"mu": zeros}, kind="matrix", needs_params=True, prepare=prepare)


def _shape_scale(shape: tuple[int, ...], hyper: Hyper) -> Array | float:
    fan_in, fan_out = shape[-2:]
    if "consistent_rms" in hyper:
        return hyper["consistent_rms"] * math.sqrt(max(fan_in, fan_out))
    return math.sqrt(max(1.0, fan_out / fan_in))


def muon(
    learning_rate: ScalarOrSchedule,
    ns_coeffs: Any = NS_COEFFS["standard"],
    ns_steps: int = 5,
    beta: ScalarOrSchedule = 0.95,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    mu_dtype: Any = "auto",
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    adam_b1: ScalarOrSchedule = 0.9,
    adam_b2: ScalarOrSchedule = 0.999,
    adam_eps_root: ScalarOrSchedule = 0.0,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_learning_rate: ScalarOrSchedule | None = None,
    muon_weight_dimension_numbers: Any = None,
    consistent_rms: ScalarOrSchedule | None = None,
    state_dtype: Any = None,
    layout: Any = "auto",
) -> Optimizer:
    """Muon for matrices, AdamW for the other leaves; as `optax.contrib.muon`.

    Args:
        learning_rate: The spectral norm of a step, about; at least 0.
        ns_coeffs: Coefficients of the Newton-Schulz iteration: three numbers, rows of three (one iteration each), or
            the name of a preset, `"standard"` or `"dion"`.
        ns_steps: Iterations with one triple; fixed when the step is compiled.
        beta: Decay rate of the momentum, in [0, 1).
        eps: Keeps zero matrices from being divided by zero; it is AdamW's `eps` as well.
        weight_decay: For the matrices: the share, times the learning rate, that a step takes away; at least 0.
        weight_decay_mask: Which matrices decay; as `mask` of `jgd.adamw`.
        mu_dtype: The dtype of the slot `mu`; as for `jgd.adam`.
        nesterov: Whether to use Nesterov momentum, in AdamW too.
        adaptive: Whether to scale each step by the dual norm of its momentum.
        preconditioning: See `jgd.rules.orthogonalize`.
        adam_b1: AdamW's `b1`.
        adam_b2: AdamW's `b2`.
        adam_eps_root: AdamW's `eps_root`.
        adam_weight_decay: AdamW's `weight_decay`.
        adam_learning_rate: AdamW's learning rate; None to share `learning_rate`.
        muon_weight_dimension_numbers: Which leaves get Muon, and which of their axes make the matrix: a tree (or a
            prefix, or a function from params to one) of `MuonDimensionNumbers`, and None for AdamW. By default
            leaves of two axes get Muon.
        consistent_rms: Scale steps by this times `sqrt(max(m, n))` instead; 0.2 matches AdamW's usual step.
        state_dtype: The dtype of all slots; it goes before `mu_dtype`.
        layout: How leaves are laid out while the update runs, see `jgd.core.lift`.

    Returns:
        An optimizer with the hyperparameters above (of the numbers), and the slots `mu` and `nu`; matrices have no
        `nu`.

    Raises:
        TypeError, ValueError: A hyperparameter is no finite number or outside its range, `ns_coeffs` are no triples,
            the matrix axes do not fit a leaf, or `update` is called without params.

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
    check_preconditioning("muon", preconditioning)
    coeffs = check_coeffs("muon", ns_coeffs)
    make_rule = functools.cache(
        lambda axes, decays: muon_rule(axes, decays, ns_steps, nesterov, adaptive, preconditioning)
    )
    auxiliary = under_prefix(decayed(NADAM if nesterov else ADAM), "adam_")

    def choose(params: PyTree) -> PyTree:
        axes = axes_of("muon", params, muon_weight_dimension_numbers)
        decays = broadcast_mask("muon", weight_decay_mask, params)
        rules = [
            auxiliary if leaf_axes is None else make_rule(leaf_axes, leaf_decays)
            for leaf_axes, leaf_decays in zip(axes, jax.tree.leaves(decays), strict=True)
        ]
        return jax.tree.unflatten(jax.tree.structure(params), rules)

    hyperparams = {
        "learning_rate": learning_rate,
        "ns_coeffs": coeffs,
        "beta": beta,
        "eps": eps,
        "weight_decay": weight_decay,
        "adam_b1": adam_b1,
        "adam_b2": adam_b2,
        "adam_eps_root": adam_eps_root,
        "adam_weight_decay": adam_weight_decay,
    }
    optional = {"adam_learning_rate": adam_learning_rate, "consistent_rms": consistent_rms}
    return lift(
        (make_rule(MuonDimensionNumbers(), True), auxiliary),
        hyperparams | {key: value for key, value in optional.items() if value is not None},
        name="muon",
        choose=choose,
        arrays=("ns_coeffs",),
        slot_dtypes={"mu": mu_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )
