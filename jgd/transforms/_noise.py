r"""Gaussian noise on the gradients, fading over time.

References:
    - Neelakantan et al., "Adding gradient noise improves learning for very deep networks",
      https://arxiv.org/abs/1511.06807, 2015.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jgd.core import (
    NOT_NEGATIVE,
    Array,
    Hyper,
    KeyLike,
    Optimizer,
    ScalarOrSchedule,
    Slots,
    TreeRule,
    lift,
    random_key,
    random_like,
)


def _noisy(grads: list[Array], slots: Slots, params: list[Array], hyper: Hyper, step: Array) -> Any:
    del params
    key, sample_key = jax.random.split(slots["rng_key"])
    deviation = jnp.sqrt(hyper["eta"] / step.astype(hyper["eta"].dtype) ** hyper["gamma"])
    noise = random_like(sample_key, grads)
    return [g + deviation.astype(z.real.dtype) * z for g, z in zip(grads, noise, strict=True)], {"rng_key": key}


def add_noise(
    eta: ScalarOrSchedule, gamma: ScalarOrSchedule, key: KeyLike | None = None, *, seed: int | None = None
) -> Optimizer:
    r"""`updates + z` with $z \sim \mathcal N(0, \eta / t^\gamma)$.

    Args:
        eta: Variance of the first step's noise, at least 0.
        gamma: How fast it falls, at least 0.
        key: A key of `jax.random`, or an integer; None for 0.
        seed: optax's former name of `key`.

    Returns:
        A transform with the hyperparameters `eta`, `gamma` and the slot `rng_key`, one for the tree.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number or is negative.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> noise = jgd.add_noise(0.01, 0.55, key=0)
        >>> updates, state = noise.update(jnp.ones(3), noise.init(jnp.ones(3)))
        >>> print(bool(jnp.all(jnp.abs(updates - 1) < 0.5)))
        True
    """
    key_or_seed = seed if key is None else key

    def fresh_key(params: list[Array]) -> Array:
        del params
        return random_key(0 if key_or_seed is None else key_or_seed)

    ranges = {"eta": NOT_NEGATIVE, "gamma": NOT_NEGATIVE}
    return lift(
        TreeRule(_noisy, scalars={"rng_key": fresh_key}), {"eta": eta, "gamma": gamma}, name="add_noise", ranges=ranges
    )
