"""Masks, labels and axes in the shape of a model that can be called: they are trees, and no functions."""

import inspect

import jax
import jax.numpy as jnp
import pytest
from cases import RULES

import jgd


@jax.tree_util.register_pytree_with_keys_class
class Model:
    """A pytree with `__call__`, as an `equinox.nn.MLP` is."""

    def __init__(self, kernel, bias):
        self.kernel, self.bias = kernel, bias

    def __call__(self, x):
        raise AssertionError("a mask was called as a function")

    def tree_flatten_with_keys(self):
        key = jax.tree_util.GetAttrKey
        return ((key("kernel"), self.kernel), (key("bias"), self.bias)), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


PARAMS = Model(jnp.ones((3, 2)), jnp.ones(2))
VALUES = {
    "mask": (True, False),
    "blocks": (jgd.AdamMiniBlocks(0), "tensor"),
    "muon_weight_dimension_numbers": (jgd.MuonDimensionNumbers(0, 1), None),
    "matrix_axes": (jgd.MuonDimensionNumbers(0, 1), None),
    "weight_dimension_numbers": (jgd.GaLoreDimensionNumbers(), None),
}


def value_of(argument):
    return next(value for end, value in VALUES.items() if argument.endswith(end))


def rows():
    for rule in RULES:
        for argument in inspect.signature(rule.factory).parameters:
            if argument.endswith(tuple(VALUES)):
                # All masks go through one function: some of them stand for the rest.
                fast = rule.stands_for or rule.name == "lars" or not argument.endswith("mask")
                marks = () if fast else (pytest.mark.slow,)
                yield pytest.param(rule, argument, id=f"{rule.name}-{argument}", marks=marks)


@pytest.mark.parametrize(("rule", "argument"), list(rows()))
def test_a_tree_in_the_shape_of_a_model_is_no_function(rule, argument):
    def program(given):
        optimizer = rule.make(**{argument: given})

        def first(params):
            extra = rule.extra(lambda tree: jnp.sum(tree.kernel**2) + jnp.sum(tree.bias**2), params, params)
            return optimizer.update(params, optimizer.init(params), params, **extra)

        return jax.make_jaxpr(first)(PARAMS)

    value = Model(*value_of(argument))
    assert str(program(value)) == str(program(lambda params: value))


CHAINS = {
    "add_decayed_weights": lambda tree: jgd.add_decayed_weights(0.5, tree(True, False)),
    "schedule_free_adamw": lambda tree: jgd.schedule_free_adamw(0.5, weight_decay=0.5, mask=tree(True, False)),
    "groups": lambda tree: jgd.groups({"a": jgd.sgd(0.5), "b": None}, tree("a", "b")),
    "partition": lambda tree: jgd.partition({"a": jgd.sgd(0.5), "b": jgd.sgd(0.1)}, tree("a", "b")),
    "masked": lambda tree: jgd.masked(jgd.sgd(0.5), tree(True, False)),
    "freeze": lambda tree: jgd.freeze(tree(True, False)),
}


@pytest.mark.parametrize("make", CHAINS.values(), ids=CHAINS)
def test_a_transforms_tree_in_the_shape_of_a_model_is_no_function(make):
    def program(optimizer):
        return jax.make_jaxpr(lambda params: optimizer.update(params, optimizer.init(params), params))(PARAMS)

    assert str(program(make(Model))) == str(program(make(lambda *leaves: lambda params: Model(*leaves))))


def test_a_bound_function_is_a_function():
    mask = jax.tree_util.Partial(lambda flag, params: Model(flag, False), True)
    updates, _ = (optimizer := jgd.add_decayed_weights(0.5, mask)).update(PARAMS, optimizer.init(PARAMS), PARAMS)
    assert updates.kernel[0, 0] == 1.5
    assert updates.bias[0] == 1.0
