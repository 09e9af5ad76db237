r"""Shampoo: each axis of a gradient divided by the root of its own second moments.

For a matrix $G$ (likewise for each of the $k$ axes of a block with more or fewer, with exponent $-1/2k$):

$$
\begin{aligned}
L_t &= \beta_2 L_{t-1} + w\, G_t G_t^\top, \qquad R_t = \beta_2 R_{t-1} + w\, G_t^\top G_t \\
m_t &= \beta_1 m_{t-1} + (1-\beta_1)\, G_t, \qquad \hat m_t = m_t / (1-\beta_1^t) \\
\theta_t &= \theta_{t-1} - \eta\, \bigl(s_t\, (\hat L + \epsilon)^{-1/4}\, \hat m_t\, (\hat R + \epsilon)^{-1/4}
    + \lambda\, \theta_{t-1}\bigr)
\end{aligned}
$$

with $w = 1$ where $\beta_2 = 1$ (sums, as first published), else $1-\beta_2$ and $\hat L = L / (1-\beta_2^t)$. Grafting
sets $s_t$ so that a block's step is as long as another method's. Powers are taken in the eigenbasis of the factors,
which is refreshed now and then, by one step of orthogonal iteration; the eigenvalues are right in every step,
$\operatorname{diag}(Q^\top L_t\, Q)$, since old ones make the directions that are new in a gradient explode. Slots: $m$
(`mu`; in the basis, unless grafting needs it plain), $L, R$ (`factors`), `basis`, `eigenvalues`, and the grafted
method's squares (`graft_nu`). With `root="eigh"`, Meta's form, whole inverse `roots` are stored, old between refreshes.

The formulas are those of Meta's code: the damping enters when a power of the corrected factors is taken, where the
paper of 2018 starts the sums at $\epsilon I$; leaves are merged and cut into blocks; vectors have a factor too.

References:
    - Gupta et al., "Shampoo: Preconditioned stochastic tensor optimization", https://arxiv.org/abs/1802.09568, 2018.
    - Shi et al., "A distributed data-parallel PyTorch implementation of the distributed Shampoo optimizer",
      https://arxiv.org/abs/2309.06497, 2023.
    - Eschenhagen et al., "Purifying Shampoo", https://arxiv.org/abs/2506.03595, 2025, on old eigenvalues.
"""

import functools
from typing import Any

from jgd.core import AT_LEAST_ONE, DECAY_RATE, POSITIVE, UP_TO_ONE, Mask, Optimizer, ScalarOrSchedule, check_choice
from jgd.rules._preconditioners import block_shapes
from jgd.rules._shampoo_rule import Graft, Root, shampoo_rule, shampoo_view
from jgd.rules._stagger import lift_staggered
from jgd.rules._weight_decay import DecayForm, decayed


def shampoo(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 1.0,
    eps: ScalarOrSchedule = 1e-12,
    weight_decay: ScalarOrSchedule = 0.0,
    block_size: int = 1024,
    precondition_frequency: ScalarOrSchedule = 10,
    start_preconditioning_step: ScalarOrSchedule | None = None,
    mask: Mask = None,
    *,
    graft: Graft = "none",
    graft_b2: ScalarOrSchedule | None = None,
    graft_eps: ScalarOrSchedule = 1e-10,
    relative_eps: ScalarOrSchedule = 1e-6,
    inverse_exponent_override: ScalarOrSchedule | None = None,
    root: Root = "qr",
    stagger: bool = False,
    merge_dims: bool = True,
    correct_bias: bool = True,
    decay_form: DecayForm = "scaled",
    state_dtype: Any = None,
    layout: Any = "auto",
) -> Optimizer:
    """Shampoo, with blocks and grafting as in Meta's distributed Shampoo.

    Args:
        learning_rate: How far to go along the preconditioned direction, at least 0. With grafting, that of the
            grafted method.
        b1: Decay rate of the average of gradients, in [0, 1).
        b2: Decay rate of the factors, in [0, 1]; at 1 they are sums.
        eps: Added to the factors' eigenvalues, above 0; see `relative_eps`.
        weight_decay: The share of each parameter, times the learning rate, that a step takes away; at least 0.
        block_size: The largest factor: leaves are cut into blocks of at most this many entries along each axis.
        precondition_frequency: Steps between two refreshes, at least 1. They are dear; Meta's default is 1.
        start_preconditioning_step: The step of the first refresh; before it the grafted method runs, or without one
            plain momentum. None for 1, with `"eigh"` for `precondition_frequency`.
        mask: Which leaves decay; as for `jgd.adamw`.
        graft: Whose length a block's step takes: `"none"`, `"sgd"`, `"adagrad"`, `"rmsprop"` or `"adam"`.
        graft_b2: Decay rate of the grafted method's squares, in [0, 1); None for 0.99 (RMSprop) or 0.999 (Adam).
        graft_eps: Added to the root of the grafted method's squares, above 0.
        relative_eps: Times the largest eigenvalue added as well, in [0, 1): float32 leaves smaller ones to rounding.
        inverse_exponent_override: The power of the factors in place of `1 / 2k`, above 0.
        root: `"qr"` for orthogonal iteration, `"eigh"` for an eigendecomposition, which takes long to compile.
        stagger: Whether to spread the leaves' refreshes over the cycle; Meta's code, and ours by default, does not.
        merge_dims: Whether to join neighboring axes while their product is at most `block_size`; small matrices then
            become vectors with one full factor.
        correct_bias: Whether to correct the averages for their start at zero.
        decay_form: How the decay enters; as for `jgd.adamw`.
        state_dtype: The dtype of `mu` and `graft_nu`; shorter ones than float32 leave the other slots as they are.
        layout: How leaves are laid out while the update runs, see `jgd.core.lift`.

    Returns:
        An optimizer with the hyperparameters above (of the numbers that are given) and the slots of the formula:
        `factors` and `basis` are a square matrix for each axis of each block.

    Raises:
        TypeError, ValueError: A hyperparameter is no finite number or outside its range, a leaf is complex, the mask
            does not fit, there is no such `graft` or `root`, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.eye(2)
        >>> optimizer = jgd.shampoo(0.1, merge_dims=False)
        >>> grads = jnp.array([[3.0, 0.0], [0.0, 0.1]])
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
        >>> print(updates.round(3) + 0)
        [[-0.1  0. ]
         [ 0.  -0.1]]
    """
    check_choice("shampoo", "graft", graft, Graft)
    check_choice("shampoo", "root", root, Root)
    if start_preconditioning_step is None:
        start_preconditioning_step = 1 if root == "qr" else precondition_frequency
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "relative_eps": relative_eps}
    hyperparams |= {
        "precondition_frequency": precondition_frequency,
        "start_preconditioning_step": start_preconditioning_step,
        "weight_decay": weight_decay,
    }
    if graft in ("rmsprop", "adam"):
        hyperparams["graft_b2"] = graft_b2 if graft_b2 is not None else {"rmsprop": 0.99, "adam": 0.999}[graft]
    if graft in ("adagrad", "rmsprop", "adam"):
        hyperparams["graft_eps"] = graft_eps
    if inverse_exponent_override is not None:
        hyperparams["inverse_exponent_override"] = inverse_exponent_override
    ranges = dict.fromkeys(("eps", "graft_eps", "inverse_exponent_override"), POSITIVE) | {"b2": UP_TO_ONE}
    ranges |= dict.fromkeys(("precondition_frequency", "start_preconditioning_step"), AT_LEAST_ONE)
    ranges |= dict.fromkeys(("graft_b2", "relative_eps"), DECAY_RATE)
    view = functools.partial(shampoo_view, block_size=block_size, merge=merge_dims)

    def cost(shape: tuple[int, ...]) -> float:
        return sum(count * sum(float(n) ** 3 for n in block) for count, block in block_shapes(view(shape), block_size))

    rule = shampoo_rule(view, block_size, graft, correct_bias, root)
    return lift_staggered(
        rule,
        decayed(rule, decay_form),
        hyperparams,
        mask,
        cost if stagger else None,
        name="shampoo",
        ranges=ranges,
        state_dtype=state_dtype,
        layout=layout,
    )
