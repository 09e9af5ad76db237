"""Why a run stopped, and what would help, in sentences."""

import numpy as np

from jgd.minimizers.loop._result import MinimizeResult
from jgd.minimizers.loop._sentences import largest_step, rate_of, sentences


def explain(result: MinimizeResult) -> str:
    """Says why a run stopped.

    A step that overshoots is reported with the largest stable one, 2/L, where L is the largest curvature along the
    path; a run that crawls, with its linear rate and the steps that it would take to reach `tol`.

    Args:
        result: The result of one run, with values (not inside `jit`). Of a batch, take one lane:
            `jax.tree.map(lambda leaf: leaf[i], result)`.

    Returns:
        One to three sentences.

    Raises:
        ValueError: The result is a batch.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimizers import GradientDescent, explain, minimize
        >>> bowl = lambda x: 5.0 * jnp.sum(x**2)
        >>> result = minimize(bowl, jnp.ones(2), method=GradientDescent(0.3))
        >>> print(explain(result))
        Diverged: the value rose from 10 to 1.049e+07 in 10 steps. Steps of size 0.3 overshoot: the curvature along the
        path reaches L = 10, and steps above 2/L = 0.2 are not stable; try 1/L = 0.1.
    """
    if np.ndim(result.status) > 0:
        raise ValueError(
            f"explain: the result is a batch of shape {np.shape(result.status)}; expected one run. Take a lane:"
            " jax.tree.map(lambda leaf: leaf[i], result)."
        )
    return sentences(result)


def stable_step(result: MinimizeResult) -> float:
    """The largest stable step size of gradient descent, 2/L, from the largest curvature along the path.

    Args:
        result: The result of one run.

    Returns:
        The step size; infinite where the path has no curvature. That of other directions may be larger.
    """
    return largest_step(result)


def linear_rate(result: MinimizeResult) -> float:
    """The factor by which the gradient norm changes in a step, on average over the last half of the run or more.

    Args:
        result: The result of one run.

    Returns:
        The rate, below 1 where it decreases; NaN with fewer than two steps.
    """
    return rate_of(result)
