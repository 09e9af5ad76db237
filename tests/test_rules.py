"""What every rule owes its users: the checks that jgd hands out, and one short run in each layout."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
from cases import CASES, RULES
from declared import check_signs
from small_problem import quadratic, small_params
from tiers import over

import jgd
from jgd.testing import CHECKS, check_optimizer
from jgd.testing import quadratic as half_of_squares

#: Checks that run one and the same compiled step, or compile nothing.
SHARING = ("check_one_trace", "check_state_types", "check_abstract_init", "check_huge_gradients", "check_descends")


def check(rule, optimizer, skip=()):
    def extra(params, grads):
        return rule.extra(half_of_squares, params, grads)

    check_optimizer(optimizer, extra=extra, skip=[*rule.skipped, *skip])


def checked_whole(rule):
    return rule.stands_for and not rule.dear


@over("rule", RULES, fast=checked_whole)
def test_it_passes_every_check(rule):
    check(rule, rule.make())


@over("rule", [rule for rule in RULES if not checked_whole(rule)])
def test_it_passes_the_checks_that_share_a_program(rule):
    check(rule, rule.make(), skip=[name for name in CHECKS if name not in SHARING])


@over("case", CASES, fast=lambda _: False)
def test_settings_that_are_not_the_defaults_pass_every_check(case):
    check(case.rule, case.optimizer())


def test_what_a_rule_is_let_off_is_a_check():
    assert {name for rule in RULES for name in rule.skipped} <= set(CHECKS)


@over("rule", RULES)
def test_its_numbers_have_names_and_no_two_of_its_arrays_share_memory(rule):
    params = small_params()
    state = rule.make().init(params)
    arrays = [leaf for leaf in jax.tree.leaves((params, state)) if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)]
    assert len({leaf.unsafe_buffer_pointer() for leaf in arrays}) == len(arrays)
    known = jgd.get_hyperparams(state)
    assert known
    assert all(jnp.issubdtype(value.dtype, jnp.floating) for value in known.values())
    rate = next((key for key in known if "learning_rate" in key), None)
    assert (rate is not None) == rule.has_rate
    if rate:
        changed = jgd.set_hyperparams(state, **{rate: np.float32(0.125)})
        assert float(jgd.get_hyperparams(changed)[rate]) == 0.125


def three_steps(rule, optimizer):
    """A run of three steps; what the update reads beside the gradients is of the first."""

    def train(params, grads):
        state = optimizer.init(params)
        extra = rule.extra(quadratic, params, grads[0])
        for grad in grads:
            params, state = jgd.update_params(optimizer, grad, state, params, **extra)
        return params, state

    return train


def without_keys(tree):
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda leaf: np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf), tree)


@over("rule", RULES, fast=lambda rule: not rule.dear)
def test_a_short_run_is_the_same_in_every_layout_with_the_signs_it_declares(rule):
    shapes = {"a": (4, 3), "b": (4, 3), "c": (3,), "d": (), "f": (3,), "h": (0, 2)}
    rng = np.random.default_rng(0)
    params, *grads = ({key: rng.normal(size=s).astype(np.float32) for key, s in shapes.items()} for _ in "pggg")
    # "packed" packs leaves of elementwise rules and stacks those of all others.
    takes_layouts = "layout" in inspect.signature(rule.factory).parameters
    layouts = {layout: rule.make(layout=layout) for layout in ("alone", "packed")} if takes_layouts else {}
    runs = {name: three_steps(rule, optimizer) for name, optimizer in (layouts or {"alone": rule.make()}).items()}
    # One program for all: what costs is compiling.
    train = jax.jit(lambda params, grads: {name: run(params, grads) for name, run in runs.items()})

    found = without_keys(train(params, grads))
    check_signs(rule, found["alone"][1], least_size=12)
    for other in found.values():
        assert jax.tree.structure(found["alone"]) == jax.tree.structure(other)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=rule.layout_tolerance, atol=1e-6), found["alone"], other
        )

    # The same program on gradients of zero: all stays finite that started so.
    still = without_keys(train(params, jax.tree.map(np.zeros_like, grads)))
    first = without_keys(rule.make().init(params))
    for run in still.values():
        assert all(np.all(np.isfinite(leaf)) for leaf in run[0].values())
        pairs = zip(jax.tree.leaves(run[1]), jax.tree.leaves(first), strict=True)
        assert all(np.all(np.isfinite(new) | ~np.isfinite(old)) for new, old in pairs)
