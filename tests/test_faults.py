"""The table of planted faults fits the code: each can be planted, in one place, and changes a program that parses."""

import ast
import collections
from pathlib import Path

import pytest
from faults.fault import ROOT, stands
from faults.faults import FAULTS

FOLDERS = {"core", "rules", "transforms", "train", "gradients", "minimizers"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_can_be_planted_in_one_place(fault):
    text = (ROOT / fault.file).read_text(encoding="utf-8")
    found = text.count(fault.old)
    assert found == 1, f"{fault.old!r} stands {found} times in {fault.file}; expected once"
    assert fault.new != fault.old
    planted = ast.parse(text.replace(fault.old, fault.new))
    assert ast.dump(planted) != ast.dump(ast.parse(text)), f"{fault.name} changes nothing but how the code looks"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_what_may_find_it_exists(fault):
    assert fault.first
    assert [place for place in fault.first if not stands(place)] == []


def test_there_are_many_and_each_has_a_name_of_its_own():
    assert len(FAULTS) >= 40
    repeated = [name for name, count in collections.Counter(fault.name for fault in FAULTS).items() if count > 1]
    assert not repeated


def test_every_folder_has_some():
    assert {Path(fault.file).parts[1] for fault in FAULTS} >= FOLDERS


def test_the_table_has_each_of_them_and_a_fast_test_that_finds_it():
    rows = [line.split(" | ") for line in (ROOT / "tests/faults/README.md").read_text(encoding="utf-8").splitlines()]
    found = {row[0].removeprefix("| "): row[3] for row in rows if len(row) == 5}
    missing = [fault.name for fault in FAULTS if not stands(found.get(fault.name, "").strip("`"))]
    assert missing == [], "python tests/faults/plant.py, then --table"
