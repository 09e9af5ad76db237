r"""SOAP: Adam in the slowly turning eigenbasis of Shampoo's preconditioner.

For a matrix $G$ (likewise for each axis of a leaf with more), with $Q_L$, $Q_R$ as they were after the last step:

$$
\begin{aligned}
g_t &= Q_L^\top G_t\, Q_R \\
m_t &= \beta_1 m_{t-1} + (1-\beta_1)\, g_t, \qquad v_t = \beta_2 v_{t-1} + (1-\beta_2)\, g_t^2 \\
\theta_t &= \bigl(\theta_{t-1} - \eta_t\, Q_L\, \tfrac{m_t}{\sqrt{v_t} + \epsilon}\, Q_R^\top\bigr)
    (1 - \eta \lambda), \qquad \eta_t = \eta \sqrt{1-\beta_2^{t-1}} / (1-\beta_1^{t-1}) \\
L_t &= \beta_s L_{t-1} + (1-\beta_s)\, G_t G_t^\top, \qquad R_t = \beta_s R_{t-1} + (1-\beta_s)\, G_t^\top G_t
\end{aligned}
$$

and now and then $Q_L \leftarrow \operatorname{qr}(L_t Q_L)$, $Q_R \leftarrow \operatorname{qr}(R_t Q_R)$, their columns
sorted first, $v$ with them. Slots: $m$ (`mu`) and $v$ (`nu`) in the rotated basis, $L, R$ (`factors`), $Q$ (`basis`).
The QR is made of matrix products, see `jgd.rules._orthonormal`; the compiled step holds no decomposition.

The formulas are those of the authors' code. The first step changes no param, it only starts $L$ and $R$; $m$ turns with
the basis, where the paper keeps it unrotated; the decay comes last. The authors start the basis with an
eigendecomposition; compiling one takes long on accelerators, so that by default ours starts like a refresh.

References:
    - Vyas et al., "SOAP: Improving and stabilizing Shampoo using Adam", https://arxiv.org/abs/2409.11321, 2024,
      Algorithm 3.
"""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp

from jgd.core import AT_LEAST_ONE, Array, Hyper, Mask, Optimizer, Rule, ScalarOrSchedule
from jgd.rules._soap_rule import InitBasis, check_init_basis, soap_rule, soap_view
from jgd.rules._stagger import lift_staggered
from jgd.rules._weight_decay import DecayForm, decayed


def _from_second_step(rule: Rule) -> Rule:
    """The rule with a weight decay that rests in the first step, as the rule itself does."""

    def prepare(hyper: Hyper, step: Array) -> Hyper:
        return rule.prepare(hyper | {"weight_decay": jnp.where(step > 1, hyper["weight_decay"], 0)}, step)

    return dataclasses.replace(rule, prepare=prepare)


def soap(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.95,
    b2: ScalarOrSchedule = 0.95,
    shampoo_beta: ScalarOrSchedule | None = None,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.01,
    precondition_frequency: ScalarOrSchedule = 10,
    max_precond_dim: int = 10000,
    mask: Mask = None,
    *,
    merge_dims: bool = False,
    precondition_1d: bool = False,
    normalize_grads: bool = False,
    correct_bias: bool = True,
    init_basis: InitBasis = "qr",
    stagger: bool = False,
    decay_form: DecayForm = "after",
    state_dtype: Any = None,
    layout: Any = "auto",
) -> Optimizer:
    """SOAP: Shampoo with Adam in the preconditioner's eigenbasis.

    Args:
        learning_rate: About the size of a step in each parameter, at least 0; the authors use 3e-3.
        b1: Decay rate of the average of gradients, in [0, 1).
        b2: Decay rate of the average of squared gradients, in [0, 1).
        shampoo_beta: Decay rate of the average of gradients' products with themselves; None to share `b2`.
        eps: Added to the root of the second moment, at least 0.
        weight_decay: The share of each parameter, times the learning rate, that a step takes away; at least 0.
        precondition_frequency: Steps between two refreshes of the basis, at least 1.
        max_precond_dim: Axes longer than this keep their own basis.
        mask: Which leaves decay; as for `jgd.adamw`.
        merge_dims: Whether to join neighboring axes while their product is at most `max_precond_dim`.
        precondition_1d: Whether vectors have a basis too; otherwise they get Adam, as scalars do.
        normalize_grads: Whether to scale each leaf's direction to a root mean square of one.
        correct_bias: Whether to correct the moments for their start at zero.
        init_basis: The basis after the first gradient: `"qr"`, a few power iterations from the identity; `"eigh"`, the
            eigenvectors, as the authors' code has it; `"identity"`, which waits for the first refresh.
        stagger: Whether to spread the leaves' refreshes over the cycle. The authors' code, and ours by default, has all
            in one step, which then takes several times as long as the others.
        decay_form: How the decay enters; as for `jgd.adamw`.
        state_dtype: The dtype of all slots.
        layout: How leaves are laid out while the update runs, see `jgd.core.lift`.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `b1`, `b2`, `eps`, `precondition_frequency`,
        `weight_decay` (and `shampoo_beta` where it is given), and the slots `mu` and `nu`, two numbers a parameter,
        `factors` and `basis`, each a square matrix for every preconditioned axis.

    Raises:
        TypeError, ValueError: A hyperparameter is no finite number or outside its range, a leaf is complex, the mask
            does not fit the params, there is no such `init_basis`, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.eye(2)
        >>> optimizer = jgd.soap(0.1, weight_decay=0.0)
        >>> grads, state = jnp.array([[3.0, 0.0], [0.0, 0.1]]), optimizer.init(params)
        >>> updates, state = optimizer.update(grads, state, params)  # the first step only starts the basis
        >>> updates, state = optimizer.update(grads, state, params)
        >>> print(updates.round(3) + 0)
        [[-0.1  0. ]
         [ 0.  -0.1]]
    """
    check_init_basis(init_basis)
    view = functools.partial(soap_view, max_dim=max_precond_dim, merge=merge_dims, precondition_1d=precondition_1d)
    rule = soap_rule(view, normalize_grads, correct_bias, init_basis)

    def cost(shape: tuple[int, ...]) -> float:
        seen, axes = view(shape)
        return sum(float(seen[axis]) ** 3 for axis in axes)

    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "weight_decay": weight_decay}
    hyperparams |= {"precondition_frequency": precondition_frequency}
    return lift_staggered(
        rule,
        _from_second_step(decayed(rule, decay_form)),
        hyperparams if shampoo_beta is None else hyperparams | {"shampoo_beta": shampoo_beta},
        mask,
        cost if stagger else None,
        name="soap",
        ranges={"precondition_frequency": AT_LEAST_ONE},
        state_dtype=state_dtype,
        layout=layout,
    )
