"""Regressions on data sets that scikit-learn comes with: convex, of 4 to 31 parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ._problem import Problem, as_data, least_squares, make

Array = jax.Array
PENALTY = 0.01  # of half the squares of the weights, for the mean of the losses


def standardized(data: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and variance 1, after one of ones."""
    return np.column_stack([np.ones(len(data)), (data - data.mean(0)) / data.std(0)])


def penalty(weights: Array) -> Array:
    return PENALTY / 2 * jnp.sum(weights**2)


def logistic(x: np.ndarray, y: np.ndarray) -> Problem:
    signed = (2.0 * y - 1)[:, None] * x

    def fun(w: Array) -> Array:
        return jnp.mean(jax.nn.softplus(-(as_data(signed, w) @ w))) + penalty(w[1:])

    return make("logistic_breast_cancer", fun, np.zeros(x.shape[1]), 0.09959137548470548)


def ridge(x: np.ndarray, y: np.ndarray) -> Problem:
    m, n = x.shape

    def residuals(w: Array) -> Array:
        misfits = (as_data(x, w) @ w - as_data(y, w)) / np.sqrt(m).item()
        return jnp.concatenate([misfits, np.sqrt(PENALTY).item() * w[1:]])

    curvature = x.T @ x / m + PENALTY * np.diag([0.0] + [1.0] * (n - 1))
    best = np.linalg.solve(curvature, x.T @ y / m)
    smallest = np.mean((x @ best - y) ** 2) + PENALTY * np.sum(best[1:] ** 2)
    return least_squares("ridge_diabetes", residuals, np.zeros(n), float(smallest), minimizer=best)


def softmax(x: np.ndarray, y: np.ndarray) -> Problem:
    def fun(flat: Array) -> Array:
        w = flat.reshape(x.shape[1], 3)
        scores = jax.nn.log_softmax(as_data(x, w) @ w)
        return -jnp.mean(jnp.sum(scores * as_data(np.eye(3)[y], w), axis=1)) + penalty(w)

    return make("softmax_iris", fun, np.zeros(x.shape[1] * 3), 0.26620100080247194)


def poisson(x: np.ndarray, y: np.ndarray) -> Problem:
    def fun(w: Array) -> Array:
        logs = as_data(x, w) @ w
        return jnp.mean(jnp.exp(logs) - as_data(y, w) * logs)

    # From the logarithm of the mean count, as in generalized linear models.
    start = np.concatenate([[np.log(y.mean())], np.zeros(x.shape[1] - 1)])
    return make("poisson_linnerud", fun, start, -585.8975121194634)


def pseudo_huber(x: np.ndarray, y: np.ndarray) -> Problem:
    scale = y.std().item()

    def fun(w: Array) -> Array:
        return jnp.mean(jnp.sqrt(1 + ((as_data(x, w) @ w - as_data(y, w)) / scale) ** 2) - 1)

    return make("pseudo_huber_diabetes", fun, np.zeros(x.shape[1]), 0.1960001425284209)


@functools.cache
def models() -> tuple[Problem, ...]:
    """All of them; they need scikit-learn."""
    from sklearn import datasets

    cancer, diabetes = datasets.load_breast_cancer(), datasets.load_diabetes()
    iris, linnerud = datasets.load_iris(), datasets.load_linnerud()
    measured = standardized(diabetes.data)
    return (
        logistic(standardized(cancer.data), cancer.target),
        ridge(measured, diabetes.target),
        softmax(standardized(iris.data), iris.target),
        poisson(standardized(linnerud.target), linnerud.data[:, 1]),
        pseudo_huber(measured, diabetes.target),
    )
