"""What holds the house in shape: imports run downward, files stay small, rules are tested and names documented."""

import ast
import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import cases
import pytest

import jgd
import jgd.rules

PACKAGE = Path(jgd.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# Who may import whom; `rules` and the like may import their own siblings as well.
MAY_IMPORT = {
    "core": set(),
    "rules": {"core"},
    "transforms": {"core"},
    "gradients": {"core"},
    "train": {"core", "gradients"},
}
OPTIONAL = ("flax", "equinox", "orbax", "tqdm", "matplotlib", "sklearn", "scipy.optimize", "pytest", "torch")


def imported_modules(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_run_downward(file):
    layer = file.relative_to(PACKAGE).parts[0]
    if layer not in MAY_IMPORT:
        assert file.parent == PACKAGE, (
            f"{file}: give the folder {layer} a place in MAY_IMPORT, and in docs/pages/design.md"
        )
        return
    for module in imported_modules(file):
        if module == "jgd" or module.startswith("jgd."):
            target = module.split(".")[1] if "." in module else "the public face"
            allowed = MAY_IMPORT[layer] | {layer}
            assert target in allowed, f"{file}: {layer} must not import {module}; it may import {sorted(allowed)}"


def outgrown(path, lines):
    limit = 200 if path.parent.name == "rules" else 330
    return f"{path} has {lines} lines; more than {limit} is two purposes" if lines > limit else None


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_are_small_rooms(file):
    message = outgrown(file, len(file.read_text(encoding="utf-8").splitlines()))
    assert message is None, message


def test_every_rule_has_a_row_a_page_and_a_public_name():
    page = (PACKAGE.parent / "docs/pages/api/rules.md").read_text(encoding="utf-8")
    factories = [name for name in vars(jgd.rules) if name.islower() and not name.startswith("_")]
    factories = [
        name for name in factories if "learning_rate" in inspect.signature(getattr(jgd.rules, name)).parameters
    ]
    assert len(factories) >= 9
    rows = {case.make for case in cases.CASES}
    for name in factories:
        factory = getattr(jgd.rules, name)
        assert factory in rows, f"{name} has no row in tests/cases.py"
        assert getattr(jgd, name, None) is factory, f"{name} is not exported by jgd/__init__.py"
        assert name in page, f"{name} is not in docs/pages/api/rules.md"


PUBLIC = [name for name, value in vars(jgd).items() if not name.startswith("_") and not inspect.ismodule(value)]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_documented_with_an_example_that_runs(name):
    value = getattr(jgd, name)
    if name in ("History", "MuonDimensionNumbers"):  # an alias of dict, and optax's own class
        return
    assert inspect.getdoc(value), f"jgd.{name} has no docstring"
    if inspect.isfunction(value):
        examples = doctest.DocTestParser().get_examples(inspect.getdoc(value))
        assert examples or name == "save_checkpoint", f"the docstring of jgd.{name} has no example"
        for parameter in inspect.signature(value).parameters:
            named = parameter in inspect.getdoc(value)
            assert named or "which see for arguments" in inspect.getdoc(value), (
                f"jgd.{name} says nothing of {parameter}"
            )


def test_importing_jgd_imports_nothing_optional_and_starts_no_device():
    code = (
        "import sys, jgd, jax._src.xla_bridge as bridge;"
        f"print([name for name in {OPTIONAL} if name in sys.modules], bridge.backends_are_initialized())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"


def optax_arguments(name):
    import optax

    factory = getattr(optax, name, None) or getattr(optax.contrib, name)
    return inspect.signature(factory).parameters


@pytest.mark.parametrize(
    "name",
    [
        "sgd",
        "adam",
        "nadam",
        "adamw",
        "nadamw",
        "amsgrad",
        "lion",
        "muon",
        "clip_by_global_norm",
        "add_decayed_weights",
    ],
)
def test_arguments_have_the_names_order_and_defaults_that_optax_gives_them(name):
    ours, theirs = inspect.signature(getattr(jgd, name)).parameters, optax_arguments(name)
    assert list(ours)[: len(theirs)] == list(theirs)
    for argument in theirs:
        if argument in ("mu_dtype", "accumulator_dtype"):  # float32 by default, which DESIGN promises
            assert ours[argument].default == "auto"
        else:
            assert ours[argument].default == theirs[argument].default, argument
            assert ours[argument].kind == theirs[argument].kind, argument
    assert {p for p in ours if p not in theirs} <= {"state_dtype", "layout", "decay_form"}
