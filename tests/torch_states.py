"""States of `torch.optim` to convert: how they come about, and the stored ones that need no PyTorch.

`python tests/torch_states.py` runs PyTorch and writes `torch_states.json` anew.
"""

import json
from pathlib import Path

import numpy as np

import jgd

FILE = Path(__file__).with_suffix(".json")
NAMES = ["layer.kernel", "layer.bias"]
STEPS = 5

# Per row: torch's class and options, jgd's factory with a learning rate that the import has to correct.
_ADAM = {"lr": 0.02, "betas": (0.85, 0.97), "eps": 1e-6}
_RMS = {"lr": 0.02, "alpha": 0.95, "eps": 1e-6}
ROWS = {
    "adam": ("Adam", _ADAM, lambda: jgd.adam(1.0)),
    "adam_coupled": ("Adam", _ADAM | {"weight_decay": 0.1}, lambda: jgd.adamw(1.0, decay_form="coupled")),
    "adamw": ("AdamW", _ADAM | {"weight_decay": 0.1}, lambda: jgd.adamw(1.0)),
    "amsgrad": ("Adam", _ADAM | {"amsgrad": True}, lambda: jgd.amsgrad(1.0, like="torch")),
    "nadam": ("NAdam", _ADAM | {"momentum_decay": 0.01}, lambda: jgd.nadam(1.0, nesterov_form="torch")),
    "radam": ("RAdam", _ADAM, lambda: jgd.radam(1.0, like="torch")),
    "adamax": ("Adamax", _ADAM, lambda: jgd.adamax(1.0)),
    "sgd": ("SGD", {"lr": 0.02, "momentum": 0.8}, lambda: jgd.sgd(1.0, 0.5)),
    "nesterov": ("SGD", {"lr": 0.02, "momentum": 0.8, "nesterov": True}, lambda: jgd.sgd(1.0, 0.5, nesterov=True)),
    "rmsprop": ("RMSprop", _RMS, lambda: jgd.rmsprop(1.0, like="torch")),
    "rmsprop_full": (
        "RMSprop",
        _RMS | {"centered": True, "momentum": 0.8},
        lambda: jgd.rmsprop(1.0, centered=True, momentum=0.5, like="torch"),
    ),
    "adagrad": ("Adagrad", {"lr": 0.1, "lr_decay": 0.01}, lambda: jgd.adagrad(1.0, like="torch")),
    "adadelta": ("Adadelta", {"lr": 0.5, "rho": 0.8, "weight_decay": 0.1}, lambda: jgd.adadelta(1.0)),
    "muon": ("Muon", {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}, lambda: jgd.muon(1.0, like="torch")),
}
# PyTorch's Muon rounds to bfloat16 inside.
TOLERANCES = {"muon": 2e-2}


def names_of(row):
    """Muon takes matrices only."""
    return NAMES[:1] if row == "muon" else NAMES


def first_params(row):
    """By name, in jgd's layout: kernels are inputs by outputs, which torch has the other way round."""
    params = {"layer.kernel": np.linspace(-1.0, 2.0, 6).reshape(2, 3), "layer.bias": np.array([0.5, -0.25, 1.5])}
    return {name: params[name] for name in names_of(row)}


def gradient(param, step):
    """The gradient of some loss, another one each step."""
    entries = np.arange(param.size).reshape(param.shape)
    return (1.0 + 0.3 * entries) * (param - 0.3) + 0.5 * np.cos(step + entries)


def turned(path, array):
    """From one layout into the other."""
    del path
    return array.T if array.ndim == 2 else array


def tree_of(params):
    return {"layer": {name.split(".")[1]: value for name, value in params.items()}}


def run_torch(row, params, first_step, state_dict=None):
    """Runs PyTorch; gives back the params and the state dict after it."""
    import torch

    kind, options, _ = ROWS[row]
    tensors = [torch.nn.Parameter(torch.tensor(np.array(turned("", value)))) for value in params.values()]
    optimizer = getattr(torch.optim, kind)(tensors, **options)
    if state_dict is not None:
        optimizer.load_state_dict(state_dict)
    for step in range(first_step, first_step + STEPS):
        for tensor in tensors:
            grad = gradient(turned("", tensor.detach().numpy()), step)
            tensor.grad = torch.tensor(np.array(turned("", grad)))
        optimizer.step()
    after = [turned("", tensor.detach().numpy()).copy() for tensor in tensors]
    return dict(zip(params, after, strict=True)), optimizer.state_dict()


def record(row):
    """A run that was interrupted half-way."""
    half, state_dict = run_torch(row, first_params(row), 0)
    state_dict = {
        "state": {
            number: {name: value.numpy().copy() for name, value in entry.items()}
            for number, entry in state_dict["state"].items()
        },
        "param_groups": state_dict["param_groups"],
    }
    after, _ = run_torch(row, half, STEPS, _tensors(state_dict))
    return {"half": half, "state_dict": state_dict, "after": after}


def stored(row):
    """The same from the file, arrays in NumPy."""
    run = json.loads(FILE.read_text(encoding="utf-8"))[row]
    entries = {
        int(number): {name: np.array(value) for name, value in entry.items()}
        for number, entry in run["state_dict"]["state"].items()
    }
    return {
        "half": {name: np.array(value) for name, value in run["half"].items()},
        "state_dict": {"state": entries, "param_groups": run["state_dict"]["param_groups"]},
        "after": {name: np.array(value) for name, value in run["after"].items()},
    }


def _tensors(state_dict):
    import torch

    entries = {
        number: {name: torch.tensor(value) for name, value in entry.items()}
        for number, entry in state_dict["state"].items()
    }
    return {**state_dict, "state": entries}


if __name__ == "__main__":
    runs = {row: record(row) for row in ROWS}
    FILE.write_text(json.dumps(runs, default=lambda array: array.tolist()) + "\n", encoding="utf-8")
