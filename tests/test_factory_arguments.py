"""What a factory of a rule cannot take: a sentence that names the argument, before anything is computed."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jgd

LOOSE: Any = jgd  # calls that a type checker refuses as well
PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: LOOSE.rprop(optax.constant_schedule(0.1)),
            "rprop: learning_rate must be .* read once, when the state",
        ),
        (lambda: LOOSE.sgd(0.1, nesterov=True), "sgd: nesterov=True looks ahead along the momentum; give one"),
        (lambda: LOOSE.rmsprop(0.1, nesterov=True), "rmsprop: nesterov=True looks ahead along the momentum; give one"),
        (lambda: LOOSE.adam(0.1, nesterov="yes"), "adam: nesterov must be True or False; got 'yes'"),
        (lambda: LOOSE.adam(dict), "adam: learning_rate must be a number, a scalar array or a schedule; got .*dict"),
        (lambda: LOOSE.adam(True), "adam: learning_rate must be a real number; got dtype bool"),
        (lambda: LOOSE.adam(1j), "adam: learning_rate must be a real number; got dtype complex"),
        (lambda: LOOSE.adam(0.1, b1=None), "adam: b1 must be a number, a scalar array or a schedule; got None"),
        (lambda: LOOSE.adam(0.1, eps=np.ones(2)), r"adam: eps must be a scalar; got shape \(2,\)"),
        (lambda: LOOSE.adagrad(0.1, "x"), "adagrad: initial_accumulator_value must be a number or a scalar array"),
        (
            lambda: LOOSE.ftrl(0.1, initial_accumulator_value=-1.0),
            "initial_accumulator_value must be at least 0; got -1",
        ),
        (lambda: LOOSE.prodigy(estim_lr0=0.0), "prodigy: estim_lr0 must be above 0; got 0.0"),
        (lambda: LOOSE.muon(0.1, ns_steps=1.5), "muon: ns_steps must be an integer; got 1.5"),
        (lambda: LOOSE.dion(0.1, rank_fraction="all"), "dion: rank_fraction must be a number; got 'all'"),
        (lambda: LOOSE.dion(0.1, weight_decay=None), "dion: weight_decay must be a number.*got None"),
        (lambda: LOOSE.galore(0.1, rank=2.5), "galore: rank must be an integer; got 2.5"),
        (
            lambda: LOOSE.lbfgs(linesearch="wolfe"),
            "lbfgs: linesearch must be an optimizer or 'zoom' or None; got 'wolfe'",
        ),
        (lambda: LOOSE.soap(0.1, init_basis=["qr"]), "soap: init_basis must be .*'identity'; got \\['qr'\\]"),
        (lambda: LOOSE.adopt(0.1, clip_value_fn=3), "adopt: clip_value_fn must be a function"),
        (lambda: LOOSE.muon(0.1, muon_weight_dimension_numbers=3).init(PARAMS), "matrix axes of the leaf at .* got 3"),
        (
            lambda: LOOSE.apollo(0.1, matrix_axes={"v": None}).init(PARAMS),
            "apollo: the tree of matrix axes is not a prefix",
        ),
        (
            lambda: LOOSE.groups({"re:(": LOOSE.sgd(0.1)}).init(PARAMS),
            "pattern 're:\\(' is not a regular expression: missing",
        ),
    ],
)
def test_it_is_refused_by_name(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_a_line_search_says_what_it_reads():
    optimizer = jgd.lbfgs()
    state = optimizer.init(PARAMS)
    with pytest.raises(TypeError, match=r"lbfgs: the line search reads grad, value_fn: call update\(grads, state, par"):
        optimizer.update(PARAMS, state, PARAMS, value=1.0)
    jgd.lbfgs(0.1, linesearch=None).update(PARAMS, jgd.lbfgs(0.1, linesearch=None).init(PARAMS), PARAMS)


def test_a_factory_with_a_door_is_what_its_module_holds():
    import pickle

    assert pickle.loads(pickle.dumps(jgd.adam)) is jgd.adam
    assert jgd.adam.__name__ == "adam"
    assert str(jgd.adam.__doc__).startswith("Adam:")
