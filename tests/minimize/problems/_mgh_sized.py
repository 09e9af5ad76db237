"""More, Garbow and Hillstrom's problems 20 to 35, whose sizes can be chosen.

References:
    J. J. More, B. S. Garbow and K. E. Hillstrom, "Testing Unconstrained Optimization Software", ACM Transactions on
    Mathematical Software 7(1), 1981, pages 17 to 41, https://doi.org/10.1145/355934.355936
"""

import jax
import jax.numpy as jnp
import numpy as np

from ._problem import Problem, as_data, count, least_squares

Array = jax.Array

WEIGHT = 1e-5  # of the penalties
ROWS = 20  # of the linear functions


def watson(x: Array) -> Array:
    n = x.size
    t = np.arange(1, 30)[:, None] / 29.0
    powers = t ** np.arange(n)
    slopes = np.arange(1, n) * powers[:, : n - 1]
    fitted = as_data(slopes, x) @ x[1:] - (as_data(powers, x) @ x) ** 2 - 1
    return jnp.concatenate([fitted, jnp.stack([x[0], x[1] - x[0] ** 2 - 1])])


def extended_rosenbrock(x: Array) -> Array:
    odd, even = x[0::2], x[1::2]
    return jnp.concatenate([10 * (even - odd**2), 1 - odd])


def extended_powell_singular(x: Array) -> Array:
    a, b, c, d = x[0::4], x[1::4], x[2::4], x[3::4]
    root5, root10 = np.sqrt(5.0).item(), np.sqrt(10.0).item()
    return jnp.concatenate([a + 10 * b, root5 * (c - d), (b - 2 * c) ** 2, root10 * (a - d) ** 2])


def penalty_1(x: Array) -> Array:
    return jnp.concatenate([np.sqrt(WEIGHT).item() * (x - 1), jnp.sum(x**2)[None] - 0.25])


def penalty_2(x: Array) -> Array:
    n = x.size
    i = np.arange(2, n + 1)
    y = np.exp(i / 10) + np.exp((i - 1) / 10)
    grown = jnp.exp(x / 10)
    near = grown[1:] + grown[:-1] - as_data(y, x)
    far = grown[1:] - np.exp(-0.1).item()
    whole = jnp.sum(count(n, x)[::-1] * x**2) - 1
    small = np.sqrt(WEIGHT).item()
    return jnp.concatenate([(x[0] - 0.2)[None], small * near, small * far, whole[None]])


def variably_dimensioned(x: Array) -> Array:
    total = jnp.sum(count(x.size, x) * (x - 1))
    return jnp.concatenate([x - 1, jnp.stack([total, total**2])])


def trigonometric(x: Array) -> Array:
    return x.size - jnp.sum(jnp.cos(x)) + count(x.size, x) * (1 - jnp.cos(x)) - jnp.sin(x)


def brown_almost_linear(x: Array) -> Array:
    return jnp.concatenate([x[:-1] + jnp.sum(x) - (x.size + 1), jnp.prod(x)[None] - 1])


def neighbors(x: Array) -> tuple[Array, Array]:
    """The number before each and the one after it; zero at the ends."""
    padded = jnp.pad(x, 1)
    return padded[:-2], padded[2:]


def boundary_value(x: Array) -> Array:
    h = 1 / (x.size + 1)
    before, after = neighbors(x)
    return 2 * x - before - after + h**2 * (x + h * count(x.size, x) + 1) ** 3 / 2


def integral_equation(x: Array) -> Array:
    n = x.size
    h = 1 / (n + 1)
    t = h * count(n, x)
    cubes = (x + t + 1) ** 3
    up_to = as_data(np.tril(np.ones((n, n))), x)
    return x + h * ((1 - t) * (up_to @ (t * cubes)) + t * ((1 - up_to) @ ((1 - t) * cubes))) / 2


def broyden_tridiagonal(x: Array) -> Array:
    before, after = neighbors(x)
    return (3 - 2 * x) * x - before - 2 * after + 1


def broyden_banded(x: Array) -> Array:
    n = x.size
    i, j = np.arange(n)[:, None], np.arange(n)
    band = (j != i) & (j >= i - 5) & (j <= i + 1)
    return x * (2 + 5 * x**2) + 1 - as_data(band.astype(float), x) @ (x * (1 + x))


def linear_full_rank(x: Array) -> Array:
    mean = 2 / ROWS * jnp.sum(x)
    return jnp.concatenate([x - mean - 1, jnp.full(ROWS - x.size, 1, x.dtype) * (-mean - 1)])


def linear_rank_1(x: Array) -> Array:
    return count(ROWS, x) * jnp.sum(count(x.size, x) * x) - 1


def linear_rank_1_zeros(x: Array) -> Array:
    n = x.size
    inner = jnp.sum(count(n - 2, x, first=2) * x[1:-1])
    return jnp.pad(count(ROWS - 2, x) * inner, 1) - 1


def chebyquad(x: Array) -> Array:
    n = x.size
    y = 2 * x - 1  # Chebyshev polynomials moved to the interval from 0 to 1
    polynomials = [jnp.ones_like(y), y]
    while len(polynomials) <= n:
        polynomials.append(2 * y * polynomials[-1] - polynomials[-2])
    i = np.arange(1, n + 1)
    integrals = np.where(i % 2 == 0, -1 / np.where(i == 1, 1.0, i**2 - 1.0), 0.0)
    return jnp.stack([jnp.mean(p) for p in polynomials[1:]]) - as_data(integrals, x)


def grid(n: int) -> np.ndarray:
    """The inner points of n + 1 equal parts of the interval from 0 to 1."""
    return np.arange(1, n + 1) / (n + 1)


def one(i: int, value: float) -> np.ndarray:
    """Ten numbers, all but one of them zero."""
    return value * np.eye(10)[i]


def linear_minima(m: int) -> tuple[float, float]:
    """The smallest values of both linear functions of rank 1."""
    return m * (m - 1) / (2 * (2 * m + 1)), (m**2 + 3 * m - 6) / (2 * (2 * m - 3))


SIZED: list[Problem] = [
    least_squares("watson", watson, np.zeros(6), 2.2876700536e-3),
    least_squares("extended_rosenbrock", extended_rosenbrock, np.tile([-1.2, 1], 5), 0.0, minimizer=1.0),
    least_squares("extended_powell_singular", extended_powell_singular, np.tile([3, -1, 0, 1], 3), 0.0, minimizer=0.0),
    least_squares("penalty_1", penalty_1, np.arange(1, 11), 7.0876515e-5),
    least_squares("penalty_2", penalty_2, np.full(10, 0.5), 2.9366054e-4),
    least_squares("variably_dimensioned", variably_dimensioned, 1 - np.arange(1, 11) / 10, 0.0, minimizer=1.0),
    least_squares("trigonometric", trigonometric, np.full(10, 0.1), 0.0, others=(2.7950612e-5,), minimizer=0.0),
    least_squares("brown_almost_linear", brown_almost_linear, np.full(10, 0.5), 0.0, others=(1.0,), minimizer=1.0),
    least_squares("boundary_value", boundary_value, grid(10) * (grid(10) - 1), 0.0),
    least_squares("integral_equation", integral_equation, grid(10) * (grid(10) - 1), 0.0),
    least_squares("broyden_tridiagonal", broyden_tridiagonal, np.full(10, -1), 0.0),
    least_squares("broyden_banded", broyden_banded, np.full(10, -1), 0.0),
    least_squares("linear_full_rank", linear_full_rank, np.ones(10), ROWS - 10.0, minimizer=-1.0),
    least_squares(
        "linear_rank_1", linear_rank_1, np.ones(10), linear_minima(ROWS)[0], minimizer=one(0, 3 / (2 * ROWS + 1))
    ),
    least_squares(
        "linear_rank_1_zeros",
        linear_rank_1_zeros,
        np.ones(10),
        linear_minima(ROWS)[1],
        minimizer=one(1, 1.5 / (2 * ROWS - 3)),
    ),
    least_squares("chebyquad", chebyquad, grid(8), 3.5168737e-3),
]
