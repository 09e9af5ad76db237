"""Rules that torch.optim has, and the forms of theirs that differ from optax's, against torch."""

from rows import Row

import jgd

_BETAS = {"lr": 0.02, "betas": (0.85, 0.97)}
_OURS = {"learning_rate": 0.02, "b1": 0.85, "b2": 0.97}


def torch(name, ours, factory, arguments, **more):
    """A row whose reference is an optimizer of torch.optim."""
    return Row(name, ours, "torch", f"torch.optim:{factory}", arguments, **more)


ROWS = [
    torch("adam_torch", lambda: jgd.adam(**_OURS, eps=1e-5), "Adam", _BETAS | {"eps": 1e-5}),
    torch("adam_coupled_torch", lambda: jgd.adamw(**_OURS, weight_decay=0.1, decay_form="coupled"), "Adam",
          _BETAS | {"weight_decay": 0.1}),
    torch("adamw_torch", lambda: jgd.adamw(**_OURS, weight_decay=0.1), "AdamW", _BETAS | {"weight_decay": 0.1}),
    torch("adamax_torch", lambda: jgd.adamax(**_OURS), "Adamax", _BETAS),
    torch("adadelta_torch", lambda: jgd.adadelta(3.0, rho=0.8, eps=1e-5, weight_decay=0.02), "Adadelta",
          {"lr": 3.0, "rho": 0.8, "eps": 1e-5, "weight_decay": 0.02}),
    torch("adagrad_torch", lambda: jgd.adagrad(0.3, 0.2, 1e-5, like="torch", lr_decay=0.05), "Adagrad",
          {"lr": 0.3, "initial_accumulator_value": 0.2, "eps": 1e-5, "lr_decay": 0.05}),
    torch("rmsprop_torch", lambda: jgd.rmsprop(0.02, 0.85, 1e-4, momentum=0.7, like="torch"), "RMSprop",
          {"lr": 0.02, "alpha": 0.85, "eps": 1e-4, "momentum": 0.7}),
    torch("rmsprop_centered_torch", lambda: jgd.rmsprop(0.02, 0.85, 1e-3, centered=True, like="torch"), "RMSprop",
          {"lr": 0.02, "alpha": 0.85, "eps": 1e-3, "centered": True}),
    torch("radam_torch", lambda: jgd.radam(**_OURS, eps=1e-4, like="torch"), "RAdam", _BETAS | {"eps": 1e-4}),
    torch("nadam_torch", lambda: jgd.nadam(**_OURS, nesterov_form="torch", momentum_decay=0.01), "NAdam",
          _BETAS | {"momentum_decay": 0.01}, tolerance=1e-7),  # torch keeps the product of momenta in float32
    torch("rprop_torch", lambda: jgd.rprop(0.02, 0.4, 1.3, max_step_size=0.2, like="torch"), "Rprop",
          {"lr": 0.02, "etas": (0.4, 1.3), "step_sizes": (1e-6, 0.2)}),
    torch("amsgrad_torch", lambda: jgd.amsgrad(**_OURS, like="torch"), "Adam", _BETAS | {"amsgrad": True}),
]  # fmt: skip
