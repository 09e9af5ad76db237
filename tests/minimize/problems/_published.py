"""Problems that the test suites of scipy and optimistix solve, with the tolerances they ask for.

References:
    - scipy 1.17, scipy/optimize/tests: test_optimize.py, test_trustregion.py and test_least_squares.py;
      https://github.com/scipy/scipy, BSD-3-Clause.
    - optimistix, tests/helpers.py, test_minimise.py and test_least_squares.py of 2025;
      https://github.com/patrick-kidger/optimistix, Apache-2.0.

Small problems get five variables, of which they use the first, so that one program with a `lax.switch` runs them all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Fun = Callable[[jax.Array], jax.Array]
#: Variables of the small problems.
SIZE = 5
INF = np.inf


@dataclass(frozen=True)
class Published:
    """A problem and what is asked of its solution: what is None is not asked for.

    Attributes:
        name: Whose test it is.
        fun: ``x [5] -> value``, or residuals [m].
        start: Where to start, ``[n]``, n at most 5.
        value: The value expected (for residuals: half the sum of squares).
        minimizer: The minimizer expected, ``[n]``.
        rtol: Allowed error, relative to what is expected.
        atol: Allowed error, absolute.
        only: Names of the methods that the tests ask for this; all if empty.
        bounds: Lower and upper bounds, each ``[n]``.
    """

    name: str
    fun: Fun
    start: Any
    value: float | None = None
    minimizer: Any = None
    rtol: float = 0.0
    atol: float = 0.0
    only: tuple[str, ...] = ()
    bounds: tuple[Any, Any] | None = None


def padded(values: Any, fill: float = 0.0) -> np.ndarray:
    """Five numbers."""
    values = np.asarray(values, np.float64)
    return np.concatenate([values, np.full(SIZE - len(values), fill)])


# --- of scipy ---------------------------------------------------------------------------------------------------------
_FEATURES = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 1], [1, 0, 0], [1, 0, 0]], np.float64)


def _entropy(x: jax.Array) -> jax.Array:
    """The dual of a maximum entropy problem: word probabilities with three given means."""
    return jax.nn.logsumexp(_FEATURES @ x[:3]) - jnp.array([1.0, 0.3, 0.5]) @ x[:3]


def _rosenbrock(n: int) -> Fun:
    return lambda x: jnp.sum(100 * (x[1:n] - x[: n - 1] ** 2) ** 2 + (1 - x[: n - 1]) ** 2)


def _himmelblau(x: jax.Array) -> jax.Array:
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


def _morse(x: jax.Array) -> jax.Array:
    return 2.5 * (1 - jnp.exp(-1.5 * (x[0] - 0.5))) ** 2


_valley_of_2, _valley_of_5 = _rosenbrock(2), _rosenbrock(5)
_AT_SOLUTION = float(np.log(np.sum(np.exp(_FEATURES @ [0, -0.524869316, 0.487525860]))) - (-0.3 * 0.524869316))
_AT_SOLUTION -= 0.5 * 0.487525860

SCIPY = [
    Published("entropy", _entropy, [0, 0, 0], value=_AT_SOLUTION, atol=1e-6),
    Published("rosenbrock from (2, 2)", _valley_of_2, [2, 2], minimizer=[1, 1], rtol=1e-7),
    Published("rosenbrock from (-1.2, 1)", _valley_of_2, [-1.2, 1], minimizer=[1, 1], rtol=1e-7),
    Published("rosenbrock from (1, 1)", _valley_of_2, [1, 1], minimizer=[1, 1], rtol=1e-7),
    Published("rosenbrock of 5", _valley_of_5, [1.3, 0.7, 0.8, 1.9, 1.2], value=0.0, atol=1e-6),
    Published("himmelblau", _himmelblau, [-0.27, -0.9], value=0.0, atol=1e-4),
    Published("himmelblau, where", _himmelblau, [-0.27, -0.9], minimizer=[3, 2], rtol=1e-4, only=("newton_cg",)),
    Published("cosine", lambda x: jnp.cos(x[0]), [0.1], minimizer=[np.pi], atol=1.5e-7, only=("newton_cg",)),
    *(
        Published(f"morse {i}", _morse, [r], minimizer=[0.5], rtol=1e-5, only=("cg",))
        for i, r in enumerate(np.linspace(-0.75, 3, 71))
    ),
]

# --- of optimistix ----------------------------------------------------------------------------------------------------
_NEAR = {"rtol": 1e-4, "atol": 1e-4}


def _beale(x: jax.Array) -> jax.Array:
    return sum((c - x[0] + x[0] * x[1] ** (k + 1)) ** 2 for k, c in enumerate([1.5, 2.25, 2.625]))


def _quadratic(x: jax.Array) -> jax.Array:
    matrix, linear = jnp.array([[2.0, -1.0], [-1.0, 3.0]]), jnp.array([-100.0, 5.0])
    return x[:2] @ matrix @ x[:2] + linear @ x[:2] + 100


OPTIMISTIX = [
    Published("himmelblau from (2, 2.5)", _himmelblau, [2, 2.5], value=0.0, **_NEAR),
    Published("matyas", lambda x: 0.26 * (x[0] ** 2 + x[1] ** 2) - 0.48 * x[0] * x[1], [6, 6], value=0.0, **_NEAR),
    Published("beale", _beale, [2, 0], value=0.0, **_NEAR),
    Published("square minus one", lambda x: x[0] ** 2 - 1, [1], value=-1.0, **_NEAR),
    Published("quadratic", _quadratic, [2, 3], minimizer=[29.5, 9], rtol=1e-5, atol=1e-5),
]

# --- sums of squares, of both -----------------------------------------------------------------------------------------


def _valley(x: jax.Array) -> jax.Array:
    return jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def _broyden(x: jax.Array) -> jax.Array:
    """Broyden's tridiagonal system."""
    return (3 - x) * x + 1 - jnp.pad(x[:-1], (1, 0)) - 2 * jnp.pad(x[1:], (0, 1))


def _boundary_values(x: jax.Array) -> jax.Array:
    """The five-point Laplacian plus a cube, on a square of ten by ten."""
    u = jnp.pad(x.reshape(10, 10), 1)
    inner = u[1:-1, 1:-1]
    return (u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:] - 4 * inner + inner**3).ravel()


def _broyden_start() -> np.ndarray:
    draws = np.random.default_rng(123440)
    draws.standard_normal(200)  # of bounds that this problem is solved without
    return -1 + 0.1 * draws.standard_normal(100)


SQUARES = [
    Published("trivial", lambda x: x[:1] ** 2 + 5, [2], value=12.5, minimizer=[0], rtol=1e-7, atol=1e-4),
    Published("trivial, shifted", lambda x: (x[:1] - 3) ** 2 + 5, [2], minimizer=[3], rtol=1e-4),
    Published("valley", _valley, [-2, 1], minimizer=[1, 1], rtol=1e-7),
    Published("half a valley", lambda x: _valley(x)[:1], [-2, 1], value=0.0, atol=1e-14),
    Published("line", lambda x: jnp.stack([100 * (x[1] - x[0]), 1 - x[0]]), [1.5, 1.5], value=0.0, **_NEAR),
]
#: Of 100 variables, not padded.
LARGE_SQUARES = [
    Published("broyden", _broyden, _broyden_start(), value=0.0, atol=1e-20),
    Published("boundary values", _boundary_values, np.ones(100), value=0.25, atol=0.25),
]

# --- with bounds, of scipy --------------------------------------------------------------------------------------------


def _half_valley(x: jax.Array) -> jax.Array:
    return 0.5 * jnp.sum(_valley(x) ** 2)


def _trivial(x: jax.Array) -> jax.Array:
    return 0.5 * (x[0] ** 2 + 5) ** 2


def _in_box(name: str, fun: Fun, start: Any, lower: Any, upper: Any, **more: Any) -> Published:
    return Published(name, fun, start, bounds=(lower, upper), **more)


BOUNDED = [
    _in_box("half squares", lambda x: x[:2] @ x[:2] / 2, [0, -1], [1, -INF], [INF, INF], minimizer=[1, 0], atol=1e-6),
    _in_box(
        "squares",
        lambda x: x @ x,
        [-2.1, -5.2, 1.9, 0, -2],
        [-5, -10, 1, -4, -15.9],
        [-1, -0.1, 9.2, 7.6, -2],
        minimizer=[-1, -0.1, 1, 0, -2],
        atol=1e-6,
    ),
    _in_box("fixed variables", _rosenbrock(4), np.random.default_rng(12223).random(4), [0, 2, -1, -1], [3, 2, 2, -1]),
    _in_box("in the box", _trivial, [2], [-1], [3], minimizer=[0], atol=1e-4),
    _in_box("at its edge", _trivial, [2], [0.5], [3], minimizer=[0.5], atol=1e-4),
    _in_box("valley 1", _half_valley, [-2, 1], [-INF, -1.5], [INF, INF]),
    _in_box("valley 2", _half_valley, [2, 2], [-INF, 1.5], [INF, INF]),
    _in_box("valley 3", _half_valley, [-2, 2], [-INF, 1.5], [INF, INF]),
    _in_box("valley 4", _half_valley, [0, 2], [-INF, 1.5], [1, INF]),
    _in_box("valley 5", _half_valley, [2, 2], [1, 1.5], [3, 3]),
    _in_box("valley 6", _half_valley, [-1.2, 1], [-50, 0], [0.5, 100]),
]
