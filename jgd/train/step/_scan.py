"""Many steps as one compiled program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import Array, PyTree, checked, is_traced
from jgd.train._state import TrainState
from jgd.train.step._advance import Metrics
from jgd.train.step._make_step import RUNNING, Step, check_state
from jgd.train.step._stacked import check_stacked


@checked
def scan_steps(step: Step) -> Callable[[TrainState, PyTree], tuple[TrainState, Metrics]]:
    """Many steps as one compiled program: no Python and no dispatch between them.

    Args:
        step: What `make_step` returned.

    Returns:
        `run(state, batches) -> (state, metrics)`, where every leaf of `batches` has one more axis in front, the
        steps, and so has every leaf of `metrics`. It donates as `step` does. The result equals that of as many
        calls of `step`. With `on_nonfinite="raise"` the steps after a bad one leave the state as it is, and the
        error is raised when the program ends.

    Raises:
        TypeError: `step` was not made by `make_step`.
        ValueError: The leaves of `batches` do not agree in how many steps they hold, or hold none; or they have
            the axes of one batch that the step was called with.
        NonFiniteError: As for `make_step`.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.sgd(0.1)
        >>> step = jgd.make_step(lambda w, batch: jnp.mean((w - batch) ** 2), optimizer)
        >>> run = jgd.scan_steps(step)
        >>> state, metrics = run(jgd.TrainState.create(jnp.array(5.0), optimizer), jnp.full((50, 8), 2.0))
        >>> print(state.step, metrics["loss"].shape, state.params.round(3))
        50 (50,) 2.0
    """

    def scan(state: TrainState, batches: PyTree) -> tuple[TrainState, Metrics, Array]:
        def body(carry: tuple[TrainState, Array], batch: PyTree) -> tuple[tuple[TrainState, Array], Any]:
            state, running = carry
            state, metrics, bad_leaf, running = step.advance(state, batch, running)
            return (state, running), (metrics, bad_leaf)

        (state, _), (metrics, bad_leaf) = jax.lax.scan(body, (state, jnp.asarray(RUNNING)), batches)
        return state, metrics, bad_leaf

    compiled = jax.jit(scan, donate_argnums=(0,) if step.donate else ())
    traceable = jax.jit(scan)

    def run(state: TrainState, batches: PyTree) -> tuple[TrainState, Metrics]:
        check_state(state, step.optimizer)
        check_stacked(batches, step.known)
        go = traceable if any(map(is_traced, jax.tree.leaves(state))) else compiled
        state, metrics, bad_leaf = go(state, batches)
        if not is_traced(bad_leaf):
            outcomes = np.asarray(step.outcome(metrics, bad_leaf)).tolist()
            stopped = next((i for i, outcome in enumerate(outcomes) if step.has_stopped(outcome)), None)
            if stopped is not None:
                of_step, batch = jax.tree.map(lambda leaf: leaf[stopped], (metrics, batches))
                error = step.error_of(of_step, int(bad_leaf[stopped]), state, batch)
                if error is not None:
                    raise error
        return state, metrics

    return run
