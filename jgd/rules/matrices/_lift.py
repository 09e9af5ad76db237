"""Optimizers of two rules: one for matrices, one for all other leaves."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from optax.contrib import MuonDimensionNumbers

from jgd.core import (
    Array,
    Cached,
    Hyper,
    Mask,
    Optimizer,
    PyTree,
    Rule,
    TreeOrFunction,
    broadcast_mask,
    debias,
    lift,
    under_prefix,
)
from jgd.rules._adam import ADAM
from jgd.rules.matrices._axes import axes_of
from jgd.rules.parts._nesterov import NADAM
from jgd.rules.parts._weight_decay import decayed


def choose_matrices(
    owner: str,
    matrix_axes: TreeOrFunction | None,
    mask: Mask,
    matrix_rule: Callable[[MuonDimensionNumbers, bool], Rule],
    other_rule: Callable[[bool], Rule],
) -> Callable[[PyTree], PyTree]:
    """What `lift` takes as `choose`: the rule of each leaf, from its matrix axes and whether it decays."""

    def choose(params: PyTree) -> PyTree:
        mask_leaves = jax.tree.leaves(broadcast_mask(owner, mask, params))
        rules = [
            other_rule(decays) if axes is None else matrix_rule(axes, decays)
            for axes, decays in zip(axes_of(owner, params, matrix_axes), mask_leaves, strict=True)
        ]
        return jax.tree.unflatten(jax.tree.structure(params), rules)

    return choose


def plain_adam(nesterov: bool = False, eps_uncorrected: bool = False) -> Rule:
    """Adam that needs no `eps_root`.

    `eps_uncorrected` puts `eps` beside the root of the second moment before that is corrected.
    """
    rule = NADAM if nesterov else ADAM

    def prepare(hyper: Hyper, step: Array) -> Hyper:
        hyper = {"eps_root": jnp.zeros_like(hyper["eps"])} | hyper
        if eps_uncorrected:
            hyper = hyper | {"eps": hyper["eps"] / jnp.sqrt(debias(hyper["1-b2"], step))}
        return rule.prepare(hyper, step)

    return dataclasses.replace(rule, prepare=prepare)


def adamw_beside(nesterov: bool = False, eps_uncorrected: bool = False) -> Rule:
    """AdamW for the leaves that are not matrices, reading `adam_b1` and so on."""
    return under_prefix(decayed(plain_adam(nesterov, eps_uncorrected)), "adam_")


# Hyperparameters that may be None: the matrices' one counts in their place, or the rule has another form.
_OPTIONAL = ("adam_learning_rate", "adam_eps", "consistent_rms", "b2")


def lift_beside_adamw(
    make_rule: Callable[[MuonDimensionNumbers, bool], Rule],
    hyperparams: Mapping[str, Any],
    matrix_axes: TreeOrFunction | None,
    mask: Mask,
    auxiliary: Rule | None = None,
    *,
    name: str,
    **more: Any,
) -> Optimizer:
    """Lifts a rule for matrices, with AdamW for the other leaves; hyperparameters that are None are left out."""
    make_rule, auxiliary = Cached(make_rule), auxiliary or adamw_beside()
    present: dict[str, Any] = {k: v for k, v in hyperparams.items() if v is not None or k not in _OPTIONAL}
    return lift(
        (make_rule(MuonDimensionNumbers(), True), auxiliary),
        present,
        name=name,
        choose=choose_matrices(name, matrix_axes, mask, make_rule, lambda _: auxiliary),
        arrays=("ns_coeffs",),
        **more,
    )
