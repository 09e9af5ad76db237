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
(`jgd.adam_mini_blocks`), except for the heads, which it cannot know: there each output neuron is a block.

References:
    - Zhang et al., "Adam-mini: Use fewer learning rates to gain more", https://arxiv.org/abs/2406.16793, 2024,
      Algorithms 1 and 3.
"""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import (
    Array,
    Cached,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    PyTree,
    Rule,
    ScalarOrSchedule,
    SlotDtype,
    Slots,
    StateDtype,
    TreeOrFunction,
    abs_sq,
    broadcast_mask,
    lift,
    path_text,
    real_dtype,
    tree_from,
    zeros,
)
from jgd.rules.parts._moments import adam_scales
from jgd.rules.parts._weight_decay import DecayForm, decayed

Shape = tuple[int, ...]


class AdamMiniBlocks(NamedTuple):
    """Blocks along one axis of a leaf.

    Attributes:
        axis: The axis; a block takes in all of the others.
        count: How many blocks of neighbors, such as heads, the axis is cut into; None for one at each index.
    """

    axis: int
    count: int | None = None


Blocks = AdamMiniBlocks | Literal["tensor", "element"]


def views(shape: Shape, blocks: Blocks) -> tuple[Shape, Shape]:
    """The leaf's shape with one axis for its blocks, and the same with length one along the axes within a block."""
    if isinstance(blocks, str):
        return shape, shape if blocks == "element" else (1,) * len(shape)
    axis = blocks.axis % len(shape)
    lengths = (shape[axis],) if blocks.count is None else (blocks.count, shape[axis] // blocks.count)
    view = (*shape[:axis], *lengths, *shape[axis + 1 :])
    return view, tuple(size if i == axis else 1 for i, size in enumerate(view))


def adam_mini_blocks(params: PyTree) -> PyTree:
    """The blocks that `jgd.adam_mini` guesses from the paths and shapes of leaves.

    Args:
        params: The params, or gradients in their shape.

    Returns:
        A tree of blocks. Leaves of two axes and more get a block for each index of the last axis, a layer's outputs;
        those with `embed`, `embd` or `wte` in their path for each index of the first, the tokens. Leaves of fewer axes
        are one block (`"tensor"`), those with `bias` in their path have none (`"element"`).

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> jgd.adam_mini_blocks({"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)})
        {'bias': 'element', 'kernel': AdamMiniBlocks(axis=-1, count=None)}
    """

    def guess(path: Any, leaf: Any) -> Blocks:
        name = path_text(path).lower()
        if jnp.ndim(leaf) < 2:
            return "element" if "bias" in name else "tensor"
        return AdamMiniBlocks(0 if any(part in name for part in ("embed", "embd", "wte")) else -1)

    return jax.tree_util.tree_map_with_path(guess, params)


def blocks_of(owner: str, params: PyTree, blocks: TreeOrFunction | None) -> list[Blocks]:
    """For each leaf its blocks.

    Args:
        owner: The factory's name, for messages.
        params: The params, or gradients in their shape.
        blocks: A tree of blocks shaped like the params or a prefix, a function from params to one, or None.

    Raises:
        ValueError: Blocks of an unknown kind, or that do not fit their leaf.
    """
    tree = tree_from(adam_mini_blocks if blocks is None else blocks, params)
    try:
        spread = jax.tree.map(
            lambda leaf_blocks, subtree: [leaf_blocks] * len(jax.tree.leaves(subtree)),
            tree,
            params,
            is_leaf=lambda node: isinstance(node, AdamMiniBlocks),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{owner}: the tree of blocks is not a prefix of the params: {error}") from None
    by_leaf = jax.tree.leaves(spread, is_leaf=lambda node: isinstance(node, AdamMiniBlocks))
    for (path, leaf), leaf_blocks in zip(jax.tree_util.tree_flatten_with_path(params)[0], by_leaf, strict=True):
        _check(owner, path_text(path), jnp.shape(leaf), leaf_blocks)
    return by_leaf


def _check(owner: str, path: str, shape: Shape, blocks: Any) -> None:
    message = f"{owner}: the blocks of the leaf at {path}, of shape {shape}, are {blocks!r};"
    if not isinstance(blocks, AdamMiniBlocks):
        if not isinstance(blocks, str) or blocks not in ("tensor", "element"):
            raise ValueError(f"{message} expected 'tensor', 'element' or AdamMiniBlocks(axis, count).")
        return
    if not -len(shape) <= blocks.axis < len(shape):
        raise ValueError(f"{message} expected an axis that the leaf has.")
    if blocks.count is not None and (blocks.count < 1 or shape[blocks.axis] % blocks.count):
        raise ValueError(f"{message} expected a count that divides {shape[blocks.axis]}, the length of the axis.")


def adam_mini_rule(blocks: Blocks) -> Rule:
    """The rule for leaves with these blocks."""

    def new_nu(param: Array) -> Array:
        return jnp.zeros(views(param.shape, blocks)[1], real_dtype(param.dtype))

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del param, step
        view, block_view = views(grad.shape, blocks)
        within = tuple(
            i for i, (size, block_size) in enumerate(zip(view, block_view, strict=True)) if size != block_size
        )
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
    mu_dtype: SlotDtype | None = "auto",
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    blocks: TreeOrFunction | None = None,
    decay_form: DecayForm = "scaled",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """AdamW with one second moment for each block of parameters.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        mask: Which leaves decay; as for `jgd.adamw`. The authors leave out norms and biases.
        blocks: The blocks of each leaf: a tree shaped like the params or a prefix of them, or a function from params to
            such a tree; None for `jgd.adam_mini_blocks`. Its leaves are `"tensor"` (the leaf is one block),
            `"element"` (none, as in AdamW), or `jgd.AdamMiniBlocks(axis, count)`: a block at each index of an axis, or
            the axis cut into `count` blocks. Queries of shape `[model, heads * size]` take `(-1, heads)`, those of
            shape `[model, heads, size]` take `(1)`.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `b1`, `b2`, `eps`, `weight_decay`, and the slots `mu`,
        one number a parameter, and `nu`, one a block.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, blocks or mask do not fit the
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
