"""Rates that reach zero, as every warm-up and every schedule to zero has them: at first, in the middle, at the end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import RULES
from small_problem import quadratic, small_params
from tiers import over

import jgd

#: In units of the usual rate.
RATES = np.array([[0, 0, 1, 1, 1], [1, 1, 0, 0, 1], [1, 1, 1, 1, 0]], np.float32)
#: Rules whose params follow from sums that hold the rates of earlier steps, so that they move on.
MOVES_ON = {
    "lars": "its momentum is of steps, as optax's",
    "madgrad": "params are averaged with those that the sums of gradients ask for",
    "dadapt_adamw": "its first moment is of steps, as its author's",
    "rprop": "its rate is but the first step",
}


def rate_names(state):
    return [name for name in jgd.get_hyperparams(state) if name.endswith("learning_rate")]


def runs(rule, scheduled):
    """A program that runs all rows of rates; by schedule with the row as an argument of the optimizer's factory."""
    params, rng = small_params(), np.random.default_rng(0)
    grads = {key: rng.normal(size=(5, *leaf.shape)).astype(np.float32) for key, leaf in params.items()}
    usual = rule.first[0] if rule.first and rule.first[0] is not None else 0.01

    def run(rates):
        optimizer = rule.factory(lambda count: rates[count]) if scheduled else rule.make()

        def step(carry, now):
            (params, state), (rate, grad) = carry, now
            if not scheduled:
                state = jgd.set_hyperparams(state, **dict.fromkeys(rate_names(state), rate))
            updates, state = optimizer.update(grad, state, params, **rule.extra(quadratic, params, grad))
            return (jgd.apply_updates(params, updates), state), updates

        return jax.lax.scan(step, (params, optimizer.init(params)), (rates, grads))

    return jax.jit(jax.vmap(run))(usual * RATES)


def check(rule, found):
    for path, leaf in jax.tree_util.tree_flatten_with_path(found)[0]:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            assert np.all(np.isfinite(leaf)), jax.tree_util.keystr(path)
    moved = any(np.any(np.asarray(leaf)[RATES == 0] != 0) for leaf in jax.tree.leaves(found[1]))
    assert moved == (rule.name in MOVES_ON)


@over("rule", RULES, fast=lambda rule: rule.name in ("ftrl", "sgd", "prodigy"))
def test_a_rate_of_zero_leaves_the_params_where_they_are(rule):
    check(rule, runs(rule, scheduled=False))


@over("rule", [rule for rule in RULES if rule.has_rate], fast=lambda rule: rule.name in ("ftrl",))
def test_so_does_a_schedule(rule):
    check(rule, runs(rule, scheduled=True))


@over("rule", RULES)
def test_it_is_taken_where_it_is_given(rule):
    state = rule.make().init(small_params())
    jgd.set_hyperparams(state, **dict.fromkeys(rate_names(state), 0.0))
    if rule.first != (None,):
        rule.factory(0.0)


def ftrl_by_the_book(rates, grads, start, initial, l1, l2, shrinkage, offset):
    """The formula with the sums as they stand in it."""
    total, z, param, path = initial, 0.0, start, []
    before = (initial**0.5 + offset) / rates[0]
    for rate, grad in zip(rates, grads, strict=True):
        total += grad**2
        now = (total**0.5 + offset) / rate
        z += grad + 2 * shrinkage * param - (now - before) * param
        param = (np.clip(z, -l1, l1) - z) / (now + 2 * l2)
        before = now
        path.append(param)
    return np.array(path)


@pytest.mark.parametrize("more", [(0.0, 0.0, 0.0, 0.0), (3.0, 0.2, 0.05, 0.3)], ids=["plain", "regularized"])
def test_ftrl_under_a_falling_rate_keeps_what_it_has_learned(more, x64):
    rng = np.random.default_rng(1)
    rates, grads, start = 0.2 / np.arange(1, 13), rng.normal(size=(12, 40)) + 0.5, rng.normal(size=40)
    expected = ftrl_by_the_book(rates, grads, start, 0.1, *more)
    l1, l2, shrinkage, offset = more
    rates = jnp.append(rates, 0.0)
    optimizer = jgd.ftrl(lambda t: rates[t], l1=l1, l2=l2, l2_shrinkage=shrinkage, offset=offset)
    params, state = jnp.asarray(start), optimizer.init(jnp.asarray(start))
    update = jax.jit(optimizer.update)
    for grad, right in zip(grads, expected, strict=True):
        updates, state = update(jnp.asarray(grad), state, params)
        params = params + updates
        np.testing.assert_allclose(params, right, rtol=1e-10, atol=1e-12)
    if l1:
        assert 0 < np.sum(expected[-1] == 0) < 40
    assert np.all(update(jnp.asarray(grads[0]), state, params)[0] == 0)
