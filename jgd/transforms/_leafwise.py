"""Transforms of each leaf by itself: clipping by value, by block and by unit; centralization.

References:
    - Shazeer and Stern, "Adafactor", https://arxiv.org/abs/1804.04235, 2018 (blocks).
    - Brock et al., "High-performance large-scale image recognition without normalization",
      https://arxiv.org/abs/2102.06171, 2021 (adaptive clipping).
    - Yong et al., "Gradient centralization", https://arxiv.org/abs/2004.01461, 2020.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from jgd.core import (
    Array,
    Hyper,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    Slots,
    is_integer,
    lift,
    lift_transform,
    root,
    scale_tree,
    squares,
    tree_squares,
)

_LEAST_NORM = 1e-6  # the least norm of a unit that is divided by, as in optax

_MOST_AXES = 5


def _transform(
    formula: Callable[[Array, Array, Hyper], Array],
    hyperparams: dict[str, Any],
    name: str,
    kind: Literal["elementwise", "leaf"] = "leaf",
    **more: Any,
) -> Any:
    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del slots, step
        return formula(grad, param, hyper), {}

    return lift(Rule(update, kind=kind, **more), hyperparams, name=name)


def clip(max_delta: ScalarOrSchedule) -> Optimizer:
    """Cuts every entry to at most `max_delta` in magnitude.

    Args:
        max_delta: The largest magnitude let through, above 0.

    Returns:
        A transform with the hyperparameter `max_delta`.

    Raises:
        TypeError, ValueError: `max_delta` is not a finite number above 0, or a leaf is complex.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> print(jgd.clip(1.0).update(jnp.array([3.0, -0.5]), jgd.clip(1.0).init(None))[0])
        [ 1.  -0.5]
    """

    def formula(grad: Array, param: Array, hyper: Hyper) -> Array:
        del param
        return jnp.clip(grad, -hyper["max_delta"], hyper["max_delta"])

    return _transform(formula, {"max_delta": max_delta}, "clip", supports_complex=False, kind="elementwise")


def clip_by_block_rms(threshold: ScalarOrSchedule) -> Optimizer:
    """Shortens each leaf to a root mean square of at most `threshold`.

    Args:
        threshold: The largest root mean square let through, above 0.

    Returns:
        A transform with the hyperparameter `threshold`.

    Raises:
        TypeError, ValueError: `threshold` is not a finite number above 0.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> print(jgd.clip_by_block_rms(1.0).update(jnp.array([3.0, 3.0]), jgd.clip_by_block_rms(1.0).init(None))[0])
        [1. 1.]
    """

    def formula(grad: Array, param: Array, hyper: Hyper) -> Array:
        del param
        grad_sq = squares([grad])
        rms = root(grad_sq.total / max(grad.size, 1))
        return grad_sq.scale * grad / jnp.maximum(grad_sq.scale, rms / hyper["threshold"])

    return _transform(formula, {"threshold": threshold}, "clip_by_block_rms")


def adaptive_grad_clip(
    clipping: ScalarOrSchedule, eps: ScalarOrSchedule = 1e-3, axis: int | tuple[int, ...] | None = None
) -> Optimizer:
    r"""Adaptive gradient clipping: a unit's gradient is at most a share of the unit.

    $g \leftarrow g \min(1,\ c \max(\lVert \theta \rVert, \epsilon) / \lVert g \rVert)$ for each unit: the inputs of one
    output of a kernel, or all of a vector.

    Args:
        clipping: The largest ratio $c$ of the norms, above 0.
        eps: The smallest norm of a unit, at least 0.
        axis: Over which axes norms are taken; None for all but the last of a leaf of two to five axes.

    Returns:
        A transform with the hyperparameters `clipping`, `eps`.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, a leaf has more than five axes
            and no `axis` is given, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> clip, params = jgd.adaptive_grad_clip(0.1), jnp.array([3.0, 4.0])
        >>> print(clip.update(jnp.array([6.0, 8.0]), clip.init(params), params)[0])
        [0.3 0.4]
    """

    def formula(grad: Array, param: Array, hyper: Hyper) -> Array:
        if any(not -grad.ndim <= each < grad.ndim for each in np.ravel([] if axis is None else axis)):
            raise ValueError(f"adaptive_grad_clip: axis={axis} is out of range for a leaf of shape {grad.shape}.")
        grad_sq, param_sq = (squares([leaf], _unit_axes(leaf, axis)) for leaf in (grad, param))
        limit = hyper["clipping"] * jnp.maximum(param_sq.length / param_sq.scale, hyper["eps"])
        clipped = grad_sq.scale * grad * (limit / jnp.maximum(grad_sq.length, _LEAST_NORM * grad_sq.scale))
        return jnp.where(grad_sq.length < limit * grad_sq.scale, grad, clipped)

    return _transform(formula, {"clipping": clipping, "eps": eps}, "adaptive_grad_clip", needs_params=True)


def _unit_axes(leaf: Array, axis: Any) -> tuple[int, ...]:
    """The axes that one unit of a leaf runs over."""
    if axis is not None:
        return (axis,) if is_integer(axis) else tuple(axis)
    if leaf.ndim > _MOST_AXES:
        raise ValueError(
            f"adaptive_grad_clip: a leaf of shape {leaf.shape} has more than {_MOST_AXES} axes; say by axis= which "
            "norms are taken over."
        )
    sizes = [n for n in leaf.shape if n != 1]
    return tuple(range(leaf.ndim)) if len(sizes) <= 1 else (0,) if leaf.ndim <= 3 else tuple(range(leaf.ndim - 1))


def centralize() -> Optimizer:
    """Takes the mean over all axes but the last from each leaf of two axes and more, for each index of the last.

    Returns:
        A transform without hyperparameters.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> grads = jnp.array([[1.0, 5.0], [3.0, 7.0]])
        >>> print(jgd.centralize().update(grads, jgd.centralize().init(grads))[0])
        [[-1. -1.]
         [ 1.  1.]]
    """

    def formula(grad: Array, param: Array, hyper: Hyper) -> Array:
        del param, hyper
        if grad.ndim < 2:
            return grad
        return grad - jnp.mean(grad, axis=tuple(range(grad.ndim - 1)), keepdims=True)

    return _transform(formula, {}, "centralize")


def normalize(eps: ScalarOrSchedule = 0.0) -> Optimizer:
    """Divides the whole tree by its norm; a zero tree stays zero.

    Args:
        eps: Added to the norm, at least 0.

    Returns:
        A transform with the hyperparameter `eps`.

    Raises:
        TypeError, ValueError: `eps` is not a finite number or is negative.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> print(jgd.normalize().update(jnp.array([3.0, 4.0]), jgd.normalize().init(None))[0])
        [0.6 0.8]
    """

    def apply(updates: Any, params: Any, hyper: Hyper) -> Any:
        del params
        updates_sq = tree_squares(updates)
        norm = updates_sq.length + hyper["eps"] * updates_sq.scale
        is_zero = norm == 0
        return scale_tree(updates, updates_sq.scale, jnp.where(is_zero, 0, 1 / jnp.where(is_zero, 1, norm)))

    return lift_transform(apply, {"eps": eps}, name="normalize")
