"""The documentation agrees with the library: every rule has its place, and counts are counts."""

import re
import tomllib
from pathlib import Path

import cases

import jgd

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
