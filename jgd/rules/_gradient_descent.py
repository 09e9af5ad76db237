r"""Plain gradient descent: a step against the gradient.

$$
\theta_t = \theta_{t-1} - \eta\, g_t
$$

with the parameter $\theta$ (`param`), its gradient $g$ (`grad`) and the learning rate $\eta$.
Fed the gradient of the whole data it is batch gradient descent, fed that of a minibatch or of one example it is
stochastic gradient descent: the rule is the same.

References:
    - Cauchy, "Méthode générale pour la résolution des systèmes d'équations simultanées", Comptes rendus 25, 1847.
    - Robbins and Monro, "A stochastic approximation method", Annals of Mathematical Statistics 22(3), 1951.
"""

from jgd.core import Array, Hyper, LayoutLike, Optimizer, Rule, ScalarOrSchedule, Slots, StateDtype, lift


def descent_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """The formula above, on one leaf."""
    del param, step
    return -hyper["learning_rate"] * grad, slots


DESCENT = Rule(descent_update)


def gradient_descent(
    learning_rate: ScalarOrSchedule, *, state_dtype: StateDtype | None = None, layout: LayoutLike = "auto"
) -> Optimizer:
    """Plain gradient descent: `params - learning_rate * grads`.

    Args:
        learning_rate: Length of a step per unit of gradient, at least 0: a number, a scalar array, or a schedule (a
            function of the step count). Too large and the steps overshoot; too small and they crawl: on a quadratic
            with largest curvature L, steps above 2/L diverge.
        state_dtype: The dtype of the slots. This rule has none.
        layout: How leaves are laid out while the update runs, see `jgd.core.lift`.

    Returns:
        An optimizer with the hyperparameter `learning_rate` and no slots.

    Raises:
        TypeError, ValueError: The learning rate is not a finite number or is negative.

    Examples:
        >>> import jax, jgd
        >>> grad = jax.grad(lambda w: (w - 2.0) ** 2)(5.0)
        >>> optimizer = jgd.gradient_descent(0.1)
        >>> updates, state = optimizer.update(grad, optimizer.init(5.0))
        >>> print(grad, jgd.apply_updates(5.0, updates))
        6.0 4.4
    """
    return lift(
        DESCENT, {"learning_rate": learning_rate}, name="gradient_descent", state_dtype=state_dtype, layout=layout
    )
