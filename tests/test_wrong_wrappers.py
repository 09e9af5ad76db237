"""Wrappers and transforms that are given what is no optimizer, or no number of calls, say so in words."""

import jax.numpy as jnp
import pytest
from test_untrained_leaves import AROUND
from tiers import over

import jgd


@over("wrapper", AROUND)
@pytest.mark.parametrize("given", [jgd.adam, "adam", 0.1], ids=["factory", "text", "number"])
def test_what_is_no_optimizer_is_named(wrapper, given):
    hint = {"adam": r".*jgd\.adam\(", 0.1: ""}.get(
        given, r".*adam makes one(, call it: adam|: call it, as adam)\(\.\.\.\)"
    )
    with pytest.raises(TypeError, match=rf"^\w+: .*(must be|expected) an optimizer.*; got .*{hint}"):
        wrapper.around(given)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda every: jgd.accumulate(jgd.sgd(0.1), every), "accumulate: every must be"),
        (lambda every: jgd.MultiSteps(jgd.sgd(0.1), every), "MultiSteps: every_k_schedule must be"),
        (lambda every: jgd.sam(jgd.sgd(0.1), jgd.sgd(0.1), every), "sam: sync_period must be"),
        (lambda every: jgd.mechanize(jgd.sgd(0.1), num_betas=every), "mechanize: num_betas must be"),
    ],
    ids=["accumulate", "MultiSteps", "sam", "mechanize"],
)
def test_numbers_of_calls_are_integers_above_zero(make, message):
    for wrong in (1.5, "2", None):
        with pytest.raises(TypeError, match=rf"{message} an integer( or a function)?; got {wrong!r}"):
            make(wrong)
    with pytest.raises(ValueError, match=f"{message} at least 1; got 0"):
        make(0)
    make(jnp.array(2)) if "accumulate" in message else make(2)
