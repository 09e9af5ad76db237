"""The seeded problem of the golden traces: a noisy quadratic over a vector, matrices, a kernel and a scalar.

The loss of step t is `sum(noise_t * p) + 0.5 * sum(h * (p - target)**2)`, summed over every entry of every leaf, with
curvatures `h` between 0.1 and 1. NumPy's `RandomState` is frozen, so these numbers are the same everywhere.
"""

import functools

import numpy as np

STEPS = 100
RECORDED = (1, 2, 3, 5, 10, 20, 50, 100)
SHAPES = {"kernel": (4, 3, 2, 2), "matrix": (6, 4), "scalar": (), "vector": (5,), "wide": (3, 8)}


@functools.cache
def problem(names=tuple(SHAPES), steps=STEPS):
    """First params, targets and curvatures by leaf, and the noise of all steps, `[steps, *shape]`, in float64."""
    start, target, curvature, noise = {}, {}, {}, {}
    for name in names:
        shape, random = SHAPES[name], np.random.RandomState(sum(map(ord, name)))
        start[name] = np.asarray(random.normal(size=shape))
        target[name] = np.asarray(random.normal(size=shape))
        curvature[name] = np.asarray(random.uniform(0.1, 1.0, size=shape))
        noise[name] = random.normal(size=(steps, *shape)) * 0.3
    return start, target, curvature, noise


def gradient(param, noise, target, curvature):
    """The gradient on one leaf: NumPy, torch and JAX arrays alike."""
    return noise + curvature * (param - target)


def leaf_loss(param, noise, target, curvature):
    """The loss of one leaf: NumPy and JAX arrays alike (torch's too, where all four are torch's)."""
    return (noise * param).sum() + 0.5 * (curvature * (param - target) ** 2).sum()
