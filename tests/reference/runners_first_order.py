"""Runners for references that come as a clone and not as a package, and for those that are run in a way of their own.

Clones are looked for in the folder that the environment variable JGD_REFERENCES names, under their repository's name,
which a row gives as `options["clone"]`; `options["commit"]` is the commit that the trace was made with.
"""

import importlib.util
import os
from pathlib import Path

import numpy as np
from problem import RECORDED, STEPS, gradient, problem


def resolve(row):
    """The object that `theirs`, a `module:name`, names; in the clone where there is one."""
    module_name, _, name = row.theirs.partition(":")
    if "clone" not in row.options:
        return getattr(importlib.import_module(module_name), name)
    file = Path(os.environ["JGD_REFERENCES"]) / row.options["clone"] / (module_name.replace(".", "/") + ".py")
    spec = importlib.util.spec_from_file_location(module_name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def _flat(row, params):
    return np.concatenate([np.asarray(params[name], np.float64).ravel() for name in row.leaves])


def run_torch_as(row):
    """A `torch.optim.Optimizer` with options.

    `rename`: the names that leaves have in front of the optimizer, which then gets named params. `rate`: the learning
    rate of each step, counted from 0. `read`: the entry of each param's state that is recorded in the param's place.
    `joined`: all leaves as one matrix of one row. torch's default dtype is the row's.
    """
    import torch

    dtype, options = getattr(torch, row.dtype), row.options
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    fixed = [{name: torch.tensor(leaf[name], dtype=dtype) for name in row.leaves} for leaf in problem(row.leaves)]
    start, target, curvature, noise = fixed
    params = {name: torch.nn.Parameter(start[name].clone()) for name in row.leaves}
    row_of_all = torch.nn.Parameter(torch.cat([leaf.detach().ravel() for leaf in params.values()])[None])
    given = [row_of_all] if options.get("joined") else list(params.values())
    if "rename" in options:
        given = [(options["rename"].get(name, name), param) for name, param in params.items()]
    optimizer = resolve(row)(given, **row.arguments)
    found = {}
    for t in range(STEPS):
        if "rate" in options:
            for group in optimizer.param_groups:
                group["lr"] = options["rate"](t)
        now = {name: param.detach() for name, param in params.items()}
        if options.get("joined"):
            sizes = [param.numel() for param in params.values()]
            parts = row_of_all.detach()[0].split(sizes)
            now = {name: part.reshape(params[name].shape) for name, part in zip(params, parts, strict=True)}
        for name in row.leaves:
            params[name].grad = gradient(now[name], noise[name][t], target[name], curvature[name])
        row_of_all.grad = torch.cat([param.grad.ravel() for param in params.values()])[None]
        optimizer.step()
        if t + 1 in RECORDED and options.get("joined"):
            found[t + 1] = row_of_all.detach().numpy().ravel().copy()
        elif t + 1 in RECORDED:
            read = options.get("read")
            leaves = {name: optimizer.state[param][read] if read else param for name, param in params.items()}
            found[t + 1] = _flat(row, {name: leaf.detach().numpy() for name, leaf in leaves.items()})
    torch.set_default_dtype(torch.float32)
    return found


def run_keras(row):
    """An optimizer of Keras, on its torch backend."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    keras.backend.set_floatx(row.dtype)
    start, target, curvature, noise = problem(row.leaves)
    params = {name: keras.Variable(start[name], dtype=row.dtype) for name in row.leaves}
    optimizer = resolve(row)(**row.arguments)
    found = {}
    for t in range(STEPS):
        now = {name: keras.ops.convert_to_numpy(param) for name, param in params.items()}
        grads = {name: gradient(now[name], noise[name][t], target[name], curvature[name]) for name in row.leaves}
        pairs = [(keras.ops.convert_to_tensor(grads[name], dtype=row.dtype), params[name]) for name in row.leaves]
        optimizer.apply_gradients(pairs)
        if t + 1 in RECORDED:
            found[t + 1] = _flat(row, {name: keras.ops.convert_to_numpy(param) for name, param in params.items()})
    return found


RUNNERS = {"torch_as": run_torch_as, "keras": run_keras}
