"""No public call answers nonsense with an error from somewhere below: `nonsense.py` generates the calls."""

import importlib
import inspect
import os

import nonsense
import pytest

MODULES = [
    "jgd", "jgd.rules", "jgd.transforms", "jgd.train", "jgd.minimizers", "jgd.gradients", "jgd.gradients.probes",
    "jgd.testing", "jgd.compat.optax", "jgd.schedules",
]  # fmt: skip

#: Public names without rows of their own, by the reason.
WITHOUT = {
    "made by the library, never by a caller": [
        "BatchSummary", "Bundle", "Chunk", "CriticalBatch", "DebugReport", "Evaluations", "Gradients", "LiftedState",
        "LineSearchResult", "MinimizeResult", "MultiStart", "Multipliers", "NoiseScale", "OptState",
        "Optimizer", "Packed", "Path", "PerExample", "Point", "PoissonSample", "Probe", "Problem", "Restored",
        "Status", "StepInfo", "StepperState", "Trace", "PerExampleReport",
    ],
    "errors": [
        "CheckpointError", "NonFiniteError", "OptimizerCheckError", "PerExampleCheckError", "RollbackError",
        "SpikeError",
    ],
    "what a class of the caller's own derives from": ["BaseMethod", "LineSearch", "Method", "Penalty", "Reduction"],
    "without arguments": ["centralize", "quadratic"],
    "as another row": [
        "Mean", "SecondMoment", "Sum", "private_noise", "multi_transform", "check_optimizer", "check_descends",
        "check_donation", "check_huge_gradients", "check_jit_equals_eager", "check_low_precision",
        "check_none_and_empty_leaves", "check_vmap_equals_loop", "check_zero_gradients",
        "check_hyperparams",
    ],
    "for authors of rules and steps, in their docs": [
        "accumulate_micro_batches", "decayed", "hutchinson", "lift_decayed", "orthogonalize", "rmsprop_rule", "each",
        "check_layouts", "gauss_newton", "precond_update_prob_schedule", "split_batch", "split_mask",
    ],
}  # fmt: skip

#: Names that are optax's own function, handed on: what they say is optax's affair.
HANDED_ON = ("masked", "named_chain", "freeze", "selective_transform")


def public_names():
    found = set()
    for module in MODULES:
        for name, value in vars(importlib.import_module(module)).items():
            home = f"{getattr(value, '__module__', None)}."
            own = home.startswith("jgd." if "schedules" not in module else module)
            if not name.startswith("_") and own and callable(value) and not inspect.ismodule(value):
                found.add(name)
    return found


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def raw(found):
    """What jgd does not answer, of some nonsense."""
    wrong = []
    for name, call, parameter, kind in found:
        if name in HANDED_ON:
            continue
        error = nonsense.answer(call, {parameter: nonsense.VALUES[kind]})
        if error is not None:
            wrong.append(f"{name}({parameter}={kind}): {type(error).__name__}: {str(error)[:100]}")
    return wrong


def test_a_sample_of_nonsense_is_answered_in_words(place):
    rows = {}
    for part in ("factories", "transforms", "states", "schedules"):
        rows |= nonsense.PARTS[part](place)
    everything = list(nonsense.each(rows))
    sample = everything[:: max(len(everything) // 400, 1)]
    assert len(sample) >= 300
    assert raw(sample) == []


@pytest.mark.slow
@pytest.mark.parametrize("part", nonsense.PARTS, ids=lambda part: part.replace(" ", "_"))
def test_all_nonsense_is_answered_in_words(part, place):
    rows = nonsense.PARTS[part](place)
    valid = {name: nonsense.answer(call, {}) for name, call in rows.items()}
    assert {name: error for name, error in valid.items() if error is not None} == {}, "a valid call fails"
    assert raw(nonsense.each(rows)) == []


@pytest.mark.slow
def test_every_public_name_has_its_nonsense(place):
    rows = {name.rpartition(".")[2].replace("create", "TrainState") for name in nonsense.calls(place)}
    without = {name for names in WITHOUT.values() for name in names}
    assert public_names() - rows - without == set()
    assert without - public_names() == set(), "named here and not public"


def test_raw_errors_are_told_from_those_of_jgd():
    def fails():
        return {}["x"]

    assert isinstance(nonsense.answer(nonsense.Call(fails), {}), KeyError)
    assert os.path.isdir(nonsense.ROOT)
