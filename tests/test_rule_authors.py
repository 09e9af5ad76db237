"""Mistakes of whoever writes an update rule: each is a sentence that names the rule, the leaf and the slot."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgd
from jgd.core import real_zero, zeros
from jgd.testing import OptimizerCheckError, check_abstract_init

# What is given here is wrong on purpose, and a type checker would say so.
Rule: Any = jgd.core.Rule
TreeRule: Any = jgd.core.TreeRule
lift: Any = jgd.core.lift

PARAMS = {"w": jnp.ones((3, 2)), "b": jnp.ones(3)}
RATE = {"learning_rate": 0.1}


def momentum(grad, slots, param, hyper, step):
    del param, step
    mu = 0.9 * slots["mu"] + grad
    return -hyper["learning_rate"] * mu, {"mu": mu}


def plain(grad, slots, param, hyper, step):
    del slots, param, step
    return -hyper["learning_rate"] * grad, {}


def run(rule, *, compiled=True, params=PARAMS, numbers=RATE, **more):
    """One update of the rule, traced or step by step."""
    optimizer = lift(rule, numbers, name="mine", **more)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update) if compiled else optimizer.update
    return update(params, state, params)


def returning(change, **more):
    """A rule with a slot `mu` that returns something else; `change(delta, slots)` says what."""
    return Rule(lambda *arguments: change(*momentum(*arguments)), slots={"mu": zeros}, **more)


def changed(slots, **values):
    return {**slots, **values}


# Name, what the rule returns in the place of (delta, slots), the error, and what it says.
RETURNED = [
    (
        "one_value",
        lambda d, s: d,
        TypeError,
        r"returned an array of shape \(3,\); expected two values, \(delta, slots\)",
    ),
    (
        "three_values",
        lambda d, s: (d, s, d),
        TypeError,
        r"returned a tuple of 3; expected two values, \(delta, slots\)",
    ),
    ("nothing", lambda d, s: None, TypeError, r"returned None; expected two values"),
    ("a_dict", lambda d, s: {"delta": d, **s}, TypeError, r"returned a dict with the keys 'delta', 'mu'; expected two"),
    (
        "slots_none",
        lambda d, s: (d, None),
        TypeError,
        r"returned None as slots; expected a dict \({} where there are no",
    ),
    (
        "slots_array",
        lambda d, s: (d, s["mu"]),
        TypeError,
        r"returned an array of shape \(3,\) as slots; expected a dict",
    ),
    ("turned", lambda d, s: (s, d), TypeError, r"expected a dict\. They may be the other way round: return delta, slo"),
    ("delta_none", lambda d, s: (None, s), TypeError, r"returned None as the delta; expected an array of shape \(3,\)"),
    ("delta_list", lambda d, s: ([d], s), TypeError, r"returned a list of 1 as the delta; expected an array of shape"),
    ("delta_string", lambda d, s: ("d", s), TypeError, r"returned 'd' as the delta; expected an array"),
    ("delta_scalar", lambda d, s: (jnp.sum(d), s), ValueError, r"the delta with shape \(\); expected \(3,\)\."),
    ("delta_number", lambda d, s: (-0.1, s), ValueError, r"returned the delta with shape \(\); expected \(3,\)\."),
    ("delta_wider", lambda d, s: (d[:, None] * d, s), ValueError, r"the delta with shape \(3, 3\); expected \(3,\)\."),
    ("delta_integer", lambda d, s: (jnp.ones(3, int), s), TypeError, r"delta with dtype int32; expected float32\."),
    ("delta_narrow", lambda d, s: (d.astype("bfloat16"), s), TypeError, r"delta with dtype bfloat16; expected float32"),
    ("delta_complex", lambda d, s: (d + 1j, s), TypeError, r"the delta with dtype complex64; expected float32\."),
    (
        "no_slot",
        lambda d, s: (d, {}),
        ValueError,
        r"returned no slot 'mu'; expected those that the rule declares: 'mu'",
    ),
    ("other_slot", lambda d, s: (d, {"m": s["mu"]}), ValueError, r"returned no slot 'mu'; expected those that"),
    ("a_slot_more", lambda d, s: (d, changed(s, nu=d)), ValueError, r"returned a slot 'nu'; expected those .*: 'mu'\."),
    (
        "slot_none",
        lambda d, s: (d, {"mu": None}),
        TypeError,
        r"returned None as the slot 'mu'; expected an array of sha",
    ),
    ("slot_pair", lambda d, s: (d, {"mu": (d, d)}), TypeError, r"a tuple of 2 as the slot 'mu'; expected an array"),
    ("slot_number", lambda d, s: (d, {"mu": 0.5}), ValueError, r"the slot 'mu' with shape \(\); expected \(3,\)\."),
    ("slot_scalar", lambda d, s: (d, {"mu": jnp.sum(d)}), ValueError, r"slot 'mu' with shape \(\); expected \(3,\)\."),
    ("slot_longer", lambda d, s: (d, {"mu": jnp.ones(4)}), ValueError, r"slot 'mu' with shape \(4,\); expected \(3,\)"),
    ("slot_integer", lambda d, s: (d, {"mu": jnp.ones(3, int)}), TypeError, r"'mu' with dtype int32; expected float32"),
    ("slot_half", lambda d, s: (d, {"mu": d.astype("float16")}), TypeError, r"dtype float16; expected float32\."),
]


@pytest.mark.parametrize("compiled", [True, False], ids=["jit", "eager"])
@pytest.mark.parametrize(("change", "error", "message"), [r[1:] for r in RETURNED], ids=[r[0] for r in RETURNED])
def test_what_an_update_returns(change, error, message, compiled):
    with pytest.raises(error, match=rf"^mine: at \['b'\] the update {'.*' if message[0] != 'r' else ''}{message}"):
        run(returning(change), compiled=compiled)


@pytest.mark.parametrize("layout", ["packed", "stacked"])
def test_leaves_that_run_together_are_named_together(layout):
    params = {name: jnp.ones(3) for name in "abcde"}
    with pytest.raises(
        ValueError, match=r"^mine: at \['a'\], \['b'\], \['c'\] and 2 leaves more the update returned the"
    ):
        run(returning(lambda d, s: (jnp.sum(d), s)), params=params, layout=layout)


def test_a_slot_of_several_arrays_keeps_its_structure():
    slots = {"two": lambda param: {"a": zeros(param), "n": jnp.zeros((), int)}}

    def rule(new):
        return Rule(lambda g, s, p, h, t: (-g, {"two": new(s["two"])}), slots=slots, kind="leaf")

    run(rule(lambda two: {"a": two["a"] + 1, "n": two["n"] + 1}))
    with pytest.raises(
        TypeError, match=r"at \['b'\] .*a dict with the keys 'a' as the slot 'two'; expected .* 'a', 'n'"
    ):
        run(rule(lambda two: {"a": two["a"]}))
    with pytest.raises(ValueError, match=r"returned the slot 'two'\['n'\] with shape \(3,\); expected \(\)"):
        run(rule(lambda two: {"a": two["a"], "n": jnp.zeros(3, int)}))


def with_slot(make, **more):
    return Rule(lambda g, s, p, h, t: (-g, s), slots={"mu": make}, **more)


# Name, what makes the slot, the error, and what it says.
FIRST = [
    ("none", lambda p: None, TypeError, r"starts as None; expected an array, such as jnp\.zeros_like\(param\)"),
    ("number", lambda p: 0.0, TypeError, r"starts as 0\.0; expected an array of JAX"),
    ("list_of_numbers", lambda p: [0.0, 0.0], TypeError, r"\[0\] starts as 0\.0; expected an array of JAX"),
    (
        "numpy",
        lambda p: np.zeros(p.shape),
        TypeError,
        r"starts as an array of shape .* float64; expected an array of J",
    ),
    ("string", lambda p: "zeros", TypeError, r"starts as 'zeros'; expected an array"),
    (
        "half",
        lambda p: p.astype("float16"),
        TypeError,
        r"dtype float16; expected float32\. How it is stored is for stat",
    ),
    ("complex", lambda p: p + 0j, TypeError, r"starts with dtype complex64; expected float32"),
    ("one_number", real_zero, ValueError, r"with shape \(\); expected the leaf's, \(3,\).*elementwise.*kind='leaf'\."),
    ("if", lambda p: p if p[0] > 0 else -p, TypeError, r"asks Python for the value of an array \(an `if`"),
    ("float", lambda p: jnp.full_like(p, float(p[0])), TypeError, r"asks Python for the value of an array"),
    ("numpy_of_it", lambda p: jnp.asarray(np.abs(p)), TypeError, r"asks Python for the value of an array"),
]


@pytest.mark.parametrize(("make", "error", "message"), [row[1:] for row in FIRST], ids=[row[0] for row in FIRST])
def test_what_a_slot_starts_as(make, error, message):
    with pytest.raises(error, match=rf"^mine: at \['b'\] the slot 'mu' .*{message}"):
        lift(with_slot(make), {}, name="mine").init(PARAMS)


# Name, the update, the error, and what it says.
IN_THE_UPDATE = [
    ("if_on_a_number", lambda g, s, p, h, t: (-g if h["learning_rate"] > 0 else g, s), r"asks Python for the value"),
    (
        "if_on_the_step",
        lambda g, s, p, h, t: (-g if t > 10 else g, s),
        r"asks Python .*; expected jax\.numpy, and jnp\.wh",
    ),
    ("float", lambda g, s, p, h, t: (-float(h["learning_rate"]) * g, s), r"asks Python for the value"),
    ("numpy", lambda g, s, p, h, t: (jnp.asarray(np.sign(g)), s), r"asks Python for the value .*a NumPy function"),
    ("mask", lambda g, s, p, h, t: (g[g > 0], s), r"asks Python for the value .*an index by a mask"),
    ("range", lambda g, s, p, h, t: (sum(g for _ in range(t)), s), r"asks Python for the value"),
    ("number_name", lambda g, s, p, h, t: (-h["lr"] * g, s), r"looks up 'lr', .*Hyperparameters: 'learning_rate'; slo"),
    ("slot_name", lambda g, s, p, h, t: (s["m"] * g, s), r"looks up 'm', which there is not.*slots: 'mu'"),
]


@pytest.mark.parametrize("compiled", [True, False], ids=["jit", "eager"])
@pytest.mark.parametrize(("update", "message"), [r[1:] for r in IN_THE_UPDATE], ids=[r[0] for r in IN_THE_UPDATE])
def test_what_an_update_asks_for(update, message, compiled):
    with pytest.raises((TypeError, ValueError), match=rf"^mine: at \['b'\] the update {message}"):
        run(Rule(update, slots={"mu": zeros}), compiled=compiled)


def notes(error):
    return "\n".join(getattr(error, "__notes__", []))


def test_any_other_error_says_at_which_leaf():
    def in_place(grad, slots, param, hyper, step):
        slots["mu"][:] = grad
        return grad, slots

    with pytest.raises(TypeError, match="immutable") as found:
        run(Rule(in_place, slots={"mu": zeros}))
    assert "mine: at ['b'] the update raised this TypeError." in notes(found.value)

    def orthogonal(grad, slots, param, hyper, step):
        left, _, right = jnp.linalg.svd(grad, full_matrices=False)
        return -left @ right, {}

    with pytest.raises(Exception, match="rank") as found:
        run(Rule(orthogonal, kind="matrix"))
    assert "mine: at ['b'] the update raised this" in notes(found.value)

    with pytest.raises(ZeroDivisionError) as found:
        lift(with_slot(lambda param: param / (1 // 0)), {}, name="mine").init(PARAMS)
    assert notes(found.value) == "mine: at ['b'] the slot 'mu' raised this ZeroDivisionError."


@pytest.mark.parametrize(
    ("prepare", "error", "message"),
    [
        (lambda hyper, step: None, TypeError, "returned None; expected the hyperparameters, such as hyper"),
        (lambda hyper, step: hyper["learning_rate"], TypeError, r"returned an array of shape \(\); expected the hyper"),
        (lambda hyper, step: hyper | {"warm": "yes"}, TypeError, "returned 'yes' as 'warm'; expected an array"),
        (lambda hyper, step: hyper | {"warm": None}, TypeError, "returned None as 'warm'; expected an array"),
        (lambda hyper, step: {"x": hyper["lr"]}, KeyError, "looks up 'lr', which there is not"),
        (lambda hyper, step: hyper if step > 1 else {}, TypeError, "asks Python for the value of an array"),
    ],
)
def test_what_prepare_returns(prepare, error, message):
    with pytest.raises(error, match=f"^mine: prepare {message}"):
        run(Rule(plain, prepare=prepare))


def test_a_missing_name_is_a_key_error_in_plain_words():
    with pytest.raises(KeyError) as found:
        run(Rule(lambda g, s, p, h, t: (h["lr"] * g, s)))
    assert isinstance(found.value, ValueError)
    assert str(found.value).startswith("mine: at ['b'] the update looks up 'lr', which there is not.")


# What is refused when the rule is made, before there is an optimizer.
DECLARED = [
    ("kind", {"kind": "row"}, ValueError, r"kind must be one of 'elementwise', 'matrix', 'leaf'; got 'row'"),
    ("kind_type", {"kind": None}, ValueError, r"kind must be one of .*; got None"),
    ("slots", {"slots": ["mu"]}, TypeError, r"slots must be a dict of functions, one a name; got \['mu'\]"),
    (
        "maker",
        {"slots": {"mu": 0.0}},
        TypeError,
        r"slots\['mu'\] must be a function that makes the first value.*got 0\.0",
    ),
    ("slot_name", {"slots": {0: zeros}}, TypeError, r"the name of a slot must be a string; got 0"),
    ("needs", {"needs": "value"}, TypeError, r"needs must be a tuple of names, such as \('nu',\); got 'value'"),
    ("nonnegative", {"nonnegative": "mu"}, TypeError, r"nonnegative must be a tuple of names"),
    ("unknown", {"exact": ("nu",)}, ValueError, r"'nu' is declared nonnegative or exact; the rule's slots are: 'mu'"),
    ("flag", {"needs_params": "yes"}, TypeError, r"needs_params must be True or False; got 'yes'"),
    (
        "prepare",
        {"prepare": lambda hyper: hyper},
        TypeError,
        r"prepare must take \(hyper, step\), by position; it takes",
    ),
    ("four", {"update": lambda g, s, h, t: (g, s)}, TypeError, r"update must take \(grad, slots, param, hyper, step\)"),
    ("no_function", {"update": "momentum"}, TypeError, r"update must be a function; got 'momentum'"),
]


@pytest.mark.parametrize(
    ("fields", "error", "message"), [row[1:] for row in DECLARED], ids=[row[0] for row in DECLARED]
)
def test_what_a_rule_says_of_itself(fields, error, message):
    rule = Rule(momentum, slots={"mu": zeros})
    with pytest.raises(error, match=rf"^Rule( of \S+)?: {message}"):
        dataclasses.replace(rule, **fields)


def test_what_lift_is_given():
    rule = Rule(plain)
    with pytest.raises(
        TypeError, match=r"^mine: rules must be .*got the function plain\. Make one of it: Rule\(plain\)"
    ):
        lift(plain, RATE, name="mine")
    for rules in ([], [rule, plain], None):
        with pytest.raises(
            TypeError, match=r"^mine: rules must be a jgd\.core\.Rule, a TreeRule or a list of rules; got"
        ):
            lift(rules, RATE, name="mine")
    with pytest.raises(
        TypeError, match=r"^mine: hyperparams must be a dict of numbers by name; got \['learning_rate'\]"
    ):
        lift(rule, ["learning_rate"], name="mine")
    with pytest.raises(TypeError, match=r"^lift: name must be a string; got None"):
        lift(rule, RATE, name=None)
    with pytest.raises(ValueError, match=r"^mine: 'value' is a hyperparameter and among what the rule needs"):
        lift(Rule(plain, needs=("value",)), RATE | {"value": 1.0}, name="mine")


def test_what_choose_and_layouts_return():
    rule, other = Rule(plain), Rule(momentum, slots={"mu": zeros})
    for choose, message in [
        (lambda params: [rule], r"choose returned 1 rules; expected one for each of 2 leaves"),
        (
            lambda params: jax.tree.map(lambda _: True, params),
            r"choose returned True for the leaf at \['b'\]; expected",
        ),
        (
            lambda params: jax.tree.map(lambda _: other, params),
            r"choose gave the leaf at \['b'\] a rule with the slots \['mu'\]; .* \[\]",
        ),
    ]:
        with pytest.raises((TypeError, ValueError), match=f"^mine: {message}"):
            run(rule, choose=choose)
    alone = jgd.core._layouts.alone
    for layout, message in [
        (lambda rule, leaves: alone(rule, leaves)[:1], r"placed the leaves \[0\]; expected each of 2 once"),
        (lambda rule, leaves: alone(rule, leaves) * 2, r"placed the leaves \[0, 0, 1, 1\]; expected each of 2 once"),
        (lambda rule, leaves: None, r"returned None; expected a list of jgd\.core\.Block"),
    ]:
        with pytest.raises((TypeError, ValueError), match=f"^mine: the layout {message}"):
            run(rule, layout=layout)


def tree_rule(change):
    def update(grads, slots, params, hyper, step):
        del params, step
        deltas = [-hyper["learning_rate"] * grad for grad in grads]
        return change(deltas, {"mu": list(slots["mu"]), "total": slots["total"] + 1})

    return TreeRule(update, slots={"mu": zeros}, scalars={"total": lambda params: jnp.zeros(())})


OF_ALL_LEAVES = [
    ("one_value", lambda d, s: d[0], TypeError, r"\['b'\], \['w'\] the update returned an array .*\(deltas, slots\)"),
    (
        "too_few",
        lambda d, s: (d[:1], s),
        ValueError,
        r"a list of 1 as deltas; expected a list, one for each of 2 leaves",
    ),
    (
        "shape",
        lambda d, s: ([d[0], d[0]], s),
        ValueError,
        r"at \['w'\] .* the delta with shape \(3,\); expected \(3, 2",
    ),
    (
        "scalar",
        lambda d, s: (d, changed(s, total=jnp.ones(2))),
        ValueError,
        r"'total' with shape \(2,\); expected \(\)",
    ),
    (
        "count",
        lambda d, s: (d, changed(s, total=jnp.ones((), int))),
        TypeError,
        r"'total' with dtype int32; expected fl",
    ),
    ("slot", lambda d, s: (d, changed(s, mu=d[:1])), ValueError, r"a list of 1 as the slot 'mu'; expected a list"),
    (
        "no_list",
        lambda d, s: (d, changed(s, mu=d[0])),
        ValueError,
        r"an array of shape \(3,\) as the slot 'mu'; expect",
    ),
    (
        "slot_shape",
        lambda d, s: (d, changed(s, mu=[d[0]] * 2)),
        ValueError,
        r"at \['w'\] .*slot 'mu' with shape \(3,\)",
    ),
    ("no_slot", lambda d, s: (d, {"mu": s["mu"]}), ValueError, r"returned no slot 'total'; expected .*: 'mu', 'total'"),
]


@pytest.mark.parametrize(
    ("change", "error", "message"), [row[1:] for row in OF_ALL_LEAVES], ids=[row[0] for row in OF_ALL_LEAVES]
)
def test_what_a_rule_of_all_leaves_returns(change, error, message):
    with pytest.raises(error, match=rf"^mine: .*{message}"):
        run(tree_rule(change), compiled=False)


def test_a_slot_of_the_whole_tree_starts_as_an_array():
    rule = dataclasses.replace(tree_rule(lambda d, s: (d, s)), scalars={"total": lambda params: None})
    with pytest.raises(
        TypeError, match=r"^mine: the slot 'total' of the whole tree starts as None; expected one array"
    ):
        lift(rule, RATE, name="mine").init(PARAMS)


def test_a_name_stands_for_one_slot():
    with pytest.raises(ValueError, match=r"^TreeRule of .*: a name stands in slots and in scalars: \['mu', 'mu'\]"):
        TreeRule(plain, slots={"mu": zeros}, scalars={"mu": lambda params: jnp.zeros(())})


def test_what_is_meant_passes():
    def kept(grad, slots, param, hyper, step):
        grad = jnp.where(grad > 0, -0.5, 0.5)  # weakly typed
        return grad, slots

    _, state = run(Rule(kept, slots={"mu": zeros}))
    assert state.mu["w"].dtype == jnp.float32
    updates, _ = run(Rule(lambda g, s, p, h, t: (np.zeros(g.shape, np.float32), {})), compiled=False)
    assert updates["w"].shape == (3, 2)
    run(tree_rule(lambda d, s: (tuple(d), s)))
    run(Rule(momentum, slots={"mu": zeros}), params={"a": jnp.ones(2, jnp.bfloat16), "b": 1.0, "c": jnp.ones(3)})


def test_weak_numbers_and_wider_ones_under_x64(x64):
    params = {"a": jnp.ones(2, jnp.float32)}
    run(Rule(lambda g, s, p, h, t: (jnp.where(g > 0, -0.5, 0.5), {})), params=params)
    with pytest.raises(
        TypeError, match=r"at \['a'\] the update returned the delta with dtype float64; expected float32"
    ):
        run(Rule(lambda g, s, p, h, t: (g * np.float64(0.1), {})), params=params)


def test_init_of_shapes_alone_names_the_slot():
    rule = with_slot(lambda param: param if jnp.sum(param) > 0 else -param)
    with pytest.raises(OptimizerCheckError, match=r"the slot 'mu' asks Python for the value of an array"):
        check_abstract_init(lift(rule, {}, name="mine"))


def test_a_slot_may_be_named_as_a_field_of_some_state():
    def update(grad, slots, param, hyper, step):
        return -hyper["learning_rate"] * grad, {"own": slots["own"] + grad, "inner": slots["inner"] - grad}

    optimizer = lift(Rule(update, {"own": zeros, "inner": zeros}), RATE, name="mine")
    _, state = optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(state.slots["own"]["b"], 1)
    np.testing.assert_array_equal(state.slots["inner"]["b"], -1)
