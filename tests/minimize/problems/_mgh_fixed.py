"""More, Garbow and Hillstrom's problems 1 to 19, each of one size.

References:
    J. J. More, B. S. Garbow and K. E. Hillstrom, "Testing Unconstrained Optimization Software", ACM Transactions on
    Mathematical Software 7(1), 1981, pages 17 to 41, https://doi.org/10.1145/355934.355936
"""

import jax
import jax.numpy as jnp
import numpy as np

from . import _mgh_data as data
from ._problem import Problem, as_data, count, least_squares

Array = jax.Array


def rosenbrock(x: Array) -> Array:
    return jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def freudenstein_roth(x: Array) -> Array:
    return jnp.stack([-13 + x[0] + ((5 - x[1]) * x[1] - 2) * x[1], -29 + x[0] + ((x[1] + 1) * x[1] - 14) * x[1]])


def powell_badly_scaled(x: Array) -> Array:
    return jnp.stack([1e4 * x[0] * x[1] - 1, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001])


def brown_badly_scaled(x: Array) -> Array:
    return jnp.stack([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2])


def beale(x: Array) -> Array:
    return jnp.stack([y - x[0] * (1 - x[1] ** i) for i, y in ((1, 1.5), (2, 2.25), (3, 2.625))])


def jennrich_sampson(x: Array) -> Array:
    i = count(10, x)
    return 2 + 2 * i - (jnp.exp(i * x[0]) + jnp.exp(i * x[1]))


def helical_valley(x: Array) -> Array:
    turn = jnp.arctan2(x[1], x[0]) / (2 * np.pi)
    turn = jnp.where((x[0] < 0) & (x[1] < 0), turn + 1, turn)  # the paper's runs from -1/4 to 3/4
    return jnp.stack([10 * (x[2] - 10 * turn), 10 * (jnp.sqrt(x[0] ** 2 + x[1] ** 2) - 1), x[2]])


def bard(x: Array) -> Array:
    u = count(15, x)
    v = 16 - u
    return as_data(data.BARD, x) - (x[0] + u / (v * x[1] + jnp.minimum(u, v) * x[2]))


def gaussian(x: Array) -> Array:
    t = (8 - count(15, x)) / 2
    return x[0] * jnp.exp(-x[1] * (t - x[2]) ** 2 / 2) - as_data(data.GAUSSIAN, x)


def meyer(x: Array) -> Array:
    return x[0] * jnp.exp(x[1] / (45 + 5 * count(16, x) + x[2])) - as_data(data.MEYER, x)


def gulf(x: Array) -> Array:
    # The paper's formula has a misprint: m i should be a minus sign.
    t = np.arange(1, 100) / 100
    y = 25 + (-50 * np.log(t)) ** (2 / 3)
    return jnp.exp(-(jnp.abs(as_data(y, x) - x[1]) ** x[2]) / x[0]) - as_data(t, x)


def box_three_dimensional(x: Array) -> Array:
    t = count(10, x) / 10
    return jnp.exp(-t * x[0]) - jnp.exp(-t * x[1]) - x[2] * (jnp.exp(-t) - jnp.exp(-10 * t))


def powell_singular(x: Array) -> Array:
    return jnp.stack(
        [
            x[0] + 10 * x[1],
            np.sqrt(5.0).item() * (x[2] - x[3]),
            (x[1] - 2 * x[2]) ** 2,
            np.sqrt(10.0).item() * (x[0] - x[3]) ** 2,
        ]
    )


def wood(x: Array) -> Array:
    root90, root10 = np.sqrt(90.0).item(), np.sqrt(10.0).item()
    return jnp.stack(
        [
            10 * (x[1] - x[0] ** 2),
            1 - x[0],
            root90 * (x[3] - x[2] ** 2),
            1 - x[2],
            root10 * (x[1] + x[3] - 2),
            (x[1] - x[3]) / root10,
        ]
    )


def kowalik_osborne(x: Array) -> Array:
    y, u = as_data(data.KOWALIK_Y, x), as_data(data.KOWALIK_U, x)
    return y - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


def brown_dennis(x: Array) -> Array:
    t = count(20, x) / 5
    return (x[0] + t * x[1] - jnp.exp(t)) ** 2 + (x[2] + x[3] * jnp.sin(t) - jnp.cos(t)) ** 2


def osborne_1(x: Array) -> Array:
    t = 10 * count(33, x, first=0)
    return as_data(data.OSBORNE_1, x) - (x[0] + x[1] * jnp.exp(-t * x[3]) + x[2] * jnp.exp(-t * x[4]))


def biggs_exp6(x: Array) -> Array:
    t = count(13, x) / 10
    y = jnp.exp(-t) - 5 * jnp.exp(-10 * t) + 3 * jnp.exp(-4 * t)
    return x[2] * jnp.exp(-t * x[0]) - x[3] * jnp.exp(-t * x[1]) + x[5] * jnp.exp(-t * x[4]) - y


def osborne_2(x: Array) -> Array:
    t = count(65, x, first=0) / 10
    peaks = sum(x[i] * jnp.exp(-((t - x[i + 7]) ** 2) * x[i + 4]) for i in (1, 2, 3))
    return as_data(data.OSBORNE_2, x) - (x[0] * jnp.exp(-t * x[4]) + peaks)


FIXED: list[Problem] = [
    least_squares("rosenbrock", rosenbrock, [-1.2, 1], 0.0, minimizer=1.0),
    least_squares("freudenstein_roth", freudenstein_roth, [0.5, -2], 0.0, others=(48.98425368,), minimizer=[5, 4]),
    least_squares("powell_badly_scaled", powell_badly_scaled, [0, 1], 0.0),
    least_squares("brown_badly_scaled", brown_badly_scaled, [1, 1], 0.0, minimizer=[1e6, 2e-6]),
    least_squares("beale", beale, [1, 1], 0.0, minimizer=[3, 0.5]),
    least_squares("jennrich_sampson", jennrich_sampson, [0.3, 0.4], 124.36218236),
    least_squares("helical_valley", helical_valley, [-1, 0, 0], 0.0, minimizer=[1, 0, 0]),
    least_squares("bard", bard, [1, 1, 1], 8.2148773e-3, others=(17.42869,)),
    least_squares("gaussian", gaussian, [0.4, 1, 0], 1.12793e-8),
    least_squares("meyer", meyer, [0.02, 4000, 250], 87.94585517),
    least_squares("gulf", gulf, [5, 2.5, 0.15], 0.0, minimizer=[50, 25, 1.5]),
    least_squares("box_three_dimensional", box_three_dimensional, [0, 10, 20], 0.0, minimizer=[1, 10, 1]),
    least_squares("powell_singular", powell_singular, [3, -1, 0, 1], 0.0, minimizer=0.0),
    least_squares("wood", wood, [-3, -1, -3, -1], 0.0, minimizer=1.0),
    least_squares("kowalik_osborne", kowalik_osborne, [0.25, 0.39, 0.415, 0.39], 3.0750561e-4, others=(1.02734e-3,)),
    least_squares("brown_dennis", brown_dennis, [25, 5, -5, -1], 85822.201626),
    least_squares("osborne_1", osborne_1, [0.5, 1.5, -1, 0.01, 0.02], 5.4648947e-5),
    least_squares(
        "biggs_exp6", biggs_exp6, [1, 2, 1, 1, 1, 1], 0.0, others=(5.6556499e-3,), minimizer=[1, 10, 1, 5, 4, 3]
    ),
    least_squares("osborne_2", osborne_2, [1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5], 4.0137736e-2),
]
