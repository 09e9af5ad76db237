"""Gradient descent, momentum and signs."""

from rows import Row, same

import jgd

ROWS = [
    same("sgd", jgd.sgd, {"learning_rate": 0.03, "momentum": 0.8, "nesterov": True}),
    Row("sgd_torch", lambda: jgd.sgd(0.03, 0.8, True), "torch", "torch.optim:SGD",
        {"lr": 0.03, "momentum": 0.8, "nesterov": True}),
]  # fmt: skip
