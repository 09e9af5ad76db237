"""The documentation agrees with the library: every rule has its place, and counts are counts."""

import inspect
import re
import sys
import tomllib
from pathlib import Path

import cases
import pytest
import rule_arguments

import jgd
import jgd.rules
import jgd.transforms

ROOT = Path(jgd.__file__).parents[1]


def read(name):
    with (ROOT / "docs" / name).open("rb") as file:
        return tomllib.load(file)


def placed():
    return [name for members in read("families.toml")["families"].values() for name in members]


def test_the_index_says_when_to_use_each_rule():
    said = read("when_to_use.toml")
    assert sorted(said["use"]) == sorted(placed())
    assert set(said["rate"]) <= set(placed())
    for rule in cases.RULES:
        assert rule.name in said["rate"], f"{rule.name} has no typical rate in docs/when_to_use.toml"


def test_the_readme_counts_the_rules():
    wrappers = {wrapper.name for wrapper in cases.WRAPPERS}
    estimators = {"hutchinson", "gauss_newton"}
    other = {"split_real_and_imaginary", "stochastic_rounding", "split_master_weights"}
    rules = set(placed()) - wrappers - estimators - other
    assert {rule.name for rule in cases.RULES} <= rules | wrappers
    (said,) = re.findall(r"\| (\d+) update rules,", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert int(said) == len(rules - {"schedule_free"})


def described_functions():
    """The functions of rules and transforms whose docstrings have a section of arguments, or that are public."""
    packages = ("jgd.rules.", "jgd.transforms.")
    for name, module in sorted(sys.modules.items()):
        for function in vars(module).values() if name.startswith(packages) else ():
            if inspect.isfunction(function) and function.__module__ == name:
                faces = (jgd, jgd.rules, jgd.transforms)
                public = any(getattr(face, function.__name__, None) is function for face in faces)
                if public or "\nArgs:" in (inspect.getdoc(function) or ""):
                    yield f"{name}.{function.__name__}", function


FUNCTIONS = dict(described_functions())


def test_the_functions_to_look_at_are_found():
    assert len(FUNCTIONS) > 120
    assert {"jgd.rules._adam.adam", "jgd.transforms._sam.sam", "jgd.rules._adam_mini.blocks_of"} <= set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_is_described_by_its_function_or_by_one_that_this_names(name):
    assert rule_arguments.undescribed(FUNCTIONS[name]) == []


def test_a_page_shows_the_arguments_of_the_factories_that_a_docstring_names():
    known = rule_arguments.described(jgd.nadamw)
    assert known["nesterov"] == "False makes this `jgd.adamw`."  # its own
    assert known["momentum_decay"] == rule_arguments.described(jgd.nadam)["momentum_decay"]  # the first that it names
    assert known["mask"] == rule_arguments.described(jgd.adamw)["mask"]  # the second
    assert known["eps_root"] == rule_arguments.described(jgd.adam)["eps_root"]  # of these two the one that they name
    assert list(known) == list(inspect.signature(jgd.nadamw).parameters)


def describes_one(learning_rate, own, other): ...


DOCSTRING = """A function that describes one of its arguments.

{sentence}

Args:
    own: Its own argument,
        in two lines.
"""


@pytest.mark.parametrize(
    ("sentence", "missing"),
    [
        ("", ["learning_rate", "other"]),
        ("Arguments that are not described here are those of `jgd.adam`.", ["other"]),
        ("Arguments that are not described here are those of `jgd.nadam` and `jgd.adamw`.", ["other"]),
        ("The arguments are those of `jgd.adam`.", ["learning_rate", "other"]),
    ],
)
def test_an_argument_that_no_docstring_describes_is_found(monkeypatch, sentence, missing):
    monkeypatch.setattr(describes_one, "__doc__", DOCSTRING.format(sentence=sentence))
    assert rule_arguments.undescribed(describes_one) == missing
    assert rule_arguments.described(describes_one)["own"] == "Its own argument, in two lines."


def test_no_docstring_names_a_factory_for_one_argument_alone():
    """One sentence says it for all of them."""
    pointers = [
        f"{name}: {argument}"
        for name, function in FUNCTIONS.items()
        for argument, meaning in rule_arguments.described(function).items()
        if re.fullmatch(r"(See|As for|As in) `[\w.]+`\.", meaning)
    ]
    assert pointers == []
