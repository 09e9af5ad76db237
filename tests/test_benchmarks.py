import ast
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jgd

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
# What the scripts share; the others are scripts.
SHARED = ("contestants", "host_functions", "minimizers", "per_example_models", "tasks", "timing", "trees")
# Measures whole trainings, with tables of its own.
OTHER = ("small_states",)
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py") if path.stem not in (*SHARED, *OTHER))

# For each script: options with which it is done in seconds, and how often each of some cells must stand in its tables.
RUNS = {
    "step": (
        "--trees tiny --rules adamw,muon,soap --scan-trees tiny --scan 2 --rounds 4 --layout auto,square",
        {"tiny": 9, "jgd auto scan": 2, "jgd auto scan_steps": 2, "optax scan": 2, "optax": 2, "jgd adamw": 1},
    ),
    "compile": ("--trees tiny --rules sgd,soap --programs 2", {"tiny": 2, "optax": 1, "jgd adamw": 1, "jgd auto": 2}),
    "memory": ("--trees tiny --rules clip+adamw --state-tree gpt2tiny", {"tiny": 2, "gpt2tiny": 10, "optax": 1}),
    "per_example": ("--models mlp --chunks 128 --rounds 1 --who jgd,probes", {"mlp": 5, "probes": 1, "jgd c=128": 1}),
    "minimize": (
        "--sets mgh --problems rosenbrock --dtypes float64 --methods lbfgs,L-BFGS-B,levenberg_marquardt,least_squares",
        {"jgd lbfgs": 1, "scipy L-BFGS-B": 1, "jgd levenberg_marquardt": 1, "scipy least_squares lm": 1},
    ),
    "many_starts": ("--starts 20 --rounds 2", {"jgd, vmap": 1, "scipy, NumPy": 1, "scipy, compiled": 1, "1.000": 3}),
    "train": ("--tasks mlp --steps 5 --rounds 4", {"optax loop": 1, "optax scan": 1, "jgd auto scan": 1}),
}
# A script with one tree more, and without torch where that is hidden: it takes seconds to import.
DRIVER = """
import importlib.util, runpy, sys
path, folder, hides_torch, *options = sys.argv[1:]
sys.path.insert(0, folder)
if hides_torch == "True":
    find_spec = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if name == "torch" else find_spec(name, *rest)
import trees
trees.TREES["tiny"] = lambda: {"kernel": (8, 4), "bias": (4,)}
sys.argv = [path, *options]
runpy.run_path(path, run_name="__main__")
"""


def run(name, options, tmp_path, *, hides_torch=True):
    python_path = os.pathsep.join(filter(None, [str(BENCHMARKS.parent), os.environ.get("PYTHONPATH")]))
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": python_path, "OMP_NUM_THREADS": "1"}
    arguments = [str(BENCHMARKS / f"{name}.py"), str(BENCHMARKS), str(hides_torch), *options.split()]
    command = [sys.executable, "-W", "error", "-c", DRIVER, *arguments]
    return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)


def cells(output):
    """The tables' rows, each a dict of column to text."""
    rows, columns = [], None
    for line in output.splitlines():
        found = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else None
        if found is None:
            columns = None
        elif columns is None:
            columns = found
        elif set(found) != {"---"}:
            assert len(found) == len(columns), line
            rows.append(dict(zip(columns, found, strict=True)))
    return rows


def test_every_script_has_a_run_here():
    assert set(SCRIPTS) == set(RUNS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_how_to_run_it(name):
    source = (BENCHMARKS / f"{name}.py").read_text(encoding="utf-8")
    assert f"python benchmarks/{name}.py" in (ast.get_docstring(ast.parse(source)) or "")


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_prints_tables_of_finite_figures(name, tmp_path):
    if name == "train" and importlib.util.find_spec("sklearn") is None:
        pytest.skip("train.py needs scikit-learn: pip install 'jgd[examples]'")
    options, expected = RUNS[name]
    # With torch, `train` also sees to it that torch ends at the same loss.
    done = run(name, f"{options} --json figures.json", tmp_path, hides_torch=name != "train")
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\d{4}-\d\d-\d\d, .* cores, .*; python .*, jax .*, optax .*, jgd ", done.stdout, re.M)
    assert str(BENCHMARKS.parent) not in done.stdout
    rows = cells(done.stdout)
    texts = [text for row in rows for text in row.values()]
    assert {key: texts.count(key) for key in expected} == expected
    figures = [float(text.split()[0]) for text in texts if re.match(r"^[-\d.]+(e[-+]\d+)?( \(|$)|nan|inf", text)]
    assert len(figures) >= 2 * len(rows)
    assert all(math.isfinite(figure) and figure >= 0 for figure in figures)
    assert json.loads((tmp_path / "figures.json").read_text())["rows"]


@pytest.mark.slow
def test_calls_on_the_host_are_counted_as_in_a_compiled_run(tmp_path):
    options = "--sets mgh --problems rosenbrock,beale --dtypes float32 --methods jgd --json figures.json"
    done = run("minimize", f"{options} --on-host", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"jgd lbfgs", "jgd bfgs", "jgd cg"}
    assert all(row["solved"] and row["values"] > 5 for row in rows)
    calls = next(row["values"] for row in rows if row["method"] == "jgd bfgs" and row["problem"] == "rosenbrock")

    def rosenbrock(x):
        return (10 * (x[1] - x[0] ** 2)) ** 2 + (1 - x[0]) ** 2

    found = jgd.minimize(rosenbrock, jnp.array([-1.2, 1.0]), method="bfgs", tol=1e-4)
    assert abs(calls - int(found.evaluations.values)) <= 5  # rounding differs


needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
needs_digits = pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="pip install 'jgd[examples]'")


@pytest.mark.slow
@needs_torch
@needs_digits
@pytest.mark.parametrize("name", ["mlp", "cnn", "gpt"])
def test_a_task_has_the_same_loss_in_torch(name, monkeypatch):
    import torch

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    task = load("tasks").TASKS[name][0](1)
    # Larger than those to start from, so that every function is met where it bends.
    task = task._replace(params={key: 3 * leaf + 0.1 for key, leaf in task.params.items()})
    batch = {key: leaf[0] for key, leaf in task.batches.items()}
    params = {key: torch.tensor(leaf) for key, leaf in task.params.items()}
    params = {key: leaf.permute(3, 2, 0, 1) if leaf.ndim == 4 else leaf for key, leaf in params.items()}
    theirs = task.torch_loss(params, {key: torch.tensor(leaf) for key, leaf in batch.items()})
    assert float(jax.jit(task.loss)(task.params, batch)) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.slow
@needs_torch
def test_torch_takes_part_where_it_is_installed(tmp_path):
    done = run("step", "--trees tiny --rules clip+adamw --rounds 4", tmp_path, hides_torch=False)
    assert done.returncode == 0, done.stderr
    assert [float(row["torch foreach ms"]) > 0 for row in cells(done.stdout)] == [True]


@pytest.mark.slow
def test_a_spent_budget_and_an_unknown_name_are_said(tmp_path):
    done = run("step", "--trees one25M --rules sgd,adam --budget 0", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "No time for: one25M sgd; one25M adam" in done.stdout
    wrong = run("compile", "--trees resnet51", tmp_path)
    assert wrong.returncode == 2
    assert "no tree 'resnet51'; there are one25M, resnet50" in wrong.stderr


def load(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("tree", "leaves", "parameters"),
    [
        ("yolo26n", 366, 2_572_280),  # as its authors count it
        ("resnet50", 161, 25_557_032),  # as torchvision counts it
        ("gpt2s", 148, 124_439_808),
        ("muon200", 200, 200 * 32 * 64),
        ("muon48", 48, 48 * 128 * 128),
    ],
)
def test_a_tree_has_the_size_of_the_model(tree, leaves, parameters):
    trees = load("trees")
    assert (len(trees.TREES[tree]()), trees.size(tree)) == (leaves, parameters)


def test_contestants_that_did_not_do_the_same_work_are_refused(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    check_losses = load("train").check_losses
    check_losses("mlp", {"jgd auto loop": 1.005, "optax loop": 1.0})
    for loss in (1.02, 0.98, math.nan):
        with pytest.raises(SystemExit, match="the loss of torch fused is"):
            check_losses("mlp", {"torch fused": loss, "optax loop": 1.0})


def test_the_floor_counts_the_bytes_that_a_rule_must_move(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    step = load("step")
    # The kernel reads and writes each of the arrays; AdamW reads four and writes three of them.
    assert step.floor_scale("adamw") == (4 + 3) / (4 + 4)
    assert step.floor_scale("sgd") == (3 + 2) / (3 + 3)
    assert step.floor_scale("clip+adamw") == (5 + 3) / (4 + 4)  # the gradient is read twice


def test_ratios_are_geometric_means_of_each_sessions_medians():
    timing = load("timing")
    sessions = [{"a": [2.0, 1.0, 99.0], "b": [1.0]}, {"a": [8.0], "b": [1.0]}]
    assert timing.ratio(sessions, "a", "b") == pytest.approx((4.0, 2.0, 8.0))
    assert timing.ratio(sessions, "a", "b", scale=2.0) == pytest.approx((2.0, 1.0, 4.0))
    assert str(timing.ratio(sessions, "a", "b")) == "4.00 (2.00 to 8.00)"


def test_contestants_take_turns_and_times_are_of_one_step(monkeypatch):
    timing = load("timing")
    calls, clock = [], [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def contestant(name, seconds, **turn):
        def run(times):
            calls.append((name, times))
            clock[0] += times * seconds

        return timing.Contestant(run, **turn)

    # Five steps in 10 ms, three times over; and one in 4 ms.
    contestants = {"slow": contestant("slow", 0.010, calls=3, steps=5), "fast": contestant("fast", 0.004)}
    times = timing.alternate(contestants, rounds=2)
    assert calls[:4] == [("slow", 1)] * 2 + [("fast", 1)] * 2
    assert calls[4:] == [("fast", 1), ("slow", 3), ("slow", 3), ("fast", 1)]
    assert times == {"slow": pytest.approx([2.0, 2.0]), "fast": pytest.approx([4.0, 4.0])}
    assert len(timing.alternate(contestants, rounds=9, seconds=0.0)["fast"]) == timing.FEWEST_ROUNDS
