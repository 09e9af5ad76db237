"""The checks find what they are for: each fault planted here is found by its check; sound optimizers pass."""

import json
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jgd
from jgd import testing
from jgd.core import Rule, lift

RATE = 0.1


def is_float(leaf):
    return leaf.dtype != jax.dtypes.float0 and jnp.issubdtype(leaf.dtype, jnp.inexact)


def delta(grad, factor=-RATE):
    """A step along one gradient, in the gradient's dtype; nothing for an integer's."""
    return grad * jnp.asarray(factor, grad.dtype) if is_float(grad) else jnp.zeros(grad.shape, int)


def sound(update=lambda grad: delta(grad), state=lambda new: new):
    """SGD that carries a count and a velocity, sound in all that is checked but for what is replaced.

    `update` is the step along one gradient, `state` what becomes of the new state.
    """

    def init(params):
        velocity = jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), jnp.float32), params)
        return {"count": jnp.zeros((), jnp.int32), "velocity": velocity}

    def whole_update(grads, old, params=None):
        velocity = jax.tree.map(lambda g, v: 0.9 * v + g.astype(v.dtype) if is_float(g) else v, grads, old["velocity"])
        return jax.tree.map(update, grads), state({"count": old["count"] + 1, "velocity": velocity})

    return optax.GradientTransformation(init, whole_update)


class StaticCount(NamedTuple):
    """A count that JAX sees as part of the structure."""

    steps: int


jax.tree_util.register_pytree_node(StaticCount, lambda c: ((), c.steps), lambda steps, _: StaticCount(steps))


def counts_in_the_structure():
    return optax.GradientTransformation(
        lambda params: StaticCount(0),
        lambda grads, state, params=None: (jax.tree.map(delta, grads), StaticCount(state.steps + 1)),
    )


def counts_in_python():
    calls = []

    def update(grad):
        calls.append(1)
        return delta(grad, -RATE / len(calls))

    return sound(update=update)


def shares_zeros():
    def init(params):
        zeros = jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), jnp.float32), params)
        return {"mu": zeros, "nu": zeros}

    return optax.GradientTransformation(init, lambda grads, state, params=None: (jax.tree.map(delta, grads), state))


def keeps_the_params():
    def update(grads, state, params=None):
        return jax.tree.map(delta, grads), jax.tree.map(lambda s, g: s + delta(g), state, grads)

    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.asarray, params), update)


def normalizes(eps):
    """A step of the gradient over its size, with `eps` rounded to the gradient's dtype."""

    def update(grad):
        return delta(grad / (jnp.abs(grad) + jnp.asarray(eps, grad.dtype))) if is_float(grad) else delta(grad)

    return sound(update=update)


def normalizes_over_the_batch():
    """A host function that is handed the whole batch at once, and takes the norm of all that it gets."""

    def host(grad):
        return np.asarray(grad / (1 + np.sqrt(np.sum(np.square(grad)))), grad.dtype)

    def update(grad):
        if not is_float(grad):
            return delta(grad)
        return delta(
            jax.pure_callback(host, jax.ShapeDtypeStruct(grad.shape, grad.dtype), grad, vmap_method="expand_dims")
        )

    return sound(update=update)


def looks_at_values():
    def init(params):
        largest = max(float(jnp.max(jnp.abs(p))) for p in jax.tree.leaves(params))
        return {"largest": jnp.asarray(largest, jnp.float32)}

    return optax.GradientTransformation(init, lambda g, s, p=None: (jax.tree.map(delta, g), s))


def averages_in_bfloat16():
    """An average of squares that keeps the params' dtype, as `optax.adam` does."""

    def init(params):
        return jax.tree.map(jnp.zeros_like, params)

    def update(grads, nu, params=None):
        nu = jax.tree.map(lambda g, v: (0.999 * v + 0.001 * g * g).astype(v.dtype), grads, nu)
        return jax.tree.map(lambda g, v: delta(g * jax.lax.rsqrt(v + jnp.asarray(0.01, v.dtype))), grads, nu), nu

    return optax.GradientTransformation(init, update)


def drifts(new):
    return new | {"velocity": jax.tree.map(lambda v: v.astype(jnp.bfloat16), new["velocity"])}


def becomes_weak(new):
    return new | {"count": jnp.where(new["count"] > 0, 1, 0)}


def overflows():
    """The norm's square is beyond float32, and infinity over infinity is no number."""

    def update(grad):
        square = jnp.sum(jnp.square(grad)) if is_float(grad) else None
        return delta(grad) if square is None else delta(grad * (square / (1 + square)))

    return sound(update=update)


def touches_integers():
    return sound(update=lambda grad: delta(grad) if is_float(grad) else jnp.ones(grad.shape, int))


def fails_on_empty_leaves():
    return sound(update=lambda grad: delta(grad) * jnp.max(jnp.ones(grad.shape)).astype(grad.dtype))


def of_norms(kind="elementwise", **more):
    """A rule that divides each gradient by its norm."""

    def update(grad, slots, param, hyper, step):
        return -hyper["learning_rate"] * grad / (1e-6 + jnp.linalg.norm(grad)), slots

    return lift(Rule(update, kind=kind), {"learning_rate": RATE}, name="of_norms", **more)


def of_shapes():
    """A rule that leaves vectors alone, and says that it sees each entry by itself."""

    def update(grad, slots, param, hyper, step):
        return -hyper["learning_rate"] * (grad if grad.ndim > 1 else 0 * grad), slots

    return lift(Rule(update), {"learning_rate": RATE}, name="of_shapes")


# Name, what makes it, the check that it is about, and what the check says.
FAULTS = [
    (
        "state_dtype",
        lambda: sound(state=drifts),
        "check_state_types",
        r"\['velocity'\]\['matrix'\] is bfloat16.*float32",
    ),
    ("weak_type", lambda: sound(state=becomes_weak), "check_state_types", r"\['count'\] is weakly typed int32\[\]"),
    ("shared_zeros", shares_zeros, "check_donation", r"state\['nu'\]\['matrix'\] and state\['mu'\]\['matrix'\] share"),
    ("shared_params", keeps_the_params, "check_donation", r"state\['matrix'\] and params\['matrix'\] share one buffer"),
    ("static_count", counts_in_the_structure, "check_one_trace", r"update 2 is traced again: the state was .* became"),
    (
        "weak_retrace",
        lambda: sound(state=becomes_weak),
        "check_one_trace",
        r"\['count'\] was int32.* became ~int32",
    ),
    (
        "zero_over_zero",
        lambda: normalizes(0.0),
        "check_zero_gradients",
        r"float32 update 1 at \['matrix'\].* is nan",
    ),
    ("small_eps", lambda: normalizes(1e-8), "check_zero_gradients", r"float16 update 1 at \['matrix'\].* is nan"),
    ("huge", overflows, "check_huge_gradients", r"update 2 at \['matrix'\]\[0, 0\] is nan"),
    (
        "ascends",
        lambda: sound(update=lambda g: delta(g, RATE)),
        "check_descends",
        r"is \S+; it started at \S+\.$",
    ),
    (
        "becomes_nan",
        lambda: sound(update=lambda g: delta(g, np.nan)),
        "check_descends",
        r"the loss is nan; it started at",
    ),
    (
        "batch",
        normalizes_over_the_batch,
        "check_vmap_equals_loop",
        r"problem 0 of 3 under vmap at \['matrix'\]",
    ),
    ("python_count", counts_in_python, "check_jit_equals_eager", r"update 1 under jit at \['\w+'\].* outside of it"),
    ("concrete_init", looks_at_values, "check_abstract_init", r"under jax.eval_shape raised ConcretizationTypeError"),
    (
        "update_dtype",
        lambda: sound(update=lambda g: delta(g.astype(jnp.float32) if is_float(g) else g)),
        "check_low_precision",
        r"the update at \['matrix'\] is float32 for bfloat16 params and bfloat16 gradients; expected bfloat16",
    ),
    (
        "stalls",
        averages_in_bfloat16,
        "check_low_precision",
        r"last of 1500\) in bfloat16 at .* furthest off: its norm",
    ),
    (
        "norm_of_all",
        of_norms,
        "check_layouts",
        r"elementwise rule packed in one vector update 1 at \['matrix'\].* with each leaf alone; .*says kind='leaf'",
    ),
    (
        "norm_in_a_chain",
        lambda: jgd.chain(jgd.clip_by_global_norm(1.0), of_norms(layout="packed")),
        "check_layouts",
        r"elementwise rule packed in one vector update 1 at \['matrix'\]",
    ),
    (
        "norm_behind_a_mask",
        lambda: jgd.chain(jgd.add_decayed_weights(0.1, mask="matrices"), of_norms()),
        "check_layouts",
        r"elementwise rule packed in one vector update 1 at \['matrix'\]",
    ),
    (
        "forgotten",
        lambda: lift(Rule(lambda g, s, p, h, t: (-h["rate"] * g, s)), {"rate": RATE, "decay": RATE}, name="forgets"),
        "check_hyperparams",
        r"'decay' changes nothing in 12 updates, whatever it is; expected a formula that reads hyper\['decay'\]",
    ),
    (
        "frozen_schedule",
        lambda: jgd.chain(lift(Rule(lambda g, s, p, h, t: (-RATE * g, s)), {"rate": lambda t: RATE}, name="frozen")),
        "check_hyperparams",
        r"'rate_scale' changes nothing in 12 updates",
    ),
    ("shape", of_shapes, "check_layouts", r"elementwise rule packed in one vector update 1 at \['matrix'\]"),
    ("integers", touches_integers, "check_integer_leaves", r"the update of integers at \['flag'\] is 1, 0 expected"),
    ("empty", fails_on_empty_leaves, "check_none_and_empty_leaves", r"an empty one raised ValueError"),
]


@pytest.mark.parametrize(("make", "check", "message"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_a_planted_fault_is_found_by_its_check(make, check, message):
    with pytest.raises(testing.OptimizerCheckError) as found:
        getattr(testing, check)(make())
    assert str(found.value).startswith(f"{check}: ")
    assert re.search(message, str(found.value))
    assert set(found.value.failures) == {check}


def test_what_the_faults_were_planted_in_passes_every_check():
    assert set(testing.check_optimizer(sound()).values()) == {"passed"}


def test_every_check_has_a_fault_that_it_finds():
    assert {row[2] for row in FAULTS} == set(testing.CHECKS)


@pytest.mark.parametrize(
    "make",
    [
        lambda: of_norms("leaf"),
        lambda: of_norms("matrix", layout="stacked"),
        lambda: jgd.adam(RATE, state_dtype="bfloat16"),
        lambda: jgd.adamw(RATE, mask="matrices", layout="packed"),
        lambda: jgd.groups({"matrix": jgd.lamb(RATE), "*": jgd.sgd(RATE)}),
    ],
)
def test_what_says_what_it_looks_at_is_the_same_in_every_layout(make):
    testing.check_layouts(make(), params={"matrix": jnp.ones((2, 2)), "other": jnp.eye(2), "n": jnp.arange(2)})


def test_who_says_nothing_of_layouts_passes():
    testing.check_layouts(optax.lamb(RATE))
    every_second: Any = optax.MultiSteps(optax.lamb(RATE), 2)
    testing.check_layouts(every_second)


def test_all_failures_come_in_one_error():
    with pytest.raises(testing.OptimizerCheckError) as found:
        testing.check_optimizer(
            sound(update=lambda g: delta(g, RATE), state=becomes_weak), skip=["check_low_precision"]
        )
    assert set(found.value.failures) == {"check_one_trace", "check_state_types", "check_descends"}
    assert str(found.value).startswith("3 of 13 checks failed\n  check_one_trace: ")
    assert "\n  check_descends: " in str(found.value)


def test_the_name_of_no_check_is_refused():
    with pytest.raises(ValueError, match=r"skip names no check: \['descends'\]\. The checks are check_jit"):
        testing.check_optimizer(sound(), skip=["descends"])


def test_extra_arguments_reach_the_update():
    def needs_value(updates, state, params=None, *, value):
        return jax.tree.map(lambda g: delta(g) / (1 + value).astype(g.dtype), updates), state

    optimizer = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), needs_value)
    with pytest.raises(testing.OptimizerCheckError, match="missing 1 required keyword-only argument: 'value'"):
        testing.check_descends(optimizer)
    testing.check_descends(optimizer, extra={"value": jnp.ones(())})
    testing.check_descends(optimizer, extra=lambda params, grads: {"value": testing.quadratic(params)})


def test_params_of_ones_own_are_used():
    params = {"a": jnp.ones((2, 2)), "n": jnp.arange(2)}
    for check in ("check_vmap_equals_loop", "check_donation", "check_state_types", "check_descends"):
        getattr(testing, check)(jgd.adam(0.1), params=params)
    with pytest.raises(testing.OptimizerCheckError, match=r"update 1 at \['a'\]\[0, 0\] is nan"):
        testing.check_zero_gradients(normalizes(0.0), params=params)


def test_a_recorded_trace_survives_json_and_tells_optimizers_apart():
    recorded = json.loads(json.dumps(testing.record_trace(jgd.adam(0.01))))
    testing.check_trace(optax.adam(0.01), recorded)
    with pytest.raises(testing.OptimizerCheckError, match=r"^check_trace: after step 1 the param \['matrix'\] at"):
        testing.check_trace(jgd.adam(0.0101), recorded)
    with pytest.raises(testing.OptimizerCheckError, match=r"no leaf at \['matrix'\]; they have \['w'\]"):
        testing.check_trace(jgd.adam(0.01), recorded, params={"w": jnp.ones(3)})
    skip = [name for name in testing.CHECKS if name != "check_descends"]
    assert testing.check_optimizer(jgd.adam(0.01), skip=skip, trace=recorded)["check_trace"] == "passed"


def test_a_trace_in_float64_is_recorded_in_float64(x64):
    recorded = testing.record_trace(jgd.adam(0.01))
    testing.check_trace(optax.adam(0.01), recorded, rtol=1e-12)
