"""Gradients clipped example by example, with noise: what optax has of private training.

References:
    - Abadi et al., "Deep learning with differential privacy", https://arxiv.org/abs/1607.00133, 2016, Algorithm 1.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jgd.core import (
    NOT_NEGATIVE,
    POSITIVE,
    Array,
    Hyperparams,
    KeyLike,
    Optimizer,
    OptState,
    PyTree,
    ScalarOrSchedule,
    begin_update,
    compute_dtype,
    first_state,
    gaussian_noise,
    global_norm,
    make_optimizer,
    random_key,
    real_dtype,
)
from jgd.rules import sgd
from jgd.transforms._chain import chain


def differentially_private_aggregate(
    l2_norm_clip: ScalarOrSchedule,
    noise_multiplier: ScalarOrSchedule,
    key: KeyLike | None = None,
    *,
    seed: int | None = None,
) -> Optimizer:
    r"""The mean of per-example gradients, each clipped, with Gaussian noise on the sum.

    $\frac1B \bigl( \sum_i g_i \min(1, c / \lVert g_i \rVert) + \mathcal N(0, \sigma^2 c^2) \bigr)$. Every leaf of the
    updates has the examples on its first axis, as `jax.vmap(jax.grad(loss), (None, 0))` gives them. What is not finite
    makes the mean NaN, and so does a norm above 8e37 times $c$ (float32): no example is dropped silently.

    Args:
        l2_norm_clip: The largest norm $c$ of one example's gradient, above 0.
        noise_multiplier: The deviation $\sigma$ of the noise over $c$, at least 0.
        key: A key of `jax.random`, or an integer; None for 0. A run that is to be private needs one that nobody knows.
        seed: optax's former name of `key`; one of the two.

    Returns:
        A transform with the hyperparameters `l2_norm_clip`, `noise_multiplier` and the slot `rng_key`.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range; the leaves do not have one
            number of examples on their first axis.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> aggregate = jgd.differentially_private_aggregate(1.0, 0.0, key=0)
        >>> grads = jnp.array([[8.0, 0.0], [0.0, 0.5]])
        >>> print(aggregate.update(grads, aggregate.init(jnp.zeros(2)))[0])
        [0.5  0.25]
    """
    name = "differentially_private_aggregate"
    key_or_seed = _one_of(name, key, seed)
    hyperparams = {"l2_norm_clip": l2_norm_clip, "noise_multiplier": noise_multiplier}
    numbers = Hyperparams(name, hyperparams, ranges={"l2_norm_clip": POSITIVE, "noise_multiplier": NOT_NEGATIVE})

    def init(params: PyTree) -> OptState:
        del params
        slots = {"rng_key": random_key(0 if key_or_seed is None else key_or_seed)}
        return first_state(numbers, slots)

    def update(grads: PyTree, state: OptState, params: PyTree = None, **extra: Any) -> tuple[PyTree, OptState]:
        del params, extra
        hyper, step = begin_update(numbers, state, OptState)
        leaves, treedef = jax.tree.flatten(grads)
        sizes = {jnp.shape(leaf)[:1] for leaf in leaves}
        if len(sizes) != 1 or () in sizes:
            raise ValueError(f"{name}: expected the examples on the first axis of every leaf; got {sorted(sizes)}.")
        norms = jax.vmap(global_norm)(leaves)
        is_clipped = ~(norms <= hyper["l2_norm_clip"])
        factors = jnp.where(is_clipped, hyper["l2_norm_clip"] / jnp.where(is_clipped, norms, 1), 1)
        factors = jnp.where(factors < jnp.finfo(factors.dtype).tiny, jnp.nan, factors)  # too small to be a number
        key, *keys = jax.random.split(state.slots["rng_key"], len(leaves) + 1)
        deviation, count = hyper["l2_norm_clip"] * hyper["noise_multiplier"], len(norms)

        def aggregate(leaf: Array, key: Array) -> Array:
            dtype = compute_dtype(leaf.dtype)
            total = jnp.tensordot(factors.astype(dtype), leaf.astype(dtype), axes=1)
            noise = gaussian_noise(key, deviation.astype(real_dtype(dtype)), total.shape, dtype)
            return ((total + noise) / count).astype(leaf.dtype)

        means = [aggregate(jnp.asarray(leaf), key) for leaf, key in zip(leaves, keys, strict=True)]
        return treedef.unflatten(means), OptState(step, hyper, {"rng_key": key})

    return make_optimizer(init, update, f"jgd.{name}({numbers.text()})")


def dpsgd(
    learning_rate: ScalarOrSchedule,
    l2_norm_clip: ScalarOrSchedule,
    noise_multiplier: ScalarOrSchedule,
    key: KeyLike | None = None,
    momentum: ScalarOrSchedule | None = None,
    nesterov: bool = False,
    *,
    seed: KeyLike | None = None,
) -> Optimizer:
    """SGD on per-example gradients that are clipped, summed and noised.

    Args:
        learning_rate: Length of a step per unit of gradient, at least 0.
        l2_norm_clip: The largest norm of one example's gradient, above 0.
        noise_multiplier: The deviation of the noise over `l2_norm_clip`, at least 0.
        key: A key of `jax.random`, or an integer; None for 0. A run that is to be private needs one that nobody knows.
        momentum: Decay rate of the sum of gradients, in [0, 1); None for no momentum.
        nesterov: Whether to step along the look-ahead sum.
        seed: optax 0.2.8's name of `key`; one of the two.

    Returns:
        A chain of the aggregation and `jgd.sgd`.

    Raises:
        TypeError, ValueError: As for its parts.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.dpsgd(1.0, 1.0, 0.0, key=0), jnp.zeros(2)
        >>> grads = jnp.array([[8.0, 0.0], [0.0, 0.5]])
        >>> print(optimizer.update(grads, optimizer.init(params), params)[0])
        [-0.5  -0.25]
    """
    aggregate = differentially_private_aggregate(l2_norm_clip, noise_multiplier, _one_of("dpsgd", key, seed))
    return chain(aggregate, sgd(learning_rate, momentum, nesterov))


def _one_of(name: str, key: KeyLike | None, seed: KeyLike | None) -> Any:
    if key is not None and seed is not None:
        raise ValueError(f"{name}: seed is another name of key; give one of them. Got key={key!r} and seed={seed!r}.")
    return seed if key is None else key
