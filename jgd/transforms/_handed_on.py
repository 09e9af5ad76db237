"""optax's combinators, which take jgd's optimizers as they are."""

from collections.abc import Hashable, Mapping

import optax
from optax import freeze as freeze
from optax import identity as identity
from optax import masked as masked
from optax import named_chain as named_chain
from optax import selective_transform as selective_transform
from optax import set_to_zero as set_to_zero

from jgd.core import PyTree, tree_from
from jgd.transforms._labels import spread_labels


def partition(
    transforms: Mapping[Hashable, optax.GradientTransformation],
    param_labels: PyTree,
    *,
    mask_compatible_extra_args: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """`optax.partition`: an optimizer for each label. See `jgd.groups`, which finds leaves by their paths as well.

    Args:
        transforms: Label to optimizer, jgd's or optax's.
        param_labels: A tree of labels shaped like the params or a prefix of them, or a function from params to one. A
            model that can be called, such as an `equinox.nn.MLP` of labels, is a tree, which optax 0.2.8 would call.
        mask_compatible_extra_args: Whether extra arguments shaped like the params are split as they are.

    Returns:
        What `optax.partition` returns.

    Raises:
        TypeError, ValueError: A label has no optimizer, or the labels are not a prefix of the params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.partition({"fast": jgd.sgd(1.0), "slow": jgd.sgd(0.1)}, {"w": "fast", "b": "slow"})
        >>> grads = {"w": jnp.ones(1), "b": jnp.ones(1)}
        >>> updates, state = optimizer.update(grads, optimizer.init(grads), grads)
        >>> print(updates["w"], updates["b"])
        [-1.] [-0.1]
    """

    def labels(params: PyTree) -> PyTree:
        label_tree = tree_from(param_labels, params)
        spread_labels("partition", label_tree, params, transforms)
        return label_tree  # not spread: optax's state has a marker for each part that is another label's

    return optax.partition(transforms, labels, mask_compatible_extra_args=mask_compatible_extra_args)
