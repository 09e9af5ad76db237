"""Models with more in them than what is trained: functions, flags, counters; and leaves that are no arrays at all."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import RULES, WRAPPERS
from tiers import over

import jgd


@jax.tree_util.register_pytree_with_keys_class
class Layer:
    """A pytree whose fields need not be arrays, as those of an Equinox module."""

    def __init__(self, kernel, activation, count):
        self.fields = {"kernel": kernel, "activation": activation, "count": count}

    def tree_flatten_with_keys(self):
        return [(jax.tree_util.GetAttrKey(name), value) for name, value in self.fields.items()], None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


MODEL = Layer(jnp.arange(4096.0).reshape(64, 64) / 4096, jnp.tanh, jnp.array(7))
ARRAYS = Layer(MODEL.fields["kernel"], None, MODEL.fields["count"])  # equinox.filter(model, equinox.is_array)
TRAINED = Layer(MODEL.fields["kernel"], None, None)  # with equinox.is_inexact_array
GRADS = Layer(jnp.ones((64, 64)), None, None)


def loss(model):
    return jnp.sum(model.fields["kernel"] ** 2)


def program(optimizer, params, extra, made_from):
    state = optimizer.init(made_from)
    return jax.make_jaxpr(lambda grads, state: optimizer.update(grads, state, params, **extra))(GRADS, state)


# Their own line search, estimator and projection know no integers: init(equinox.filter(model, is_inexact_array)).
FLOATS_ALONE = ("lbfgs", "sophia", "galore")


@over("rule", RULES, fast=lambda rule: rule.stands_for and not rule.dear)
def test_a_whole_model_is_taken_for_its_params(rule):
    """The same program, whatever else is in the model."""
    optimizer, extra = rule.make(), rule.extra(loss, TRAINED, GRADS)
    expected = program(optimizer, TRAINED, extra, TRAINED)
    assert str(program(optimizer, MODEL, extra, TRAINED)) == str(expected)
    if rule.name in FLOATS_ALONE:
        return
    from_arrays = program(optimizer, MODEL, extra, ARRAYS)  # as Equinox's pages have it
    assert [v.aval for v in from_arrays.jaxpr.outvars] == [v.aval for v in expected.jaxpr.outvars]


@over("wrapper", [row for row in WRAPPERS if row.around], fast=lambda row: row.name in ("lookahead", "groups"))
def test_a_wrapper_takes_a_whole_model(wrapper):
    optimizer = wrapper.around(jgd.adamw(0.1))
    expected = program(optimizer, TRAINED, {}, TRAINED)
    assert str(program(optimizer, MODEL, {}, TRAINED)) == str(expected)


@pytest.mark.parametrize("made_from", [TRAINED, ARRAYS], ids=["inexact arrays", "arrays"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(jgd.adamw(0.1), optax.adamw(0.1)), (jgd.sgd(0.1, momentum=0.9), optax.sgd(0.1, momentum=0.9))],
    ids=["adamw", "sgd"],
)
def test_a_whole_model_is_updated_as_by_optax(ours, theirs, made_from):
    def run(optimizer, model, state):
        for _ in range(2):
            updates, state = optimizer.update(GRADS, state, model)
            assert jax.tree.structure(updates) == jax.tree.structure(GRADS)
            model = jgd.apply_updates(model, updates)
        return model

    found, expected = run(ours, MODEL, ours.init(made_from)), run(theirs, TRAINED, theirs.init(TRAINED))
    np.testing.assert_allclose(found.fields["kernel"], expected.fields["kernel"], rtol=0, atol=2e-6)
    assert found.fields["activation"] is jnp.tanh
    assert found.fields["count"] == 7


def test_a_whole_model_in_one_pass():
    optimizer = jgd.chain(jgd.clip(1.0), jgd.sgd(0.5))
    new, _ = jgd.update_params(optimizer, GRADS, optimizer.init(TRAINED), MODEL)
    np.testing.assert_allclose(new.fields["kernel"], MODEL.fields["kernel"] - 0.5)
    assert new.fields["activation"] is jnp.tanh
    assert new.fields["count"] is MODEL.fields["count"]


def test_a_param_without_its_gradient_is_still_an_error():
    optimizer = jgd.sgd(0.1)
    with pytest.raises(ValueError, match=r"sgd: .*params has a leaf at \.kernel that grads lacks"):
        optimizer.update(Layer(None, None, None), optimizer.init(TRAINED), MODEL)


@over("rule", RULES, fast=lambda rule: rule.stands_for)
def test_params_with_a_function_among_them_are_refused_in_words(rule):
    with pytest.raises(TypeError, match=r"leaf at \.activation is .*eqx\.filter\(model, eqx\.is_inexact_array\)"):
        rule.make().init(MODEL)


class Tensor:
    """As torch's: it has a dtype that NumPy does not know, and `detach`."""

    dtype = "torch.float32"

    def detach(self):
        return self


NOT_ARRAYS = {
    "text": ("abc", r"is 'abc', not an array"),
    "the name of a dtype": ("float32", r"is 'float32', not an array"),
    "NumPy's text": (np.array(["a", "b"]), r"is a numpy\.ndarray of dtype <U1, not an array"),
    "objects": (np.array([None, 1]), r"is a numpy\.ndarray of dtype object, not an array"),
    "a tensor": (Tensor(), r"dtype torch\.float32, not an array\. Convert tensors with jnp\.asarray"),
    "a function": (jnp.tanh, r"not an array\. Keep only the arrays"),
    "a dtype": (jnp.float32, r"not an array\. Keep only the arrays"),
}
OPTIMIZERS = {
    "rule": jgd.adamw(0.1),
    "transform": jgd.clip(1.0),
    "chain": jgd.chain(jgd.clip(1.0), jgd.sgd(0.1)),
    "wrapper": jgd.lookahead(jgd.sgd(0.1), 2, 0.5),
    "groups": jgd.groups({"*": jgd.sgd(0.1)}),
    "accumulate": jgd.accumulate(jgd.sgd(0.1), 2),
    "optax inside": jgd.chain(optax.scale_by_adam(), jgd.scale_by_learning_rate(0.1)),
}


@pytest.mark.parametrize(("leaf", "message"), NOT_ARRAYS.values(), ids=NOT_ARRAYS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_what_is_no_array_is_refused_in_words(optimizer, leaf, message):
    params = {"w": jnp.ones(2)}
    with pytest.raises(TypeError, match=r"the leaf at \['w'\].*" + message):
        optimizer.init({"w": leaf})
    with pytest.raises(TypeError, match=r"the gradient at \['w'\].*" + message):
        optimizer.update({"w": leaf}, optimizer.init(params), params)


@pytest.mark.parametrize(("leaf", "message"), NOT_ARRAYS.values(), ids=NOT_ARRAYS)
def test_updates_that_are_no_arrays(leaf, message):
    with pytest.raises(TypeError, match=r"apply_updates: the update at \['w'\].*" + message):
        jgd.apply_updates({"w": jnp.ones(2)}, {"w": leaf})
    with pytest.raises(TypeError, match=r"apply_updates: the param at \['w'\].*" + message):
        jgd.apply_updates({"w": leaf}, {"w": jnp.ones(2)})


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_arguments_in_another_order(optimizer):
    params = {"w": jnp.ones(2)}
    state = optimizer.init(params)
    with pytest.raises(TypeError, match=r"the first argument is an optimizer's state; call update\(grads, state, par"):
        optimizer.update(state, params, params)
    with pytest.raises(TypeError, match=r"the third argument is an optimizer's state; call update\(grads, state, par"):
        optimizer.update(params, params, state)
