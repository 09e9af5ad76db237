"""Parameter groups: an optimizer for each set of leaves, found by the leaf's path or by label."""

from collections.abc import Mapping
from typing import Any

import jax
import optax

from jgd.core import (
    GradientTransformation,
    Optimizer,
    PyTree,
    TreeOrFunction,
    assign_patterns,
    check_pattern,
    eval_params,
    flatten,
    make_optimizer,
    path_spellings,
    refuse_packed,
    transform_text,
    tree_from,
)
from jgd.transforms._labels import spread_labels


class GroupsState(dict):
    """The state of each group by its name; a dict that knows which params to evaluate."""

    def eval_params(self, params: PyTree) -> PyTree:
        """The params to evaluate: each group's, from its state."""
        param_leaves, treedef = jax.tree.flatten(params)
        leaves = list(param_leaves)
        for state in self.values():
            group_leaves = treedef.flatten_up_to(eval_params(state, params))
            leaves = [
                leaf if group_leaf is param_leaf else group_leaf
                for leaf, group_leaf, param_leaf in zip(leaves, group_leaves, param_leaves, strict=True)
            ]
        return treedef.unflatten(leaves)


jax.tree_util.register_pytree_with_keys(
    GroupsState,
    lambda state: ([(jax.tree_util.DictKey(key), state[key]) for key in sorted(state)], tuple(sorted(state))),
    lambda keys, values: GroupsState(zip(keys, values, strict=True)),
)


def groups(
    optimizers: Mapping[str, GradientTransformation | None],
    labels: TreeOrFunction | None = None,
    *,
    default: str | None = None,
) -> Optimizer:
    r"""An optimizer for each group of leaves.

    Without `labels` the keys are patterns for paths such as `encoder/layers/0/kernel`: a glob (`*` matches any text,
    `/` too), or a regular expression after `re:`, which must match the whole path. A leaf that matches several belongs
    to the most specific, whose leaves the others match too: `head/*` goes before `*`. Every pattern must match a leaf,
    and every leaf a pattern where there is no default. For flax's nnx `dense/kernel/value` is `dense/kernel`, too.

    Args:
        optimizers: Pattern or label to optimizer; None freezes the group.
        labels: A tree of labels shaped like the params or a prefix of them, or a function from params to one; None to
            match paths.
        default: The key of the group that gets the leaves that match no other. Its own pattern is not matched.

    Returns:
        An optimizer whose state is a dict from key to the group's state; `jgd.get_hyperparams` gives the names as
        `"pattern.learning_rate"`, where groups share them.

    Raises:
        TypeError, ValueError: A group has no optimizer; a leaf matches no group, or several of which none is the most
            specific; a pattern matches no leaf or is not valid; a label is not known.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.groups({"*kernel": jgd.sgd(0.1), "re:.*(bias|scale)": jgd.sgd(1.0)})
        >>> params = {"dense": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}}
        >>> updates, state = optimizer.update(params, optimizer.init(params), params)
        >>> print(updates["dense"]["kernel"], updates["dense"]["bias"])
        [-0.1 -0.1] [-1. -1.]
    """
    if not optimizers:
        raise ValueError("groups: expected at least one group; got none.")
    if default is not None and default not in optimizers:
        raise ValueError(f"groups: default={default!r} is not one of the groups {sorted(optimizers)}.")
    for key in optimizers if labels is None else ():
        check_pattern("groups", key)
    transforms = {
        key: optax.with_extra_args_support(optax.set_to_zero() if optimizer is None else optimizer)
        for key, optimizer in optimizers.items()
    }

    def label_tree(params: PyTree) -> PyTree:
        refuse_packed("groups", params, "a group picks leaves")
        if labels is None:
            paths, _, treedef = flatten(params)
            return treedef.unflatten(
                assign_patterns("groups", [path_spellings(path) for path in paths], list(optimizers), default)
            )
        return spread_labels("groups", tree_from(labels, params), params, optimizers, default)

    def masked_to(key: str, leaf_labels: PyTree, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda label, part: part if label == key else optax.MaskedNode(), leaf_labels, tree)

    def init(params: PyTree) -> GroupsState:
        leaf_labels = label_tree(params)
        return GroupsState({key: part.init(masked_to(key, leaf_labels, params)) for key, part in transforms.items()})

    def update(grads: PyTree, state: GroupsState, params: PyTree = None, **extra: Any) -> tuple[PyTree, GroupsState]:
        if not isinstance(state, Mapping) or set(state) != set(transforms):
            raise ValueError(f"groups: the state is not that of the groups {sorted(transforms)}.")
        leaf_labels = label_tree(grads if params is None else params)
        updates, new_state = grads, GroupsState()
        for key, part in transforms.items():
            masked_params = None if params is None else masked_to(key, leaf_labels, params)
            group_updates, new_state[key] = part.update(
                masked_to(key, leaf_labels, grads), state[key], masked_params, **extra
            )
            updates = jax.tree.map(
                lambda label, u, g, key=key: g if label == key else u, leaf_labels, updates, group_updates
            )
        return updates, new_state

    shown = ", ".join(f"{key!r}: {transform_text(part) if part else None}" for key, part in optimizers.items())
    return make_optimizer(init, update, f"jgd.groups({{{shown}}})")
