"""A run with a progress bar: some steps at a time, compiled, and the numbers shown in between."""

import time

import jax

from jgd.core import Array, PyTree, require
from jgd.minimizers.loop._fields import Status
from jgd.minimizers.loop._loop import RunState
from jgd.minimizers.loop._program import Inputs, Settings, build
from jgd.minimizers.loop._result import MinimizeResult
from jgd.minimizers.problem._flatten import flattener

#: How long the steps between two updates of the bar should take, in seconds.
SECONDS = 0.1


def run_with_bar(settings: Settings, params: PyTree, inputs: Inputs) -> MinimizeResult:
    """Runs a program from params to its result, with a progress bar."""
    tqdm = require("tqdm.auto", "train", "the progress bar of minimize (progress=False does without)")

    @jax.jit
    def init(params: PyTree, inputs: Inputs) -> RunState:
        return build(settings, flattener(params), inputs).init(params)

    @jax.jit
    def iterate(params: PyTree, inputs: Inputs, run: RunState, limit: Array) -> RunState:
        return build(settings, flattener(params), inputs).loop.iterate(run, limit)

    @jax.jit
    def result(params: PyTree, inputs: Inputs, run: RunState) -> MinimizeResult:
        return build(settings, flattener(params), inputs).result(run)

    run = init(params, inputs)
    limit, size = 0, 1
    with tqdm.tqdm(total=settings.max_steps, unit="step", desc="minimize", leave=False) as bar:
        while int(run.status) == Status.RUNNING:
            started, limit = time.perf_counter(), limit + size
            run = jax.block_until_ready(iterate(params, inputs, run, limit))
            if time.perf_counter() - started < SECONDS:
                size *= 2
            bar.update(int(run.steps) - bar.n)
            bar.set_postfix(value=f"{float(run.point.value):.6g}", grad_norm=f"{float(run.grad_norm):.3g}")
    return result(params, inputs, run)
