r"""Wrappers that act on norms: update-RMS clipping, trust ratio, hyperball, orthogonal gradients.

References:
    - Wortsman et al., "Stable and low-precision training for large-scale vision-language models",
      https://arxiv.org/abs/2304.13013, 2023 (update clipping); Shazeer and Stern, https://arxiv.org/abs/1804.04235,
      2018.
    - You et al., https://arxiv.org/abs/1904.00962, 2019 (trust ratio).
    - Prieto et al., "Grokking at the edge of numerical stability", https://arxiv.org/abs/2501.04697, 2025 (orthogonal
      gradients).
"""

import jax.numpy as jnp

from jgd.core import (
    Array,
    GradientTransformation,
    Hyper,
    Optimizer,
    ScalarOrSchedule,
    Slots,
    Squares,
    Wrapper,
    clipping_factors,
    global_norm,
    squares,
    wrap,
)

_RATE = {"learning_rate": 1.0}


def _clip_rms(delta: Array, grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    del grad, slots, param, step
    delta_sq = squares([delta])
    mean_sq = Squares(delta_sq.total / max(delta.size, 1), delta_sq.scale)
    scale, shrink = clipping_factors(mean_sq, hyper["threshold"] * hyper["learning_rate"])
    return shrink * (scale * delta), {}


def clip_update_rms(optimizer: GradientTransformation, threshold: ScalarOrSchedule = 1.0) -> Optimizer:
    r"""Bounds the root mean square of each leaf's direction.

    $u \leftarrow u / \max(1,\ \operatorname{RMS}(u) / (\eta d))$ with the inner optimizer's learning rate $\eta$ (one
    where it has none).

    Args:
        optimizer: Any optimizer; for one like Adam a threshold of one lets the usual steps through.
        threshold: The largest root mean square $d$ of the update over the learning rate, above 0.

    Returns:
        An optimizer with the hyperparameter `threshold`, whose state is `WrapperState(own, inner)`.

    Raises:
        TypeError, ValueError: `optimizer` is not an optimizer, or the threshold is not a finite number above 0.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.clip_update_rms(jgd.sgd(0.1))
        >>> print(optimizer.update(jnp.array([30.0, 40.0]), optimizer.init(jnp.zeros(2)))[0].round(2))
        [-0.08 -0.11]
    """
    return wrap(optimizer, Wrapper(after=_clip_rms, reads=_RATE), {"threshold": threshold}, name="clip_update_rms")


def _trust(delta: Array, grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    del grad, slots, step
    rate, dtype = hyper["learning_rate"], jnp.finfo(delta.dtype).dtype
    param_norm, delta_sq = global_norm(param), squares([delta])
    unusable = (param_norm == 0) | (delta_sq.total == 0)
    ratio = hyper["trust_coefficient"] * param_norm * rate / jnp.where(unusable, 1, delta_sq.length)
    scaled = jnp.where(unusable, 1, delta_sq.scale).astype(dtype) * delta
    return jnp.where(unusable, 1, ratio).astype(dtype) * scaled, {}


def trust_ratio(optimizer: GradientTransformation, trust_coefficient: ScalarOrSchedule = 1.0) -> Optimizer:
    r"""Makes each leaf's step as long as the learning rate times the leaf.

    $u \leftarrow c\, \eta\, \lVert \theta \rVert\, u / \lVert u \rVert$ with the inner optimizer's learning rate $\eta$
    (one where it has none); where either norm is zero $u$ stays.

    Args:
        optimizer: Any optimizer; around `jgd.adam` this is `jgd.lamb`.
        trust_coefficient: The factor $c$, above 0.

    Returns:
        An optimizer with the hyperparameter `trust_coefficient`, whose state is `WrapperState(own, inner)`.

    Raises:
        TypeError, ValueError: `optimizer` is not an optimizer, the coefficient is not a finite number above 0, or
            `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.trust_ratio(jgd.sgd(0.1)), jnp.array([3.0, 4.0])
        >>> print(optimizer.update(jnp.array([0.0, 7.0]), optimizer.init(params), params)[0].round(3))
        [-0.  -0.5]
    """
    wrapper = Wrapper(after=_trust, reads=_RATE, needs_params=True)
    return wrap(optimizer, wrapper, {"trust_coefficient": trust_coefficient}, name="trust_ratio")


def _norm(param: Array) -> Array:
    return global_norm(param).astype(jnp.finfo(param.dtype).dtype)


def _hyperball(delta: Array, grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    del grad, step
    radius = slots["radius"]
    scaled, norm = _scaled_with_norm(delta)
    new_param = param + hyper["learning_rate"] * radius * scaled / norm
    scaled, norm = _scaled_with_norm(new_param)
    on_sphere = scaled * (radius / norm) - param
    # A leaf that starts at zero has no ball to stay on.
    return jnp.where(radius > 0, on_sphere, delta), slots


def _scaled_with_norm(x: Array) -> tuple[Array, Array]:
    """An array and its norm, or both times the same power of two."""
    x_sq, dtype = squares([x]), jnp.finfo(x.dtype).dtype
    return x_sq.scale.astype(dtype) * x, jnp.maximum(x_sq.length, 1e-12 * x_sq.scale).astype(dtype)


def hyperball(optimizer: GradientTransformation) -> Optimizer:
    r"""Steps of a set length that leave the norm of each leaf as it was at the start.

    $\theta \leftarrow R\, \hat\theta / \lVert \hat\theta \rVert$ with
    $\hat\theta = \theta + \eta R\, u / \lVert u \rVert$, $R = \lVert \theta_0 \rVert$, and the inner optimizer's
    learning rate $\eta$. Weight decay has no meaning then. Leaves that start at zero take the inner optimizer's steps.

    Args:
        optimizer: Any optimizer with one learning rate.

    Returns:
        An optimizer with the slot `radius`, one number a leaf, whose state is `WrapperState(own, inner)`.

    Raises:
        TypeError, ValueError: `optimizer` is not an optimizer or has no single learning rate, or `update` is called
            without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.hyperball(jgd.adam(0.1)), jnp.array([3.0, 4.0])
        >>> updates, state = optimizer.update(jnp.array([0.0, 7.0]), optimizer.init(params), params)
        >>> print(jnp.linalg.norm(params + updates).round(3))
        5.0
    """
    wrapper = Wrapper(after=_hyperball, slots={"radius": _norm}, reads=_RATE, needs_params=True)
    return wrap(optimizer, wrapper, {}, name="hyperball")


def _orthogonal(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    del slots, step
    dtype = jnp.finfo(grad.dtype).dtype
    grad_sq, param_sq = squares([grad]), squares([param])
    grad, param = grad_sq.scale.astype(dtype) * grad, param_sq.scale.astype(dtype) * param
    param_norm_sq = param_sq.total + hyper["eps"] * param_sq.scale * param_sq.scale
    across = grad - jnp.sum(param.conj() * grad) / jnp.where(param_norm_sq == 0, 1, param_norm_sq).astype(dtype) * param
    across_sq = squares([across])
    length = across_sq.length + hyper["eps"] * grad_sq.scale * across_sq.scale
    # What is left is rounding.
    vanishes = across_sq.length <= 4 * jnp.finfo(grad.dtype).eps * grad_sq.length * across_sq.scale
    ratio = jnp.where(vanishes, 0, grad_sq.length / jnp.where(vanishes, 1, length)).astype(dtype)
    return ratio * (across_sq.scale.astype(dtype) * across) / grad_sq.scale.astype(dtype), {}


def orthogonal_gradient(optimizer: GradientTransformation, eps: ScalarOrSchedule = 1e-30) -> Optimizer:
    r"""Takes from each leaf's gradient what points along the leaf, and keeps its length.

    $g_\perp = g - \theta \langle \theta, g \rangle / \lVert \theta \rVert^2$, then $g \leftarrow g_\perp \lVert g
    \rVert / \lVert g_\perp \rVert$. A gradient that points along the leaf alone, as every scalar's does, becomes zero.

    Args:
        optimizer: Any optimizer.
        eps: Added to both denominators, at least 0.

    Returns:
        An optimizer with the hyperparameter `eps`, whose state is `WrapperState(own, inner)`.

    Raises:
        TypeError, ValueError: `optimizer` is not an optimizer, `eps` is not a finite number or is negative, or `update`
            is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.orthogonal_gradient(jgd.sgd(0.1)), jnp.array([1.0, 0.0])
        >>> print(optimizer.update(jnp.array([3.0, 4.0]), optimizer.init(params), params)[0])
        [-0.  -0.5]
    """
    return wrap(optimizer, Wrapper(before=_orthogonal, needs_params=True), {"eps": eps}, name="orthogonal_gradient")
