"""The form with a progress bar: chunks of steps, compiled, and a look at the numbers in between."""

import functools
import time

import jax

from jgd.core import PyTree, require
from jgd.minimizers.loop._fields import Status
from jgd.minimizers.loop._program import Inputs, Settings, begin, finish, go_on
from jgd.minimizers.loop._result import MinimizeResult

#: How long a chunk should take, in seconds.
CHUNK_SECONDS = 0.1


def run_with_bar(settings: Settings, params: PyTree, inputs: Inputs) -> MinimizeResult:
    """A whole run with a progress bar."""
    tqdm = require("tqdm.auto", "train", "the progress bar of minimize (progress=False does without)")
    first, chunk, last = (jax.jit(functools.partial(f, settings)) for f in (begin, go_on, finish))
    run = first(params, inputs)
    limit, size = 0, 1
    with tqdm.tqdm(total=settings.max_steps, unit="step", desc="minimize", leave=False) as bar:
        while int(run.status) == Status.RUNNING:
            started, limit = time.perf_counter(), limit + size
            run = jax.block_until_ready(chunk(params, inputs, run, limit))
            if time.perf_counter() - started < CHUNK_SECONDS:
                size *= 2
            bar.update(int(run.steps) - bar.n)
            bar.set_postfix(value=f"{float(run.point.value):.6g}", grad_norm=f"{float(run.grad_norm):.3g}")
    return last(params, inputs, run)
