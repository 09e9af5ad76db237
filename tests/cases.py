"""One row a rule: how it is made, what it is compared with, and every way in which it is unusual."""

import dataclasses
from collections.abc import Callable
from typing import Any

import formulas
import optax

import jgd


@dataclasses.dataclass(frozen=True)
class Case:
    """One rule with settings that are not its defaults."""

    name: str
    make: Callable[..., Any]
    settings: dict[str, Any]
    make_optax: Callable[..., Any] | None
    formula: Callable[..., Any]
    formula_settings: dict[str, Any] | None = None  # where the formula's arguments differ from the factory's
    slots: tuple[str, ...] = ()
    complex_leaves: bool = True
    matrix_only: bool = False  # the formula is for matrices, and other leaves get another rule
    elementwise: bool = True

    def optimizer(self, **more: Any) -> jgd.Optimizer:
        return self.make(**(self.settings | more))

    def expected(self, param, grads):
        settings = self.settings if self.formula_settings is None else self.formula_settings
        return self.formula(param, grads, **settings)


_ADAM = {"learning_rate": 0.02, "b1": 0.85, "b2": 0.98, "eps": 1e-5}

CASES = [
    Case("gradient_descent", jgd.gradient_descent, {"learning_rate": 0.03}, optax.sgd, formulas.gradient_descent),
    Case("sgd", jgd.sgd, {"learning_rate": 0.03, "momentum": 0.8}, optax.sgd, formulas.sgd, slots=("trace",)),
    Case(
        "sgd_nesterov",
        jgd.sgd,
        {"learning_rate": 0.03, "momentum": 0.8, "nesterov": True},
        optax.sgd,
        formulas.sgd,
        slots=("trace",),
    ),
    Case("adam", jgd.adam, _ADAM | {"eps_root": 1e-9}, optax.adam, formulas.adam, slots=("mu", "nu")),
    Case("nadam", jgd.nadam, _ADAM, optax.nadam, formulas.nadam, slots=("mu", "nu")),
    Case("adamw", jgd.adamw, _ADAM | {"weight_decay": 0.1}, optax.adamw, formulas.adam, slots=("mu", "nu")),
    Case("nadamw", jgd.nadamw, _ADAM | {"weight_decay": 0.1}, optax.nadamw, formulas.nadam, slots=("mu", "nu")),
    Case("amsgrad", jgd.amsgrad, _ADAM, optax.amsgrad, formulas.amsgrad, slots=("mu", "nu", "nu_max")),
    Case(
        "amsgrad_as_published",
        jgd.amsgrad,
        _ADAM | {"bias_correction_mu": False, "bias_correction_nu": False},
        optax.amsgrad,
        formulas.amsgrad,
        formula_settings=_ADAM | {"correct": False},
        slots=("mu", "nu", "nu_max"),
    ),
    Case(
        "lion",
        jgd.lion,
        {"learning_rate": 0.02, "b1": 0.85, "b2": 0.97, "weight_decay": 0.1},
        optax.lion,
        formulas.lion,
        slots=("mu",),
        complex_leaves=False,
    ),
    Case(
        "muon",
        jgd.muon,
        {"learning_rate": 0.02, "beta": 0.9, "eps": 1e-7, "weight_decay": 0.1},
        optax.contrib.muon,
        formulas.muon,
        slots=("mu", "nu"),
        matrix_only=True,
        elementwise=False,
    ),
]
