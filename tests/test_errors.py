"""Bad input: each kind is refused with a message that says where, what was found and what was expected."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jgd

PARAMS = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}


def updated(optimizer, grads, params=PARAMS):
    return optimizer.update(grads, optimizer.init(PARAMS), params)


@pytest.mark.parametrize(
    ("learning_rate", "error", "message"),
    [
        ("0.1", TypeError, r"sgd: learning_rate must be a number, a scalar array or a schedule; got '0\.1'"),
        (None, TypeError, r"sgd: learning_rate must be a number, .*; got None"),
        ([0.1], TypeError, r"sgd: learning_rate must be a number.*type list"),
        (1j, TypeError, r"sgd: learning_rate must be a real number; got dtype complex64"),
        (True, TypeError, r"sgd: learning_rate must be a real number; got dtype bool"),
        (float("nan"), ValueError, r"sgd: learning_rate must be finite; got nan"),
        (float("inf"), ValueError, r"sgd: learning_rate must be finite; got inf"),
        (-0.1, ValueError, r"sgd: learning_rate must be at least 0; got -0\.1\. To climb"),
        (np.ones(3), ValueError, r"sgd: learning_rate must be a scalar; got shape \(3,\)\. To sweep.*vmap"),
    ],
    ids=["string", "none", "list", "complex", "bool", "nan", "inf", "negative", "vector"],
)
def test_a_learning_rate_that_cannot_be(learning_rate, error, message):
    with pytest.raises(error, match=message):
        jgd.sgd(learning_rate)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jgd.adamw(0.1, weight_decay=-0.1), r"adamw: weight_decay must be at least 0; got -0\.1\. A positive"),
        (lambda: jgd.lion(0.1, weight_decay=-1.0), r"lion: weight_decay must be at least 0; got -1"),
        (lambda: jgd.add_decayed_weights(-0.1), r"add_decayed_weights: weight_decay must be at least 0"),
        (lambda: jgd.adam(0.1, b1=1.0), r"adam: b1 must be at least 0 and below 1; got 1\.0"),
        (lambda: jgd.adam(0.1, b2=-0.5), r"adam: b2 must be at least 0 and below 1; got -0\.5"),
        (lambda: jgd.sgd(0.1, momentum=1.5), r"sgd: momentum must be at least 0 and below 1; got 1\.5"),
        (lambda: jgd.adam(0.1, eps=-1e-8), r"adam: eps must be at least 0; got -1e-08"),
        (lambda: jgd.muon(0.1, adam_b1=1.0), r"muon: adam_b1 must be at least 0 and below 1; got 1\.0"),
        (lambda: jgd.clip_by_global_norm(0.0), r"clip_by_global_norm: max_norm must be above 0; got 0\.0"),
        (
            lambda: jgd.muon(0.1, ns_coeffs=(1.0, 2.0)),
            r"muon: ns_coeffs must have shape \(3,\) or \(n, 3\); got \(2,\)",
        ),
        (lambda: jgd.muon(0.1, ns_coeffs="fast"), r"muon: ns_coeffs must be numbers or one of 'standard', 'dion'"),
        (lambda: jgd.muon(0.1, preconditioning="none"), r"muon: preconditioning must be one of 'frobenius'"),
        (lambda: jgd.adam(0.1, layout="fast"), r"layout must be one of 'auto', 'alone'.*got 'fast'"),
        (lambda: jgd.chain(), r"chain: expected at least one transform; got none"),
    ],
)
def test_a_setting_outside_of_its_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("dtype", ["int16", "nonsense"])
def test_a_state_dtype_that_holds_no_fractions(dtype):
    with pytest.raises(TypeError, match=rf"slot 'mu' cannot be stored as '{dtype}': expected a float dtype"):
        jgd.adam(0.1, state_dtype=dtype)


def test_a_part_of_a_chain_that_is_no_transform():
    with pytest.raises(TypeError, match=r"chain: parts\[1\] must be an optimizer; got 0\.5\."):
        jgd.chain(jgd.sgd(0.1), 0.5)


def test_a_gradient_with_a_leaf_too_few():
    with pytest.raises(
        ValueError, match=r"sgd: .* grads and params differ: params has a leaf at \['bias'\] that grads"
    ):
        updated(jgd.sgd(0.1), {"kernel": jnp.ones((2, 3))})


def test_a_gradient_with_a_leaf_too_many():
    with pytest.raises(ValueError, match=r"adam: .* grads has a leaf at \['extra'\] that params lacks"):
        updated(jgd.adam(0.1), PARAMS | {"extra": jnp.ones(1)})


def test_a_gradient_in_other_containers():
    with pytest.raises(ValueError, match=r"params has a leaf at \['bias'\] that grads lacks"):
        updated(jgd.adam(0.1), {"kernel": PARAMS["kernel"], "bias": [PARAMS["bias"]]})


def test_a_gradient_for_another_state():
    state = jgd.adam(0.1).init({"kernel": jnp.ones((2, 3))})
    with pytest.raises(ValueError, match=r"adam: .*grads has a leaf at \['bias'\] that the state's slot 'mu' lacks"):
        jgd.adam(0.1).update(PARAMS, state)


@pytest.mark.parametrize("params", [PARAMS, None], ids=["with_params", "without"])
def test_a_gradient_of_the_wrong_shape(params):
    with pytest.raises(
        ValueError, match=r"the gradient at \['kernel'\] has shape \(3, 2\); expected that of .*\(2, 3\)"
    ):
        updated(jgd.adam(0.1), PARAMS | {"kernel": jnp.ones((3, 2))}, params)


def test_a_transposed_gradient_where_no_slot_has_a_shape_to_compare():
    with pytest.raises(ValueError, match=r"at \['kernel'\] has shape \(3, 2\); expected that of its param, \(2, 3\)"):
        updated(jgd.sgd(0.1), PARAMS | {"kernel": jnp.ones((3, 2))})


def test_an_integer_gradient():
    with pytest.raises(TypeError, match=r"the gradient at \['bias'\] has dtype int32; expected a float dtype"):
        updated(jgd.sgd(0.1), PARAMS | {"bias": jnp.ones(3, jnp.int32)})
    with pytest.raises(TypeError, match=r"the gradient at \['bias'\] has dtype int32; .*pass the params"):
        updated(jgd.sgd(0.1), PARAMS | {"bias": jnp.ones(3, jnp.int32)}, None)


def test_a_complex_leaf_where_the_rule_has_no_meaning():
    with pytest.raises(
        TypeError, match=r"lion: the leaf at \['z'\] is complex \(complex64\), which this rule does not"
    ):
        jgd.lion(0.1).init({"z": jnp.ones(2, jnp.complex64)})


def test_a_complex_gradient_for_a_real_param():
    with pytest.raises(TypeError, match=r"the gradient at \['bias'\] is complex \(complex64\); its param is real"):
        updated(jgd.adam(0.1), PARAMS | {"bias": jnp.ones(3, jnp.complex64)})


def test_a_function_among_the_params():
    with pytest.raises(TypeError, match=r"adam: the leaf at \['act'\] is a .*, not an array.*eqx\.filter"):
        jgd.adam(0.1).init({"w": jnp.ones(2), "act": jax.nn.relu})


@pytest.mark.parametrize("make", [jgd.adamw, jgd.lion, jgd.muon], ids=lambda make: make.__name__)
def test_params_that_are_missing_for_the_decay(make):
    with pytest.raises(ValueError, match=r"this rule reads the params: call update\(grads, state, params\)"):
        updated(make(0.1), PARAMS, None)


def test_params_that_are_missing_for_decay_as_a_transform():
    with pytest.raises(ValueError, match=r"add_decayed_weights: it reads the params"):
        updated(jgd.add_decayed_weights(0.1), PARAMS, None)


def test_a_state_of_another_optimizer():
    state = jgd.sgd(0.1, momentum=0.9).init(PARAMS)
    with pytest.raises(
        ValueError, match=r"adam: the state has the slots \['trace'\], this optimizer has \['mu', 'nu'\]"
    ):
        jgd.adam(0.1).update(PARAMS, state)
    with pytest.raises(ValueError, match=r"gradient_descent: the state holds the hyperparameters .*'max_norm'"):
        jgd.gradient_descent(0.1).update(PARAMS, jgd.clip_by_global_norm(1.0).init(PARAMS))
    with pytest.raises(TypeError, match=r"adam: expected the OptState .*; got tuple"):
        jgd.adam(0.1).update(PARAMS, (state,))
    with pytest.raises(
        ValueError, match=r"chain: expected a tuple of 1 states, one a part; got a OptState|got 3 states"
    ):
        jgd.chain(jgd.sgd(0.1)).update(PARAMS, state)


def test_an_unknown_hyperparameter_is_told_the_known_ones():
    state = jgd.adam(0.1).init(PARAMS)
    with pytest.raises(ValueError, match=r"unknown hyperparameter 'lr'; this state has: learning_rate, b1, b2, eps"):
        jgd.set_hyperparams(state, lr=0.1)
    with pytest.raises(ValueError, match=r"set_hyperparams: b1 must be at least 0 and below 1; got 2\.0"):
        jgd.set_hyperparams(state, b1=2.0)
    with pytest.raises(TypeError, match=r"set_hyperparams: b1 must be a number.*got 'high'"):
        jgd.set_hyperparams(state, b1="high")
    with pytest.raises(ValueError, match=r"unknown hyperparameter 'b1'; this state has: none"):
        jgd.set_hyperparams({"w": jnp.ones(1)}, b1=0.5)


def test_a_schedule_that_returns_no_scalar():
    with pytest.raises(ValueError, match=r"sgd: the schedule of learning_rate must be a scalar; got shape \(2,\)"):
        jgd.sgd(lambda count: jnp.ones(2) * count).init(PARAMS)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ({"kernel": True}, ValueError, r"adamw: the mask is not a prefix of the params"),
        ({"kernel": 1.0, "bias": False}, TypeError, r"adamw: the mask at \['kernel'\] is 1\.0; expected True or False"),
    ],
)
def test_a_mask_that_does_not_fit(mask, error, message):
    with pytest.raises(error, match=message):
        jgd.adamw(0.1, mask=mask).init(PARAMS)


def test_matrix_axes_that_do_not_fit():
    axes = {"kernel": jgd.MuonDimensionNumbers(0, 2), "bias": None}
    with pytest.raises(ValueError, match=r"muon: the leaf at \['kernel'\] has shape \(2, 3\); its reduction axes"):
        jgd.muon(0.1, muon_weight_dimension_numbers=axes).init(PARAMS)


def test_updates_that_do_not_fit_the_params():
    with pytest.raises(
        ValueError, match=r"apply_updates: the update at \['kernel'\] has shape \(3,\); expected.*\(2, 3\)"
    ):
        jgd.apply_updates(PARAMS, PARAMS | {"kernel": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"apply_updates: the trees of updates and params differ"):
        jgd.apply_updates(PARAMS, {"kernel": jnp.ones((2, 3))})


def test_a_missing_extra_is_named():
    from jgd.core import require

    with pytest.raises(
        ImportError, match=r"a test needs no_such_package, which is not installed: pip install 'jgd\[plot\]'"
    ):
        require("no_such_package.module", "plot", "a test")


@pytest.mark.parametrize("name", ["radam", "rmsprop", "amsgrad", "adagrad", "rprop", "adan", "muon"])
def test_a_form_that_nobody_has_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}: like must be"):
        getattr(jgd, name)(0.1, like="nobody")


def test_a_part_of_a_chain_that_makes_an_optimizer():
    def make():
        return jgd.sgd(0.1)

    with pytest.raises(TypeError, match=r"chain: parts\[0\] must be an optimizer; got .*\. If make makes one, call it"):
        jgd.chain(make)
    with pytest.raises(TypeError, match=r"chain: parts\[0\] .* adam makes one: call it, as adam\(\.\.\.\)"):
        jgd.chain(jgd.adam)


def test_what_is_an_optimizer_elsewhere_is_one_in_a_chain():
    params, several = jnp.ones(2), optax.MultiSteps(optax.sgd(0.1), every_k_schedule=2)
    optimizer = jgd.chain(jgd.clip_by_global_norm(1.0), several)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert not updates.any()
