r"""PSGD Kron: a preconditioner of triangular factors, each fitted by descent on a Lie group.

For a matrix (likewise for leaves of fewer axes; with more, axes are joined first), with the probe
$V \sim \mathcal N(0, 1)$:

$$
\begin{aligned}
m_t &= \beta_1 m_{t-1} + (1-\beta_1)\, g_t, \qquad \hat m_t = m_t / (1-\beta_1^t) \\
A &= Q_L \hat m_t Q_R^\top, \qquad B = Q_L^{-\top} V Q_R^{-1} \\
Q_L &\leftarrow Q_L - \tfrac{\rho}{\lVert A A^\top + B B^\top \rVert} \operatorname{triu}(A A^\top - B B^\top)\, Q_L,
    \qquad \text{and so } Q_R \text{ with } A^\top A,\ B^\top B \\
\theta_t &= \theta_{t-1} - \eta\, \bigl(\operatorname{clip}(Q_L^\top Q_L\, \hat m_t\, Q_R^\top Q_R)
    + \lambda\, \theta_{t-1}\bigr)
\end{aligned}
$$

with the slots $m$ (`mu`) and $Q$ (`factors`), a cheap lower bound for the spectral norm, and a clip to a root mean
square of 1.1. In steps that refit, $\hat m_t$ carries noise along $V$, of 3e-4 of its mean size, as at the author's.

The author counts steps since the last refit; ours refits in steps that divide by the interval, so that no state is
needed: the same for a constant probability. He evens out the factors' scales at random, which moves no step; ours does
so every hundredth refit. A zero gradient refits nothing: the author's factors grow without bound then.

References:
    - Li, "Preconditioned stochastic gradient descent", https://arxiv.org/abs/1512.04202, 2015.
    - Pooladzandi and Li, "Curvature-informed SGD via general purpose Lie-group preconditioners",
      https://arxiv.org/abs/2402.04553, 2024.
"""

from typing import Any

import jax

from jgd.core import NOT_NEGATIVE, UP_TO_ONE, Array, Mask, Optimizer, ScalarOrSchedule
from jgd.rules._kron_rule import MemorySaveMode, Probe, check_memory_save_mode, kron_rule, precond_update_prob_schedule
from jgd.rules._weight_decay import DecayForm, lift_decayed


def kron(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    preconditioner_update_probability: ScalarOrSchedule | None = None,
    max_size_triangular: int = 8192,
    min_ndim_triangular: int = 2,
    memory_save_mode: MemorySaveMode = None,
    momentum_into_precond_update: bool = True,
    precond_lr: ScalarOrSchedule = 0.1,
    precond_init_scale: float = 1.0,
    merge_dims: bool = True,
    mu_dtype: Any = "auto",
    precond_dtype: Any = "auto",
    mask: Mask = "matrices",
    *,
    seed: int = 0,
    probe: Probe | None = None,
    decay_form: DecayForm = "scaled",
    state_dtype: Any = None,
    layout: Any = "auto",
) -> Optimizer:
    """PSGD Kron: preconditioned SGD with Kronecker factors.

    Args:
        learning_rate: About the size of a step in each parameter, at least 0; about a third of Adam's.
        b1: Decay rate of the average of gradients, in [0, 1).
        weight_decay: The share of each parameter, times the learning rate, that a step takes away; at least 0.
        preconditioner_update_probability: In what share of the steps to refit the factors, above 0 and at most 1;
            None for `precond_update_prob_schedule()`.
        max_size_triangular: Longer axes have a diagonal factor.
        min_ndim_triangular: Leaves of fewer axes have diagonal factors.
        memory_save_mode: Which other axes have a diagonal factor: None for none, `"one_diag"` for the longest,
            `"smart_one_diag"` for the longest where it is alone the longest, `"all_diag"` for all.
        momentum_into_precond_update: Whether to fit to the momentum, in place of the gradient.
        precond_lr: The step size of the fit, at least 0.
        precond_init_scale: The scale of the preconditioner's root at first.
        merge_dims: Whether to see leaves of three axes and more as matrices.
        mu_dtype: The dtype of the slot `mu`; as for `jgd.adam`.
        precond_dtype: The dtype of the slot `factors`, in the same words.
        mask: Which leaves decay, by default those of two axes and more; as for `jgd.adamw`.
        seed: Of the probes. Leaves of one shape are given the same.
        probe: `probe(step, shape, dtype)` in place of normal draws: numbers of mean 0 and variance 1.
        decay_form: How the decay enters; as for `jgd.adamw`.
        state_dtype: The dtype of all slots; it goes before those of each.
        layout: How leaves are laid out while the update runs, see `jgd.core.lift`.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `b1`, `weight_decay`,
        `preconditioner_update_probability`, `precond_lr`, and the slots `mu`, one number a parameter, and
        `factors`, a square matrix or a vector for each axis.

    Raises:
        TypeError, ValueError: A hyperparameter is no finite number or outside its range, a leaf is complex, the mask
            does not fit the params, there is no such `memory_save_mode`, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.eye(2)
        >>> optimizer = jgd.kron(0.1)
        >>> grads = jnp.array([[3.0, 0.0], [0.0, 0.1]])
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
        >>> print(jnp.sign(jnp.diag(updates)))
        [-1. -1.]
    """
    check_memory_save_mode(memory_save_mode)
    if preconditioner_update_probability is None:
        preconditioner_update_probability = precond_update_prob_schedule()

    def normal(step: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        return jax.random.normal(jax.random.fold_in(jax.random.key(seed), step), shape, dtype)

    rule = kron_rule(
        max_size_triangular,
        min_ndim_triangular,
        memory_save_mode,
        momentum_into_precond_update,
        precond_init_scale,
        merge_dims,
        probe or normal,
    )
    hyperparams = {
        "learning_rate": learning_rate,
        "b1": b1,
        "preconditioner_update_probability": preconditioner_update_probability,
        "precond_lr": precond_lr,
    }
    return lift_decayed(
        rule,
        hyperparams,
        weight_decay,
        mask,
        decay_form,
        name="kron",
        ranges={
            "preconditioner_update_probability": UP_TO_ONE,
            "precond_lr": NOT_NEGATIVE,
        },
        slot_dtypes={"mu": mu_dtype, "factors": precond_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )
