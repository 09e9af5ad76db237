"""Every flag on every rule: finite, jitted, donated, with a state that keeps its types."""

import jax
import jax.numpy as jnp
import numpy as np
from cases import RULES, WRAPPERS
from small_problem import quadratic, small_params
from tiers import over

import jgd

FLAGS = [wrapper for wrapper in WRAPPERS if wrapper.around]
#: Each kind of rule meets each flag; in the fast tier those that represent the kinds that differ most.
FAST = ("adamw", "muon", "polyak_sgd")


def types_of(tree):
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), leaf.dtype, getattr(leaf, "weak_type", False)), tree)


def flags_for(rule):
    """All of them for a rule that stands for its kind, and three in turn for the others."""
    first = RULES.index(rule)
    return FLAGS if rule.stands_for else [FLAGS[(first + 6 * i) % len(FLAGS)] for i in range(3)]


@over("rule", RULES, fast=lambda rule: rule.name in FAST)
def test_flags_work_on_it(rule):
    # All flags in one program: what costs here is compilation.
    optimizers = {flag.name: flag.around(rule.make()) for flag in flags_for(rule)}
    traces = []

    def steps(params, states):
        traces.append(rule.name)
        new_params, new_states = {}, {}
        for flag, optimizer in optimizers.items():
            p = params[flag]
            grads = jax.grad(quadratic)(p)
            updates, new_states[flag] = optimizer.update(grads, states[flag], p, **rule.extra(quadratic, p, grads))
            new_params[flag] = jgd.apply_updates(p, updates)
        return new_params, new_states

    step = jax.jit(steps, donate_argnums=(0, 1))
    params = {flag: small_params() for flag in optimizers}
    states = {flag: optimizer.init(params[flag]) for flag, optimizer in optimizers.items()}
    before = types_of((params, states))
    for _ in range(3):
        params, states = step(params, states)
    assert len(traces) == 1
    for flag in optimizers:
        assert types_of((params[flag], states[flag])) == (before[0][flag], before[1][flag]), flag
        evaluated = jgd.eval_params(states[flag], params[flag])
        assert jax.tree.structure(evaluated) == jax.tree.structure(params[flag])
        for leaf in jax.tree.leaves((params[flag], states[flag], evaluated)):
            assert not jnp.issubdtype(leaf.dtype, jnp.inexact) or np.all(np.isfinite(np.asarray(leaf))), flag


def test_every_flag_meets_every_kind_and_every_rule_some_flag():
    assert sum(bool(rule.stands_for) for rule in RULES) >= 12
    assert {flag.name for rule in RULES if not rule.stands_for for flag in flags_for(rule)} == {
        flag.name for flag in FLAGS
    }
