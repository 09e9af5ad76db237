r"""Clipping by the global norm.

$$
u = g \cdot \frac{c}{\max(c, \lVert g \rVert)}
$$

so that $\lVert u \rVert \le c$ (`max_norm`) up to rounding, and a tree already inside comes out bit for bit
(subnormal numbers aside, which XLA flushes to zero).

References:
    - Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks",
      https://arxiv.org/abs/1211.5063, 2012, Algorithm 1.
"""

from jgd.core import (
    Hyper,
    Optimizer,
    PyTree,
    ScalarOrSchedule,
    clipping_factors,
    lift_transform,
    scale_tree,
    tree_squares,
)


def clip_by_global_norm(max_norm: ScalarOrSchedule) -> Optimizer:
    """Shortens the gradient of all leaves together to at most `max_norm`, keeping its direction.

    Args:
        max_norm: The largest Euclidean norm let through, above 0; a number, a scalar array or a schedule.

    Returns:
        A transform with the hyperparameter `max_norm`. The norm is taken in float32 or wider, and scaled where the
        squares would overflow: 3e38 is cut like any other number. A leaf that is NaN makes the whole tree NaN: it is
        not hidden.

    Raises:
        TypeError, ValueError: `max_norm` is not a finite number, or not above 0.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> clip = jgd.clip_by_global_norm(1.0)
        >>> updates, state = clip.update({"a": jnp.array([3.0]), "b": jnp.array([4.0])}, clip.init(None))
        >>> print(updates["a"].round(3), updates["b"].round(3))
        [0.6] [0.8]
    """

    def apply(updates: PyTree, params: PyTree, hyper: Hyper) -> PyTree:
        del params
        grad_sq = tree_squares(updates)
        return scale_tree(updates, *clipping_factors(grad_sq, hyper["max_norm"].astype(grad_sq.total.dtype)))

    return lift_transform(apply, {"max_norm": max_norm}, name="clip_by_global_norm")
