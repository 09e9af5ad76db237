r"""MARS: gradients corrected by how they have changed, for less variance.

$$
c_t = g_t + \gamma \frac{\beta_1}{1-\beta_1} (g_t - g_{t-1}), \qquad
\tilde c_t = c_t / \max(1, \lVert c_t \rVert)
$$

leaf by leaf, with $g_{t-1}$ the last batch's gradient (the approximate form) in the slot `last_grad`, zero at first as
in the authors' code. The inner optimizer then sees $\tilde c_t$.

References:
    - Yuan et al., "MARS: Unleashing the power of variance reduction for training large models",
      https://arxiv.org/abs/2411.10438, 2024, Algorithm 2.
"""

from jgd.core import (
    Array,
    GradientTransformation,
    Hyper,
    Optimizer,
    ScalarOrSchedule,
    Slots,
    Wrapper,
    clipping_factors,
    squares,
    wrap,
    zeros,
)


def _correct(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    del param, step
    factor = hyper["gamma"] * hyper["b1"] / hyper["1-b1"]
    corrected = grad + factor * (grad - slots["last_grad"])
    if "max_norm" in hyper:
        scale, shrink = clipping_factors(squares([corrected]), hyper["max_norm"])
        corrected = (shrink * (scale * corrected)).astype(grad.dtype)
    return corrected, {"last_grad": grad}


def mars(
    optimizer: GradientTransformation,
    gamma: ScalarOrSchedule = 0.025,
    b1: ScalarOrSchedule = 0.95,
    max_norm: ScalarOrSchedule | None = 1.0,
) -> Optimizer:
    """Variance reduction in front of any optimizer.

    Args:
        optimizer: Any optimizer; the paper's are AdamW, Lion and Shampoo.
        gamma: How much of the correction to take, at least 0.
        b1: The decay rate of the optimizer's first moment, in [0, 1).
        max_norm: The largest norm of a leaf's corrected gradient, above 0; None for no bound.

    Returns:
        An optimizer with the hyperparameters `gamma`, `b1`, `max_norm` and the slot `last_grad`, one number a
        parameter, whose state is `WrapperState(own, inner)`.

    Raises:
        TypeError, ValueError: `optimizer` is not an optimizer, or a hyperparameter is not a finite number in
            its range.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.mars(jgd.sgd(0.1), gamma=0.1, b1=0.5, max_norm=None)
        >>> state = optimizer.init(jnp.zeros(1))
        >>> for grad in (1.0, 2.0):
        ...     updates, state = optimizer.update(jnp.array([grad]), state)
        >>> print(updates.round(1))
        [-0.2]
    """
    hyperparams = {"gamma": gamma, "b1": b1} | ({} if max_norm is None else {"max_norm": max_norm})
    return wrap(optimizer, Wrapper(before=_correct, slots={"last_grad": zeros}), hyperparams, name="mars")
