"""What rules declare of their slots, and whether a state bears it out."""

import jax
import numpy as np
import pytest

import jgd
from jgd.core._storage import resolve_storages


def nonnegative_slots(rule):
    """For each slot that may be rounded, whether the rule declares it never below zero."""
    declared = {}

    def noting(owner, rules, *others):
        for one in rules:
            declared.update({slot: slot in one.nonnegative for slot in one.slots if slot not in one.exact})
        return resolve_storages(owner, rules, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jgd.core._lift.resolve_storages", noting)
        rule.make()
    return declared


def check_signs(rule, state, least_size):
    """What a rule declares never negative is not, and nothing else is without a sign, in leaves of that size."""
    declared = nonnegative_slots(rule)
    for part in jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, jgd.OptState)):
        for slot, tree in part.slots.items() if isinstance(part, jgd.OptState) else ():
            leaves = [leaf for leaf in jax.tree.leaves(tree) if leaf.size >= least_size and leaf.dtype == np.float32]
            if leaves and slot in declared:
                has_signs = any(float(np.min(leaf)) < 0 for leaf in leaves)
                told = "is below zero, but among" if has_signs else "was never below zero, but is not among"
                assert declared[slot] != has_signs, f"{rule.name}: slot {slot!r} {told} the rule's `nonnegative`"
