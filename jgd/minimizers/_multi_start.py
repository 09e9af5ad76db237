"""Many starts at once: one compiled program, and the best run of them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgd.core import Array, ArrayTree, PyTree
from jgd.minimizers._minimize import minimize
from jgd.minimizers.loop._result import MinimizeResult


class MultiStart(NamedTuple):
    """The runs from many starts.

    Attributes:
        best: The run with the lowest value.
        runs: All runs: each leaf with one axis more in front.
        index: The index of the best run, int32.
    """

    best: MinimizeResult
    runs: MinimizeResult
    index: Array


def multi_start(fun: Callable[..., Any], starts: ArrayTree, **options: Any) -> MultiStart:
    """Minimizes from many starts at once, by `vmap`: each run ends on its own, the program with the last of them.

    Args:
        fun: The function, as for `minimize`.
        starts: The params of `minimize`, each leaf with one axis more in front, of the same length in all.
        **options: Options of `minimize`, but no progress bar.

    Returns:
        The best run and all runs.

    Raises:
        ValueError: The leaves have no common leading axis.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimizers import multi_start
        >>> double_well = lambda x: (x**2 - 1) ** 2 + 0.3 * x
        >>> result = multi_start(double_well, jnp.array([-1.0, 0.5, 1.0]), tol=1e-4)
        >>> print(result.best.params.round(2), result.runs.params.round(2))
        -1.04 [-1.04  0.96  0.96]
    """
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(starts)}
    if len(lengths) != 1 or lengths in ({()}, {(0,)}):
        raise ValueError(f"multi_start: starts need one leading axis, of one length; found {sorted(lengths)}.")
    data = {name: options.pop(name) for name in ("args", "tol", "bounds") if name in options}
    settings = tuple(sorted(options.items()))
    try:
        hash((fun, settings))
    except TypeError:  # settings that hold arrays: compiled anew in each call
        return _minimize_all(fun, settings, starts, data)
    return _compiled(fun, settings, starts, data)


def _minimize_all(fun: Callable[..., Any], settings: tuple, starts: PyTree, data: dict[str, Any]) -> MultiStart:
    runs = jax.vmap(lambda params: minimize(fun, params, **dict(settings), **data))(starts)
    values = jnp.where(jnp.isnan(runs.value), jnp.inf, runs.value)
    index = jnp.argmin(values).astype(jnp.int32)
    return MultiStart(jax.tree.map(lambda leaf: leaf[index], runs), runs, index)


_compiled = functools.partial(jax.jit, static_argnums=(0, 1))(_minimize_all)
