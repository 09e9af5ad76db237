"""Every rule passes the checks that jgd hands out for rules of one's own."""

import pytest
from every_rule import FACTORIES, extra, make

from jgd.testing import check_optimizer, quadratic

#: What a rule is let off, and why.
SKIPPED = {
    "noisy_sgd": ["check_low_precision"],  # draws other noise in another dtype
    "came": ["check_huge_gradients"],  # a square that overflows, over another
    "ftrl": ["check_huge_gradients"],  # sums of squares that overflow, subtracted
    "stable_adamw": ["check_huge_gradients"],  # a square over its overflown mean
    "kron": ["check_huge_gradients"],  # factors of squares that overflow
    "soap": ["check_huge_gradients"],
    "galore": ["check_integer_leaves"],  # the base optimizer is optax's
    "lbfgs": ["check_none_and_empty_leaves", "check_integer_leaves"],  # the line search is optax's
    "sophia": ["check_integer_leaves"],  # differentiates the loss by all params
}


@pytest.mark.parametrize("name", FACTORIES)
def test_it_passes_every_check(name):
    def more(params, grads):
        return extra(name, quadratic, params, grads)

    check_optimizer(make(name), extra=more, skip=SKIPPED.get(name, ()))
