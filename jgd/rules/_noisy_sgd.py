r"""Noisy SGD: gradient descent with Gaussian noise that decays.

$$
\theta_t = \theta_{t-1} - \eta\, (g_t + z_t), \qquad z_t \sim \mathcal N\bigl(0,\ \eta_z / t^\gamma\bigr)
$$

with the variance $\eta_z$ (`eta`) of the first step. The scalar slot `rng_key` holds the key of the noise.

References:
    - Neelakantan et al., "Adding gradient noise improves learning for very deep networks",
      https://arxiv.org/abs/1511.06807, 2015, eq. 1.
"""

import jax
import jax.numpy as jnp

from jgd.core import (
    NOT_NEGATIVE,
    Array,
    Hyper,
    KeyLike,
    LayoutLike,
    Optimizer,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    TreeRule,
    lift,
    random_key,
    random_like,
)


def noisy_update(
    grads: list[Array], slots: Slots, params: list[Array], hyper: Hyper, step: Array
) -> tuple[list[Array], Slots]:
    """A step along each gradient and its noise."""
    del params
    key, sample_key = jax.random.split(slots["rng_key"])
    deviation = jnp.sqrt(hyper["eta"] / step.astype(hyper["eta"].dtype) ** hyper["gamma"])
    noise = random_like(sample_key, grads)
    deltas = [-hyper["learning_rate"] * (g + deviation * z) for g, z in zip(grads, noise, strict=True)]
    return deltas, {"rng_key": key}


def noisy_sgd(
    learning_rate: ScalarOrSchedule,
    eta: ScalarOrSchedule = 0.01,
    gamma: ScalarOrSchedule = 0.55,
    key: KeyLike | None = None,
    *,
    seed: int | None = None,
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """Gradient descent with annealed Gaussian noise.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: Length of a step per unit of gradient, at least 0.
        eta: Variance of the first step's noise, at least 0.
        gamma: How fast it falls, at least 0.
        key: A key of `jax.random`, or an integer; None for 0.
        seed: optax's former name of `key`.
        state_dtype: Accepted for uniformity; there are no slots of numbers.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `eta`, `gamma`, and the slot `rng_key`, one for the tree.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, or a leaf is complex.

    Examples:
        >>> import jax, jax.numpy as jnp, jgd
        >>> optimizer = jgd.noisy_sgd(0.1, key=jax.random.key(0))
        >>> updates, state = optimizer.update(jnp.ones(3), optimizer.init(jnp.zeros(3)))
        >>> print(bool(jnp.all(jnp.abs(updates + 0.1) < 0.05)))
        True
    """
    key_or_seed = seed if key is None else key

    def fresh_key(params: list[Array]) -> Array:
        del params
        return random_key(0 if key_or_seed is None else key_or_seed)

    rule = TreeRule(noisy_update, scalars={"rng_key": fresh_key}, supports_complex=False)
    return lift(
        rule,
        {"learning_rate": learning_rate, "eta": eta, "gamma": gamma},
        name="noisy_sgd",
        ranges={"eta": NOT_NEGATIVE, "gamma": NOT_NEGATIVE},
        state_dtype=state_dtype,
        layout=layout,
    )
