"""What a developer meets first names what exists: CONTRIBUTING, the workflows, pre-commit, the docs' builder."""

import importlib.util
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from cases import TRACES
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import jgd

ROOT = Path(jgd.__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
GROUPS = PYPROJECT["dependency-groups"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
#: The rule that CONTRIBUTING takes for an example; it must not be one that exists.
NEW_RULE = "tiger"


def read(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def of_ci(name):
    """A script in `.ci` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f".ci/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job.get("steps", ())]


def commands(workflow):
    """The shell lines of a workflow."""
    return [line.strip() for step in steps(workflow) for line in step.get("run", "").splitlines()]


def matrix_pythons(job):
    """The versions of Python in a job's matrix."""
    matrix = job.get("strategy", {}).get("matrix", {})
    return [*matrix.get("python", []), *(row["python"] for row in matrix.get("include", []))]


def pythons(workflow):
    """All versions of Python that a workflow sets up."""
    asked = [step["with"]["python-version"] for step in steps(workflow) if "setup-python" in step.get("uses", "")]
    listed = [version for job in workflow["jobs"].values() for version in matrix_pythons(job)]
    return [version for version in [*asked, *listed] if not version.startswith("$")]


def missing(text):
    """The paths, extras, groups and `-k` words of a text of commands that stand for nothing."""
    for path in re.findall(r"(?<![\w/.$])((?:\.?\w[\w-]*/)+[\w-]+(?:\.\w+)?)", text):
        if NEW_RULE not in path and not path.startswith((".venv", "dist/")) and not (ROOT / path).exists():
            yield path
    for listed in re.findall(r'"?\.\[([\w,]+)\]"?', text):
        yield from (extra for extra in listed.split(",") if extra not in EXTRAS)
    yield from (group for group in re.findall(r"--group (\w+)", text) if group not in GROUPS)
    traces = {trace.name for trace in TRACES} | {NEW_RULE}
    yield from (word for word in re.findall(r"-k (\w+)", text) if word not in traces)


def test_contributing_names_what_exists():
    links = re.findall(r"\]\(([^)]+)\)", CONTRIBUTING)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []
    code = re.findall(r"```\n(.*?) *```", CONTRIBUTING, re.DOTALL) + re.findall(r"`([^`\n]+)`", CONTRIBUTING)
    assert list(missing("\n".join(code))) == []
    assert not hasattr(jgd, NEW_RULE)


@pytest.mark.parametrize(
    "text", ["pytest tests/test_gone.py", 'pip install -e ".[tests]"', "pip install --group devs", "pytest -k lyon"]
)
def test_what_is_gone_would_be_found(text):
    assert len(list(missing(text))) == 1


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_workflows_name_what_exists_and_supported_pythons(file):
    workflow = read(file)
    assert list(missing("\n".join(commands(workflow)))) == []
    allowed = SpecifierSet(PYPROJECT["project"]["requires-python"])
    assert all(version in allowed for version in pythons(workflow))
    assert "write-all" not in str(workflow)
    assert workflow["permissions"] == {"contents": "read"}


@pytest.mark.parametrize(("name", "job"), [("pull-request", "test"), ("nightly", "everything")])
def test_the_oldest_python_is_tested(name, job):
    (floor,) = SpecifierSet(PYPROJECT["project"]["requires-python"])
    tested = matrix_pythons(read(f".github/workflows/{name}.yml")["jobs"][job])
    assert min(map(Version, tested)) == Version(floor.version)


def test_the_linters_look_for_what_the_oldest_python_lacks():
    (floor,) = SpecifierSet(PYPROJECT["project"]["requires-python"])
    assert PYPROJECT["tool"]["pyright"]["pythonVersion"] == floor.version
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{floor.version.replace('.', '')}"


def test_the_night_runs_everything_with_the_oldest_and_the_newest_jax():
    workflow = read(".github/workflows/nightly.yml")
    runs = workflow["jobs"]["everything"]["strategy"]["matrix"]["include"]
    assert [row["versions"] for row in runs] == ["oldest", "newest"]
    assert ".ci/run" in commands(workflow)
    (held,) = [step for step in steps(workflow) if "oldest" in step.get("if", "")]
    assert ".ci/oldest.py" in held["run"]
    assert "PIP_CONSTRAINT=" in held["run"]


def test_the_oldest_versions_are_the_floors_of_pyproject():
    done = subprocess.run([sys.executable, ROOT / ".ci/oldest.py"], capture_output=True, text=True, check=True)
    found = {pin.name: pin.specifier for pin in map(Requirement, done.stdout.split())}
    needed = [Requirement(text) for text in PYPROJECT["project"]["dependencies"]]
    assert set(found) == {"jax", "jaxlib", "optax", "chex"} == {each.name for each in needed}
    for each in needed:
        (pin,), (floor,) = found[each.name], each.specifier
        assert (pin.operator, pin.version) == ("==", floor.version)


@pytest.mark.parametrize("needed", ["jax", "jax>=0.10,<1", "jax==0.10"])
def test_a_dependency_without_a_plain_floor_is_refused(needed):
    with pytest.raises(SystemExit, match="expected `name>=version`"):
        of_ci("oldest").oldest([needed])


def test_the_linters_are_the_same_everywhere():
    everything = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    lint = read(".github/workflows/pull-request.yml")["jobs"]["lint"]
    asked = {line["run"] for line in lint["steps"] if "run" in line and not line["run"].startswith("pip ")}
    assert asked == {"ruff check .", "ruff format --check .", "pyright"} <= set(everything)
    hooks = [hook for repo in read(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert [re.match(r"pyright|ruff \w+", hook["entry"]).group() for hook in hooks] == [
        "ruff check", "ruff format", "pyright",
    ]  # fmt: skip
    # Without a version of their own: they are those of the group `lint`, as everywhere.
    assert {hook["language"] for hook in hooks} == {"system"}
    assert {Requirement(tool).name for tool in GROUPS["lint"]} == {"ruff", "pyright"}
    checked = re.compile(hooks[-1]["files"])
    assert all(checked.match(f"{folder}/a.py") for folder in PYPROJECT["tool"]["pyright"]["include"])


def test_pull_requests_test_as_the_readme_says():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"^pip install .* && pytest.*$", readme, re.MULTILINE)
    assert said in commands(read(".github/workflows/pull-request.yml"))


def test_the_docs_are_built_in_one_way():
    build = "mkdocs build --strict -f docs/mkdocs.yml"
    assert any(line.startswith(build) for line in commands(read(".github/workflows/docs.yml")))
    assert build in (ROOT / ".ci/run").read_text(encoding="utf-8")
    hosted = read(".readthedocs.yaml")
    assert hosted["mkdocs"] == {"configuration": "docs/mkdocs.yml", "fail_on_warning": True}
    (installed,) = hosted["python"]["install"]
    assert installed["extra_requirements"] == ["docs"]
    assert hosted["build"]["tools"]["python"] in pythons(read(".github/workflows/docs.yml"))


def test_a_release_waits_for_everything_and_keeps_no_password():
    workflow = read(".github/workflows/release.yml")
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML reads the key `on` as true
    jobs = workflow["jobs"]
    assert jobs["test"]["uses"] == "./.github/workflows/nightly.yml"
    assert "workflow_call" in read(".github/workflows/nightly.yml")[True]
    assert jobs["publish"]["needs"] == ["test", "build"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    assert any("check_release.py dist --tag" in line for line in commands(workflow))


def wheel(folder, without=(), more=()):
    """A wheel of the package as it lies here."""
    file = folder / f"jgd-{jgd.__version__}-py3-none-any.whl"
    names = {str(path.relative_to(ROOT)) for path in (ROOT / "jgd").rglob("*") if "__pycache__" not in path.parts}
    with zipfile.ZipFile(file, "w") as packed:
        for name in sorted((names | set(more)) - set(without)):
            if (ROOT / name).is_file() or name in more:
                packed.writestr(name, "")
    return file


def test_a_release_is_checked(tmp_path):
    complaints = of_ci("check_release").complaints
    version = jgd.__version__
    assert complaints(wheel(tmp_path), f"v{version}") == []
    (found,) = complaints(wheel(tmp_path, without=["jgd/py.typed"]), None)
    assert found.endswith("lacks jgd/py.typed")
    (found,) = complaints(wheel(tmp_path, more=["tests/cases.py"]), None)
    assert "tests/cases.py, which is not in jgd/" in found
    (found,) = complaints(wheel(tmp_path), "v9.9.9")
    assert found.startswith(f"the tag is v9.9.9; expected v{version}")
    other = wheel(tmp_path).rename(tmp_path / "jgd-9.9.9-py3-none-any.whl")
    (found,) = complaints(other, None)
    assert found == f"the newest version in CHANGELOG.md is ['{version}']; expected `## 9.9.9 - YYYY-MM-DD`"


def test_the_form_for_a_rule_asks_each_thing_once():
    form = read(".github/ISSUE_TEMPLATE/rule.yml")
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    names = [field["id"] for field in fields]
    assert len(set(names)) == len(names)
    assert {"paper", "formula", "hyperparameters", "reference"} <= set(names)
    assert all(field["attributes"]["label"] for field in fields)
    assert all(field["validations"] == {"required": True} for field in fields if field["type"] != "checkboxes")


def test_pip_that_knows_groups_is_installed_before_one_is_asked_for():
    for text in (CONTRIBUTING, *(file.read_text(encoding="utf-8") for file in (*WORKFLOWS, ROOT / ".ci/run"))):
        if "--group" in text.split("\n## Where")[0]:
            assert re.search(r"pip install.* -U '?pip", text.split("--group ")[0])
