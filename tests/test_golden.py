"""Every rule against its author's own code: a hundred steps, recorded by `tests/reference/make.py`."""

import json
from pathlib import Path

import jax
import make
import numpy as np
import pytest
import table
from cases import TRACES
from problem import RECORDED, SHAPES
from tiers import over
from trace_runner import run_trace

import jgd

FOLDER = Path(__file__).parent / "reference" / "traces"


def largest_error(row):
    """The largest difference over all recorded steps, relative to the largest entry of its leaf."""
    file = FOLDER / f"{row.name}.npz"
    assert file.exists(), f"{row.name} has no trace; make it: python tests/reference/make.py {row.name}"
    expected = np.load(file)["trace"]
    with jax.enable_x64(row.dtype == "float64"):
        found = run_trace(row.ours(), row, jgd.eval_params if row.evaluated else None)
    ends = np.cumsum([int(np.prod(SHAPES[name])) for name in row.leaves])[:-1]
    worst = 0.0
    for step, line in zip(RECORDED, expected, strict=True):
        pairs = zip(np.split(found[step], ends), np.split(line, ends), strict=True)
        worst = max(worst, *(np.max(np.abs(a - b)) / np.max(np.abs(b)) for a, b in pairs))
    return worst


@over("trace", [trace for trace in TRACES if not trace.contracted])
def test_it_follows_its_authors_code(trace):
    assert largest_error(trace) <= trace.tolerance


@pytest.mark.usefixtures("as_compiled_for_users")
@over("trace", TRACES, fast=lambda trace: trace.contracted)
def test_it_follows_its_authors_code_as_compiled_for_users(trace):
    assert largest_error(trace) <= trace.tolerance


def test_the_published_table_has_every_row():
    lines = json.loads((FOLDER.parent / "errors.json").read_text(encoding="utf-8"))
    assert {line["trace"]: line["tolerance"] for line in lines} == {row.name: row.tolerance for row in TRACES}


def test_there_is_a_trace_for_every_row_and_a_row_for_every_trace():
    assert {row.name for row in TRACES} == {file.stem for file in FOLDER.glob("*.npz")}
    assert len({row.name for row in TRACES}) == len(TRACES)


def test_the_table_takes_one_trace_and_keeps_the_other_lines(tmp_path, monkeypatch):
    before = json.loads(table.ERRORS.read_text(encoding="utf-8"))
    monkeypatch.setattr(table, "ERRORS", tmp_path / "errors.json")
    monkeypatch.setattr(table, "PAGE", tmp_path / "page.md")
    table.ERRORS.write_text(json.dumps([line for line in before if line["trace"] != "sign_sgd"]), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["table.py", "sign_sgd"])
    table.main()
    after = json.loads(table.ERRORS.read_text(encoding="utf-8"))
    assert [line | {"error": 0} for line in after] == [line | {"error": 0} for line in before]
    assert [line for line in after if line["trace"] != "sign_sgd"] == [
        line for line in before if line["trace"] != "sign_sgd"
    ]
    assert table.PAGE.read_text(encoding="utf-8") == table.page_of(after)


@pytest.mark.parametrize("script", [table, make])
def test_a_name_that_no_trace_has_ends_the_script(script, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["script.py", "lionn"])
    with pytest.raises(SystemExit):
        script.main()
    assert "no trace in tests/cases.py is called lionn" in capsys.readouterr().err
