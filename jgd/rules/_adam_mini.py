r"""Adam-mini: Adam with one second moment for a block of parameters, such as a neuron or a head.

$$
v_{t,k} = \beta_2 v_{t-1,k} + (1-\beta_2) \operatorname{mean}_{i \in k} |g_{t,i}|^2, \qquad
\theta_t = \theta_{t-1} - \eta\, \bigl(\hat m_t / (\sqrt{\hat v_{t,k}} + \epsilon) + \lambda\, \theta_{t-1}\bigr)
$$

with $m$ (`mu`) and the corrections of `jgd.adam`, and the slot $v$ (`nu`) of one number a block $k$: nearly half of
Adam's memory is saved.

The authors' code finds the blocks by the names that leaves have in PyTorch's Transformers: a row of the embedding and
of the output for each token, a block for each head of queries and keys, one for each output neuron of the other
matrices, the whole leaf elsewhere, and Adam for biases. Without `blocks` ours guesses likewise
(`jgd.adam_mini_blocks`), but for the heads, which it cannot know: there each output neuron is a block.

References:
    - Zhang et al., "Adam-mini: Use fewer learning rates to gain more", https://arxiv.org/abs/2406.16793, 2024,
      Algorithms 1 and 3.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jgd.core import (
    Array,
    Cached,
    Hyper,
    Mask,
    Optimizer,
    PyTree,
    Rule,
    ScalarOrSchedule,
    Slots,
    abs_sq,
    broadcast_mask,
    lift,
    real_dtype,
    zeros,
)
from jgd.rules._adam_mini_blocks import Blocks, blocks_of, views
from jgd.rules._moments import adam_scales
from jgd.rules._weight_decay import DecayForm, decayed


def adam_mini_rule(blocks: Blocks) -> Rule:
    """The rule for leaves with these blocks."""

    def new_nu(param: Array) -> Array:
        return jnp.zeros(views(param.shape, blocks)[1], real_dtype(param.dtype))

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del param, step
        view, kept = views(grad.shape, blocks)
        within = tuple(i for i, (size, left) in enumerate(zip(view, kept, strict=True)) if size != left)
        mean = jnp.sum(abs_sq(grad).reshape(view), within, keepdims=True) / max(math.prod(view[i] for i in within), 1)
        nu = hyper["b2"] * slots["nu"] + hyper["1-b2"] * mean
        mu = hyper["b1"] * slots["mu"] + hyper["1-b1"] * grad
        delta = -hyper["mu_scale"] * mu.reshape(view) / (jnp.sqrt(hyper["nu_scale"] * nu) + hyper["eps"])
        return delta.reshape(grad.shape), {"mu": mu, "nu": nu}

    return Rule(update, slots={"mu": zeros, "nu": new_nu}, kind="leaf", prepare=adam_scales, nonnegative=("nu",))


def adam_mini(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    mu_dtype: Any = "auto",
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    blocks: Any = None,
    decay_form: DecayForm = "scaled",
    state_dtype: Any = None,
    layout: Any = "auto",
) -> Optimizer:
    """AdamW with one second moment for each block of parameters.

    Args:
        learning_rate: See `jgd.adam`.
        b1: See `jgd.adam`.
        b2: See `jgd.adam`.
        eps: See `jgd.adam`.
        mu_dtype: See `jgd.adam`.
        weight_decay: See `jgd.adamw`.
        mask: Which leaves decay; as for `jgd.adamw`. The authors leave out norms and biases.
        blocks: The blocks of each leaf: a tree shaped like the params or a prefix of them, or a function from params to
            such a tree; None for `jgd.adam_mini_blocks`. Its leaves are `"tensor"` (the leaf is one block),
            `"element"` (none, as in AdamW), or `jgd.AdamMiniBlocks(axis, count)`: a block at each index of an axis, or
            the axis cut into `count` blocks. Queries of shape `[model, heads * size]` want `(-1, heads)`, those of
            shape `[model, heads, size]` want `(1)`.
        decay_form: How the decay enters; as for `jgd.adamw`.
        state_dtype: See `jgd.adam`.
        layout: See `jgd.adam`.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `b1`, `b2`, `eps`, `weight_decay`, and the slots `mu`,
        one number a parameter, and `nu`, one a block.

    Raises:
        TypeError, ValueError: A hyperparameter is no finite number or outside its range, blocks or mask do not fit the
            params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.zeros((2, 2))
        >>> optimizer = jgd.adam_mini(0.1, blocks=jgd.AdamMiniBlocks(axis=0))
        >>> grads = jnp.array([[3.0, 0.0], [0.1, 0.1]])
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
        >>> print(updates.round(3), state.slots["nu"].shape)
        [[-0.141 -0.   ]
         [-0.1   -0.1  ]] (2, 1)
    """

    @Cached
    def rule(leaf_blocks: Blocks, decays: bool) -> Rule:
        plain = adam_mini_rule(leaf_blocks)
        return decayed(plain, decay_form) if decays else plain

    def choose(params: PyTree) -> PyTree:
        decays = jax.tree.leaves(broadcast_mask("adam_mini", mask, params))
        rules = map(rule, blocks_of("adam_mini", params, blocks), decays)
        return jax.tree.unflatten(jax.tree.structure(params), rules)

    return lift(
        rule("tensor", True),
        {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "weight_decay": weight_decay},
        name="adam_mini",
        choose=choose,
        slot_dtypes={"mu": mu_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )
