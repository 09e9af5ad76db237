"""Runs references that round to float32 inside, draw random numbers, or come as a clone and not as a package.

Their code runs unchanged. What is changed is what they call: `torch.float` and `Tensor.float` mean float64, compilation
is off, and random probes come from `shared_probe`, which jgd's side is handed as well.

Clones are looked for in the folder that the environment variable JGD_REFERENCES names, under their repository's name.
"""

import contextlib
import dataclasses
import os
import sys

import numpy as np
from problem import STEPS

_PROBES = np.random.RandomState(7).normal(size=(STEPS, 64))


def probe_table():
    """What `shared_probe` reads: a row a step."""
    return _PROBES


def shared_probe(step, shape, dtype):
    """The same probe for both sides, on jgd's: `step` counts from 1 and may be traced."""
    import jax.numpy as jnp

    size = int(np.prod(shape))
    return jnp.asarray(_PROBES, dtype)[step - 1, :size].reshape(shape)


@contextlib.contextmanager
def replaced(owner, **values):
    """Attributes of a module or class replaced for a while."""
    before = {name: getattr(owner, name) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


def run_in_double(row):
    """A `torch.optim.Optimizer` whose float32 parts are widened to float64.

    Options: `clone`, the repository whose folder holds the module; `basis="identity"`, which has `torch.linalg.eigh`
    give unit vectors, for references that start from eigenvectors which rounding alone decides (those of a first
    gradient without full rank). Arguments of the form `(name, arguments)` are made
    with the reference's own classes, and `"torch.float64"` means that dtype.
    """
    import torch
    from make import resolve, run_torch
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    if "clone" in row.options:
        sys.path.insert(0, os.path.join(os.environ["JGD_REFERENCES"], row.options["clone"]))
    torch.compiler.set_stance("force_eager")
    step = [0]

    def made(value):
        if isinstance(value, str) and value.startswith("torch."):
            return getattr(torch, value.removeprefix("torch."))
        if isinstance(value, dict):
            return {name: made(inner) for name, inner in value.items()}
        if not isinstance(value, tuple) or not isinstance(value[0], str):
            return value
        name, arguments = value
        return resolve(f"{row.theirs.partition(':')[0]}:{name}")(**made(arguments))

    def counted(optimizer, *_):
        del optimizer
        step[0] += 1

    def probe(like):
        return torch.tensor(_PROBES[step[0] - 1, : like.numel()]).reshape(like.shape)

    def unit_vectors(matrix):
        return matrix.diagonal(), torch.flip(torch.eye(len(matrix)), [1])

    eigh = unit_vectors if row.options.get("basis") == "identity" else torch.linalg.eigh
    hook = register_optimizer_step_pre_hook(counted)
    torch.set_default_dtype(torch.float64)
    try:
        with (
            replaced(torch, float=torch.float64, randn_like=probe),
            replaced(torch.Tensor, float=torch.Tensor.double),
            replaced(torch.linalg, eigh=eigh),
        ):
            return run_torch(dataclasses.replace(row, arguments=made(row.arguments)))
    finally:
        torch.set_default_dtype(torch.float32)
        hook.remove()


RUNNERS = {"double": run_in_double}
