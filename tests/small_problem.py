"""A tree with a leaf of each kind, and a loss to descend on it."""

import jax
import jax.numpy as jnp
import numpy as np


def small_params(dtype="float32"):
    """A matrix, a vector, a small kernel and a scalar."""
    shapes = {"kernel": (2, 2, 2, 3), "matrix": (4, 3), "scalar": (), "vector": (3,)}
    return {
        name: jnp.asarray(np.cos(np.arange(1, 1 + int(np.prod(shape)))).reshape(shape), dtype)
        for name, shape in shapes.items()
    }


def quadratic(params):
    """Something to descend: its minimum is at one half."""
    return sum(jnp.sum((leaf.astype(jnp.float32) - 0.5) ** 2) for leaf in jax.tree.leaves(params))
