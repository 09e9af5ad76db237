"""What holds the house in shape: imports run downward, files stay small, rules are tested and names documented."""

import ast
import doctest
import inspect
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path

import jax
import optax
import pytest
from cases import RULES
from rule_arguments import undescribed

import jgd
import jgd.rules

PACKAGE = Path(jgd.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# Who may import whom; `rules` and the like may import their own siblings as well.
MAY_IMPORT = {
    "core": set(),
    "rules": {"core"},
    "transforms": {"core", "rules"},
    "gradients": {"core"},
    "minimizers": {"core"},
    "train": {"core", "gradients"},
    "compat": {"core"},
    "testing": {"core", "gradients"},
}
LAZY = ("jgd.compat", "jgd.contrib", "jgd.testing")
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


def lines_of_code(text):
    """How many lines hold code: neither blank nor comments nor docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, documented)]
    docstrings = {
        (node.body[0].lineno, node.body[0].col_offset)
        for node in nodes
        if ast.get_docstring(node, clean=False) is not None
    }
    silent = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    code = [token for token in tokens if token.type not in silent and token.start not in docstrings]
    return len({number for token in code for number in range(token.start[0], token.end[0] + 1)})


def outgrown(path, text):
    """What is wrong with the size of a file; None where nothing is."""
    if path.parent.name == "rules" and path.name != "__init__.py":
        lines, limit, kind = lines_of_code(text), 250, "lines of code"
    else:
        lines, limit, kind = len(text.splitlines()), 330, "lines"
    return f"{path} has {lines} {kind}; more than {limit} is two purposes" if lines > limit else None


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_are_small_rooms(file):
    message = outgrown(file, file.read_text(encoding="utf-8"))
    assert message is None, message


_BEFORE = '"""A rule.\n\nIts formula.\n"""\n\n# why\n\n'
_RULE = 'def rule(x):\n    """Doc.\n\n    More.\n    """\n    # why\n    return x\n'  # two lines of code
_TEXT = 'text = """\n# no comment\n"""\n'  # three


@pytest.mark.parametrize(
    ("place", "text", "found"),
    [
        ("rules/_adam.py", _BEFORE + _RULE * 126, "252 lines of code; more than 250"),
        ("rules/_adam.py", _BEFORE + _RULE * 124 + _TEXT, "251 lines of code; more than 250"),
        ("rules/_adam.py", _BEFORE + _RULE * 125, None),
        ("rules/parts/_moments.py", "x = 1\n" + "# why\n" * 330, "331 lines; more than 330"),
        ("rules/matrices/_lift.py", "x = 1\n" * 330, None),
        ("core/_lift.py", "x = 1\n" * 331, "331 lines; more than 330"),
    ],
)
def test_a_file_that_has_outgrown_its_room_is_found(place, text, found):
    message = outgrown(PACKAGE / place, text)
    assert message is None if found is None else found in str(message)


def missing_from_rule(path, text):
    """What a file of `jgd/rules` lacks: its formula or its factory; None where it has both."""
    tree = ast.parse(text)
    returns = [ast.unparse(node.returns) for node in tree.body if isinstance(node, ast.FunctionDef) and node.returns]
    if "Optimizer" not in returns:
        return f"{path} has no factory of an optimizer; what several rules share goes to parts/ or matrices/"
    return None if "$$" in (ast.get_docstring(tree) or "") else f"{path} has no formula, between $$, in its docstring"


RULE_FILES = sorted(file for file in (PACKAGE / "rules").glob("*.py") if file.name != "__init__.py")


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda file: file.name)
def test_a_rule_is_one_file_with_its_formula_and_its_factory(file):
    message = missing_from_rule(file, file.read_text(encoding="utf-8"))
    assert message is None, message


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('"""A rule. $$x$$"""\n\ndef adam(x) -> Optimizer: ...', None),
        ('"""See `_adam_rule`."""\n\ndef adam(x) -> Optimizer: ...', "has no formula"),
        ('"""A rule. $$x$$"""\n\ndef adam_rule(x) -> Rule: ...', "has no factory"),
    ],
)
def test_a_rule_in_two_files_is_found(text, found):
    message = missing_from_rule(PACKAGE / "rules/_adam.py", text)
    assert message is None if found is None else found in str(message)


def factory_of(trace):
    """The factory that a golden trace is of, read off the optimizer's own text."""
    with jax.enable_x64(True):
        return re.match(r"jgd\.(\w+)", repr(trace.ours())).group(1)


#: Factories of optimizers: all public callables of `jgd.rules` that give one.
FACTORIES = sorted(
    name
    for name, value in vars(jgd.rules).items()
    if inspect.isfunction(value) and value.__annotations__.get("return") is jgd.Optimizer and hasattr(jgd, name)
)


def test_every_rule_has_its_row_its_traces_and_a_page():
    with (PACKAGE.parent / "docs/families.toml").open("rb") as file:
        placed = {name for names in tomllib.load(file)["families"].values() for name in names}
    assert len(FACTORIES) >= 60
    assert sorted(rule.name for rule in RULES) == FACTORIES, "each rule has one row in tests/cases.py"
    for rule in RULES:
        assert rule.traces or rule.untraced, f"{rule.name} has no golden trace in tests/cases.py, and no reason why"
        assert {factory_of(trace) for trace in rule.traces} <= {rule.name}
        assert rule.name in placed, f"{rule.name} has no family in docs/families.toml"


PUBLIC = [name for name, value in vars(jgd).items() if not name.startswith("_") and not inspect.ismodule(value)]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_documented_with_an_example_that_runs(name):
    value = getattr(jgd, name)
    if name == "History" or getattr(value, "__module__", "").startswith("optax"):  # an alias of dict; optax's own
        return
    assert inspect.getdoc(value), f"jgd.{name} has no docstring"
    if inspect.isfunction(value):
        examples = doctest.DocTestParser().get_examples(inspect.getdoc(value))
        assert examples, f"the docstring of jgd.{name} has no example"
        assert undescribed(value) == [], f"jgd.{name} does not describe these arguments, nor a function that it names"


def test_importing_jgd_imports_nothing_optional_and_starts_no_device():
    code = (
        "import sys, jgd, jax._src.xla_bridge as bridge;"
        f"print([name for name in {OPTIONAL + LAZY} if name in sys.modules], bridge.backends_are_initialized())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"


def optax_factory(name):
    return getattr(optax.contrib, name, None) or getattr(optax, name, None)


SHARED = [
    name
    for name in PUBLIC
    if inspect.isfunction(getattr(jgd, name)) and optax_factory(name) not in (None, getattr(jgd, name))
]
# Defaults that differ, with the reason; DESIGN promises float32 slots, so the dtypes' default is "auto".
OTHER_DEFAULTS = {
    ("sophia", "hessian_diagonal_fn"): "an estimator of our own",
    ("lbfgs", "linesearch"): "optax's default is an object made at import; ours is its name",
    ("adopt", "clip_value_fn"): "a function of the same formula",
    ("lookahead", "sync_period"): "optax has none",
    ("lookahead", "slow_step_size"): "optax has none",
}


@pytest.mark.parametrize("name", SHARED)
def test_arguments_have_the_names_order_and_defaults_that_optax_gives_them(name):
    if name in ("chain", "global_norm"):
        return  # arguments by position alone
    ours = inspect.signature(getattr(jgd, name)).parameters
    theirs = inspect.signature(optax_factory(name)).parameters
    if name == "dpsgd" and "key" not in theirs:
        return  # optax's main has `key` where 0.2.8 has `seed`, and takes `seed` by keyword
    positional = [p for p, value in theirs.items() if value.kind is value.POSITIONAL_OR_KEYWORD]
    assert list(ours)[: len(positional)] == positional
    for argument, value in theirs.items():
        if argument in ("mu_dtype", "accumulator_dtype") and value.default is None:
            assert ours[argument].default == "auto"
        elif (name, argument) not in OTHER_DEFAULTS:
            assert ours[argument].default == value.default, argument
        assert ours[argument].kind == value.kind, argument
    for argument, value in ours.items():
        assert argument in theirs or value.kind is value.KEYWORD_ONLY or value.default is not value.empty, argument


OPTAX = """
sgd noisy_sgd sign_sgd signum adam adamw nadam nadamw adamax adamaxw amsgrad radam adabelief adan adagrad
adadelta adafactor fromage lamb lars lbfgs lion novograd optimistic_gradient_descent optimistic_adam_v2
polyak_sgd rmsprop rprop sm3 yogi acprop ademamix simplified_ademamix adopt cocob dadapt_adamw dog dowg
galore madgrad mechanize momo momo_adam muon prodigy sam schedule_free schedule_free_sgd schedule_free_adamw
schedule_free_eval_params sophia reduce_on_plateau normalize split_real_and_imaginary
dpsgd differentially_private_aggregate
"""


def test_all_of_optax_is_here():
    assert [name for name in OPTAX.split() if not hasattr(jgd, name)] == []
