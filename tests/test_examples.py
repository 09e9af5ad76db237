import ast
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

# For each example: between which bounds its key numbers are. Its docstring has them for one machine; the bounds leave
# room for another order of summation, not for another result.
EXPECTED: dict[str, dict[str, tuple[float, float]]] = {
    "quickstart": {
        "gradient": (6.0, 6.0),
        "weight": (4.4 - 1e-6, 4.4 + 1e-6),
        "w_0.1": (2 - 1e-6, 2 + 1e-6),
        "steps_0.1": (69, 71),  # log(6e6) / log(1 / 0.8) = 69.9 and one to notice
        "steps_1.1": (237, 239),  # (3 * 1.2^n)^2 passes 3.4e38
        "w_0.001": (2.404, 2.407),  # 2 + 3 * 0.998^1000 = 2.405
        "steps_0.001": (1000, 1000),
    },
    "linear_regression": {
        "full batch, constant.distance": (0.0, 0.02),
        "mini-batch, falling.distance": (0.0, 0.02),
        "single example, falling.distance": (0.0, 0.02),
        "single example, constant.distance": (0.03, 0.3),  # it stays noisy: that is what the example says
        "full batch, constant.gap": (0.0, 1e-5),
        "mini-batch, falling.gap": (0.0, 1e-5),
        "single example, falling.gap": (0.0, 1e-5),
        "full batch, constant.updates": (1000, 1000),
        "single example, falling.updates": (442_000, 442_000),
    },
    "breast_cancer": {
        "auc": (0.99, 1.0),
        "accuracy": (0.97, 1.0),
        "grad_norm": (0.0, 1e-5),
        "temperature": (0.5, 0.95),
        "brier_after": (0.0, 0.025),
        "log_loss_after": (0.0, 0.09),
        "ece_after": (0.0, 0.05),
        "mean_auc": (0.99, 1.0),
        "mean_ece_before": (0.045, 0.07),
        "mean_ece_after": (0.0, 0.04),
        "sensitivity": (0.95, 1.0),
        "specificity": (0.85, 1.0),
    },
    "private_training": {
        "none.accuracy": (0.95, 1.0),
        "1.epsilon": (11.1, 11.2),
        "1.accuracy": (0.95, 1.0),
        "8.epsilon": (0.68, 0.70),
        "8.accuracy": (0.88, 0.96),
    },
    "convergence": {
        "L-BFGS.distance": (0.0, 1e-3),
        "L-BFGS.steps": (10, 40),
        "Gradient descent, rate that fits.status": (1, 1),
    },
    "digits_cnn": {"test_accuracy": (0.98, 1.0), "train_accuracy": (0.95, 1.0)},
    "optax_interop": {
        "jgd in optax.chain": (0.0, 1e-5),
        "optax in jgd.chain": (0.0, 1e-5),
        "optax.MultiSteps": (0.0, 1e-5),
        "optax.inject_hyperparams": (0.0, 1e-5),
        "import jgd as optax": (0.0, 1e-5),
        "optax in make_step": (0.0, 1e-5),
        "flax: nnx.Optimizer": (0.0, 1e-5),
        "flax: nnx.split": (0.0, 1e-5),
        "equinox: eqx.partition": (0.0, 1e-5),
        "float64": (0.0, 1e-13),
        "jgd_rounding": (0.0, 2e-6),
    },
    "live_hyperparameters": {
        "step_traces": (1, 1),
        "sweep_traces": (1, 1),
        "schedule_traces": (1, 1),
        "relative_error": (0.0, 1e-7),
        "best_rate": (0.05, 0.3),
        "first_loss": (0.05, 0.2),
        "tuned_loss": (0.0, 1e-3),
        "scheduled_loss": (0.0, 1e-2),
    },
}

# Runs the example as `python examples/name.py` would, and writes down what main returned.
DRIVER = """
import json, pathlib, runpy, sys
numbers = runpy.run_path(sys.argv[1], run_name="example")["main"]()
numbers = {k: v._asdict() if hasattr(v, "_asdict") else v for k, v in numbers.items()}
pathlib.Path("numbers.json").write_text(json.dumps(numbers))
"""


def missing_packages(path: Path) -> list[str]:
    imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [i.module or "" if isinstance(i, ast.ImportFrom) else alias.name for i in imports for alias in i.names]
    return sorted({n.split(".")[0] for n in names if importlib.util.find_spec(n.split(".")[0]) is None})


def flat(numbers: dict[str, Any]) -> dict[str, float]:
    nested = {f"{k}.{inner}": x for k, v in numbers.items() if isinstance(v, dict) for inner, x in v.items()}
    return nested | {k: v for k, v in numbers.items() if not isinstance(v, dict)}


def test_there_are_examples_and_each_has_its_key_numbers_here():
    assert len(EXAMPLES) >= 6
    assert {path.stem for path in EXAMPLES} == set(EXPECTED)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_how_to_run_it_and_does_so_as_a_script(path: Path):
    source = path.read_text()
    assert f"python examples/{path.name}" in (ast.get_docstring(ast.parse(source)) or "")
    assert source.endswith('\n\nif __name__ == "__main__":\n    main()\n')


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_quietly_and_prints_the_numbers_that_it_promises(path: Path, tmp_path: Path):
    if missing := missing_packages(path):
        pytest.skip(f"{path.name} needs {', '.join(missing)}: pip install 'jgd[examples]'")
    # The package under test first, wherever pytest was started; the folder of the run is empty and thrown away.
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": python_path}
    command = [sys.executable, "-W", "error", "-c", DRIVER, str(path)]
    started = time.perf_counter()
    # None takes more than 20 s on two cores; a busy machine may need several times that.
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    print(run.stdout, f"{time.perf_counter() - started:.1f} s")
    assert run.returncode == 0, run.stderr
    assert "Traceback" not in run.stderr, run.stderr
    assert "warning" not in run.stderr.lower(), run.stderr
    assert run.stdout.count("\n") >= 5, "an example shows what it does"

    numbers = flat(json.loads((tmp_path / "numbers.json").read_text()))
    bounds = EXPECTED[path.stem]
    outside = {
        k: (numbers.get(k), bounds[k])
        for k in bounds
        if not bounds[k][0] <= numbers.get(k, float("nan")) <= bounds[k][1]
    }
    assert not outside, f"key: (found, expected between) {outside}"


def test_the_quickstart_prints_gradient_and_weight_as_its_readers_will_look_for_them():
    path = ROOT / "examples" / "quickstart.py"
    run = subprocess.run(
        [sys.executable, str(path)], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    words = run.stdout.split()
    assert words[words.index("gradient") + 1] == "6.0"
    assert words[words.index("weight") + 1] == "4.4"
