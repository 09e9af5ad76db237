"""States inside flax's `nnx.Optimizer`, which boxes their arrays and puts its own mapping where tuples were."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import RULES, WRAPPERS
from tiers import over

import jgd

nnx = pytest.importorskip("flax.nnx")


class Model(nnx.Module):
    def __init__(self):
        self.kernel = nnx.Param(jnp.arange(4096.0).reshape(64, 64) / 4096 - 0.3)
        self.bias = nnx.Param(jnp.ones(3))


def loss(params):
    return jnp.sum(params["kernel"] ** 2) + jnp.sum((params["bias"] - 2) ** 2)


def params_of(model):
    return nnx.as_pure(nnx.state(model, nnx.Param))


def gradient(model):
    return jax.grad(lambda state: loss(nnx.as_pure(state)))(nnx.state(model, nnx.Param))


def updated(optimizer, extra, steps=3):
    """A model and its `nnx.Optimizer` after some updates."""
    model = Model()
    inside = nnx.Optimizer(model, optimizer, wrt=nnx.Param)
    for _ in range(steps):
        grads = gradient(model)
        inside.update(model, grads, **extra(params_of(model), nnx.as_pure(grads)))
    return model, inside


def shapes_alone(optimizer):
    """The same optimizer, traced and not run: each state is one of zeros."""

    def update(grads, state, params=None, **extra):
        shapes = jax.eval_shape(lambda g, s, p: optimizer.update(g, s, p, **extra), grads, state, params)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def forms(rule):
    return (None,) if rule.small != "taken" else (None, "int8", "bfloat16")


@over("rule", RULES, fast=lambda rule: rule.name in ("sm3", "adam", "soap"))
def test_every_state_goes_on_inside_nnx(rule):
    for form in forms(rule):
        optimizer = rule.make(**({} if form is None else {"state_dtype": form}))
        model, inside = updated(shapes_alone(optimizer), lambda params, grads: rule.extra(loss, params, grads))
        assert jax.tree.structure(params_of(model)) == jax.tree.structure(params_of(Model()))
        evaluated = jgd.eval_params(inside.opt_state, nnx.state(model, nnx.Param))
        assert jax.tree.structure(evaluated) == jax.tree.structure(nnx.state(model, nnx.Param))
        assert all(isinstance(value, jax.Array) for value in jgd.get_hyperparams(inside.opt_state).values())


INSIDE = {
    "adam in eight bits": lambda: jgd.adam(0.1, state_dtype="int8"),
    "sm3": lambda: jgd.sm3(0.1),
    "soap": lambda: jgd.soap(0.1),
    "groups": lambda: jgd.groups({"*kernel*": jgd.adam(0.1, state_dtype="int8"), "*bias*": jgd.sm3(0.1)}),
    **{row.name: lambda row=row: row.around(jgd.adam(0.1)) for row in WRAPPERS if row.around},
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in ("sm3", "groups", "schedule_free") else pytest.mark.slow) for n in INSIDE],
)
def test_its_steps_are_those_outside_of_nnx(name):
    optimizer = INSIDE[name]()
    params = params_of(Model())
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        params = jgd.apply_updates(params, updates)
    model, inside = updated(optimizer, lambda *_: {})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params_of(model), params)
    evaluated = nnx.as_pure(jgd.eval_params(inside.opt_state, nnx.state(model, nnx.Param)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), evaluated, jgd.eval_params(state, params))


def test_a_hyperparameter_is_set_in_its_box():
    model, inside = updated(jgd.adam(0.1), lambda *_: {}, steps=1)
    before = jax.tree.structure(inside.opt_state)
    inside.opt_state = jgd.set_hyperparams(inside.opt_state, learning_rate=0.0)
    assert jax.tree.structure(inside.opt_state) == before
    old = params_of(model)
    inside.update(model, gradient(model))
    assert float(jgd.get_hyperparams(inside.opt_state)["learning_rate"]) == 0.0
    jax.tree.map(np.testing.assert_array_equal, params_of(model), old)


def test_params_and_state_in_the_other_order():
    state, params = jgd.sgd(0.1).init(jnp.ones(2)), jnp.ones(2)
    with pytest.raises(TypeError, match=r"eval_params: the second argument is an optimizer's state"):
        jgd.eval_params(params, state)
