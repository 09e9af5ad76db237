r"""Wrappers that compare signs: cautious updates, cautious decay, Grams.

References:
    - Liang et al., "Cautious optimizers: Improving training with one line of code", https://arxiv.org/abs/2411.16085,
      2024, Algorithm 1.
    - Chen et al., "Cautious weight decay", https://arxiv.org/abs/2510.12402, 2025.
    - Cao et al., "Grams: Gradient descent with adaptive momentum scaling", https://arxiv.org/abs/2412.17107, 2024,
      Algorithm 1.
"""

import jax.numpy as jnp

from jgd.core import Array, GradientTransformation, Hyper, Optimizer, ScalarOrSchedule, Slots, Wrapper, wrap


def _cautious(delta: Array, grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    del slots, param, hyper, step
    agrees = (delta * grad < 0).astype(delta.dtype)  # a step against the gradient is one that agrees with it
    return delta * agrees * (delta.size / (jnp.sum(agrees) + 1)), {}


def cautious(optimizer: GradientTransformation) -> Optimizer:
    r"""Keeps the entries of an update that descend along the present gradient, and lengthens them for the others.

    $u \leftarrow u \odot m \cdot n / (1 + \sum m)$ with $m = [u \odot g < 0]$ and $n$ the number of entries of the
    leaf. Put it around an optimizer without weight decay, and the decay outside: decay is part of the update here.

    Args:
        optimizer: Any optimizer.

    Returns:
        An optimizer whose state is `WrapperState(own, inner)`.

    Raises:
        TypeError: `optimizer` is not an optimizer, or a leaf is complex.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.cautious(jgd.sgd(0.1, momentum=0.9))
        >>> state = optimizer.init(jnp.zeros(2))
        >>> for grad in ([1.0, 1.0], [1.0, -0.1]):
        ...     updates, state = optimizer.update(jnp.array(grad), state)
        >>> print(updates.round(2))  # the second entry would still go with its momentum
        [-0.19 -0.  ]
    """
    return wrap(optimizer, Wrapper(after=_cautious, supports_complex=False), {}, name="cautious")


def _cautious_decay(
    delta: Array, grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array
) -> tuple[Array, Slots]:
    del grad, slots, step
    agrees = delta * param <= 0
    return delta - hyper["learning_rate"] * hyper["weight_decay"] * jnp.where(agrees, param, 0), {}


def cautious_decay(optimizer: GradientTransformation, weight_decay: ScalarOrSchedule) -> Optimizer:
    r"""Weight decay only where the update shrinks the parameter anyway.

    $u \leftarrow u - \eta \lambda\, \theta \odot [u \odot \theta \le 0]$ with the inner optimizer's learning rate
    $\eta$ (one where it has none).

    Args:
        optimizer: Any optimizer, without weight decay of its own.
        weight_decay: The share of each parameter, times the learning rate, that a step takes away; at least 0.

    Returns:
        An optimizer with the hyperparameter `weight_decay`, whose state is `WrapperState(own, inner)`.

    Raises:
        TypeError, ValueError: `optimizer` is not an optimizer, the decay is not a finite number or is negative, a leaf
            is complex, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.cautious_decay(jgd.sgd(0.1), 0.5), jnp.array([1.0, -1.0])
        >>> print(optimizer.update(jnp.ones(2), optimizer.init(params), params)[0].round(3))
        [-0.15 -0.1 ]
    """
    reads = {"learning_rate": 1.0}
    wrapper = Wrapper(None, _cautious_decay, {}, reads, needs_params=True, supports_complex=False, elementwise=True)
    return wrap(optimizer, wrapper, {"weight_decay": weight_decay}, name="cautious_decay")


def _grams(delta: Array, grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    del slots, param, hyper, step
    return -jnp.sign(grad) * jnp.abs(delta), {}


def grams(optimizer: GradientTransformation) -> Optimizer:
    r"""The size of each entry from the optimizer, its direction from the present gradient.

    $u \leftarrow -\operatorname{sign}(g) \odot |u|$.

    Args:
        optimizer: Any optimizer, without weight decay.

    Returns:
        An optimizer whose state is `WrapperState(own, inner)`.

    Raises:
        TypeError: `optimizer` is not an optimizer, or a leaf is complex.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.grams(jgd.sgd(0.1, momentum=0.9))
        >>> state = optimizer.init(jnp.zeros(2))
        >>> for grad in ([1.0, 1.0], [1.0, -0.1]):
        ...     updates, state = optimizer.update(jnp.array(grad), state)
        >>> print(updates.round(2))
        [-0.19  0.08]
    """
    return wrap(optimizer, Wrapper(after=_grams, supports_complex=False, elementwise=True), {}, name="grams")
