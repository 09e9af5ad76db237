"""Functions that minimizers are usually tried on, of two variables and of any number of them.

References:
    M. Jamil and X.-S. Yang, "A Literature Survey of Benchmark Functions For Global Optimization Problems", 2013,
    https://arxiv.org/abs/1308.4008
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ._mgh_fixed import wood
from ._mgh_sized import extended_powell_singular, extended_rosenbrock, trigonometric
from ._problem import Problem, as_data, count, least_squares, make

Array = jax.Array


def himmelblau(x: Array) -> Array:
    return jnp.stack([x[0] ** 2 + x[1] - 11, x[0] + x[1] ** 2 - 7])


def booth(x: Array) -> Array:
    return jnp.stack([x[0] + 2 * x[1] - 7, 2 * x[0] + x[1] - 5])


def matyas(x: Array) -> Array:
    return 0.26 * jnp.sum(x**2) - 0.48 * x[0] * x[1]


def three_hump_camel(x: Array) -> Array:
    return 2 * x[0] ** 2 - 1.05 * x[0] ** 4 + x[0] ** 6 / 6 + x[0] * x[1] + x[1] ** 2


def six_hump_camel(x: Array) -> Array:
    return (4 - 2.1 * x[0] ** 2 + x[0] ** 4 / 3) * x[0] ** 2 + x[0] * x[1] + 4 * (x[1] ** 2 - 1) * x[1] ** 2


def goldstein_price(x: Array) -> Array:
    a, b = x[0], x[1]
    first = 1 + (a + b + 1) ** 2 * (19 - 14 * a + 3 * a**2 - 14 * b + 6 * a * b + 3 * b**2)
    return first * (30 + (2 * a - 3 * b) ** 2 * (18 - 32 * a + 12 * a**2 + 48 * b - 36 * a * b + 27 * b**2))


def branin(x: Array) -> Array:
    bent = x[1] - 5.1 / (4 * np.pi**2) * x[0] ** 2 + 5 / np.pi * x[0] - 6
    return bent**2 + 10 * (1 - 1 / (8 * np.pi)) * jnp.cos(x[0]) + 10


def mccormick(x: Array) -> Array:
    return jnp.sin(x[0] + x[1]) + (x[0] - x[1]) ** 2 - 1.5 * x[0] + 2.5 * x[1] + 1


def chained_rosenbrock(x: Array) -> Array:
    return jnp.concatenate([10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1]])


def extended_wood(x: Array) -> Array:
    return jax.vmap(wood)(x.reshape(-1, 4)).ravel()


def rastrigin(x: Array) -> Array:
    return jnp.sum(x**2 + 10 * (1 - jnp.cos(2 * np.pi * x)))


def styblinski_tang(x: Array) -> Array:
    return jnp.sum(x**4 - 16 * x**2 + 5 * x) / 2


def dixon_price(x: Array) -> Array:
    i = count(x.size - 1, x, first=2)
    return jnp.concatenate([(x[0] - 1)[None], jnp.sqrt(i) * (2 * x[1:] ** 2 - x[:-1])])


def zakharov(x: Array) -> Array:
    whole = jnp.sum(count(x.size, x) * x) / 2
    return jnp.concatenate([x, jnp.stack([whole, whole**2])])


def different_powers(x: Array) -> Array:
    return jnp.sum(jnp.abs(x) ** np.arange(2, x.size + 2))


def griewank(x: Array) -> Array:
    return 1 + jnp.sum(x**2) / 4000 - jnp.prod(jnp.cos(x / jnp.sqrt(count(x.size, x))))


def hilbert(x: Array) -> Array:
    i = np.arange(1, x.size + 1)
    return (x - 1) @ as_data(1 / (i[:, None] + i - 1), x) @ (x - 1) / 2


def stretched(condition: float) -> Callable[[Array], Array]:
    """Quadratics whose curvatures are spread evenly, on a logarithmic scale, from 1 to `condition`."""

    def quadratic(x: Array) -> Array:
        return jnp.sum(as_data(np.geomspace(1, condition, x.size), x) * (x - 1) ** 2) / 2

    return quadratic


def nesterov_chain(x: Array) -> Array:
    """Nesterov's quadratic on which first-order methods are slowest."""
    return (x[0] ** 2 + jnp.sum((x[1:] - x[:-1]) ** 2) + x[-1] ** 2) / 2 - x[0]


def log_sum_exp(x: Array) -> Array:
    tall = np.sin(np.arange(40 * x.size).reshape(40, x.size) ** 1.5)
    rows = as_data(np.concatenate([tall, -tall]), x)
    return jax.nn.logsumexp(rows @ x - as_data(np.cos(np.arange(80)), x))


def dixon_price_minimizer(n: int) -> np.ndarray:
    i = np.arange(1, n + 1)
    return 2.0 ** (-(2.0**i - 2) / 2.0**i)


SQUARES = [
    least_squares("himmelblau", himmelblau, [0, 0], 0.0, minimizer=[3, 2]),
    least_squares("booth", booth, [0, 0], 0.0, minimizer=[1, 3]),
    *(
        least_squares(f"extended_rosenbrock_{n}", extended_rosenbrock, np.tile([-1.2, 1], n // 2), 0.0, minimizer=1.0)
        for n in (2, 100, 1000)
    ),
    least_squares("chained_rosenbrock_10", chained_rosenbrock, np.full(10, 0.0), 0.0, minimizer=1.0),
    least_squares("chained_rosenbrock_100", chained_rosenbrock, np.full(100, 0.0), 0.0, minimizer=1.0),
    least_squares(
        "extended_powell_singular_100", extended_powell_singular, np.tile([3, -1, 0, 1], 25), 0.0, minimizer=0.0
    ),
    least_squares("extended_wood_100", extended_wood, np.tile([-3, -1], 50), 0.0, minimizer=1.0),
    least_squares("trigonometric_100", trigonometric, np.full(100, 0.01), 0.0, others=(1.8409625e-6,), minimizer=0.0),
    least_squares(
        "dixon_price_10", dixon_price, np.ones(10), 0.0, others=(2 / 3,), minimizer=dixon_price_minimizer(10)
    ),
    least_squares("zakharov_10", zakharov, np.ones(10), 0.0, minimizer=0.0),
]

CHAIN = 100

FUNCTIONS = [
    make("matyas", matyas, [4, -3], 0.0, minimizer=0.0),
    make("three_hump_camel", three_hump_camel, [0.5, 0.5], 0.0, minimizer=0.0),
    make(
        "six_hump_camel",
        six_hump_camel,
        [0.5, -0.5],
        -1.031628453489877,
        minimizer=[0.08984201310031806, -0.7126564030207396],
    ),
    make("goldstein_price", goldstein_price, [0.2, -0.8], 3.0, others=(30.0, 84.0, 840.0), minimizer=[0, -1]),
    make("branin", branin, [2, 2], 0.39788735772973816, minimizer=[np.pi, 2.275]),
    make("mccormick", mccormick, [0, 0], -1.9132229549810367, minimizer=[0.5 - np.pi / 3, -0.5 - np.pi / 3]),
    make("rastrigin_10", rastrigin, np.full(10, 0.2), 0.0, minimizer=0.0),
    make("styblinski_tang_10", styblinski_tang, np.full(10, -1), -391.6616570377142, minimizer=-2.903534027771177),
    make("different_powers_10", different_powers, np.full(10, 0.5), 0.0, minimizer=0.0),
    make("griewank_10", griewank, np.full(10, 1.0), 0.0, minimizer=0.0),
    make("hilbert_10", hilbert, np.zeros(10), 0.0, minimizer=1.0),
    make("stretched_100", stretched(1e6), np.zeros(100), 0.0, minimizer=1.0),
    make("stretched_1000", stretched(1e4), np.zeros(1000), 0.0, minimizer=1.0),
    make(
        f"nesterov_chain_{CHAIN}",
        nesterov_chain,
        np.zeros(CHAIN),
        -CHAIN / (2 * (CHAIN + 1)),
        minimizer=1 - np.arange(1, CHAIN + 1) / (CHAIN + 1),
    ),
    make("log_sum_exp_20", log_sum_exp, np.zeros(20), 4.528384574067365),
]

CLASSICS: list[Problem] = [*SQUARES, *FUNCTIONS]
