"""The house can be read: no circles, no back doors, no dead or endless functions, no name that leads nowhere.

Each check is a function of source text; beside the one on the library stands a planted violation that it finds.
"""

import ast
import functools
import graphlib
import importlib
import inspect
import re
from collections import Counter
from pathlib import Path
from typing import Any

from test_structure import FILES, MAY_IMPORT, PACKAGE

import jgd
import jgd.compat.optax
import jgd.compat.torch
import jgd.testing
from jgd.core import PyTree

ROOT = PACKAGE.parent
SOURCES = {file.relative_to(ROOT): file.read_text(encoding="utf-8") for file in FILES}
PAGES = {file: file.read_text(encoding="utf-8") for file in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]}
LONGEST = 60  # lines of code of a function; its docstring, comments and empty lines are not counted


def module_name(path):
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source):
    """Modules and names that a file imports, wherever it does so."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module, alias.name) for alias in node.names)


def circle(sources):
    """Files that import each other, in their order; None if there are none. A package's face counts as a file."""
    modules = {module_name(path): source for path, source in sources.items()}

    def behind(source):
        full = ((found, f"{found}.{last}") for found, last in imports_of(source))
        return {name if name in modules else found for found, name in full}

    graph = {module: behind(source) & modules.keys() - {module} for module, source in modules.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


def test_no_circle_of_files():
    assert circle(SOURCES) is None


def test_a_circle_of_files_is_found_behind_type_checking_too():
    hidden = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from jgd.a import one\n"
    assert circle({Path("jgd/a.py"): "from jgd.b import two", Path("jgd/b.py"): hidden})
    assert circle({Path("jgd/a.py"): "from jgd.b import two", Path("jgd/b.py"): "import jax"}) is None


def back_doors(path, source):
    """Private modules and names of other packages of jgd's that a file imports."""
    own = path.parts[1] if len(path.parts) > 2 else None
    for module, name in imports_of(source):
        parts = module.split(".")
        private = any(part.startswith("_") for part in [*parts[1:], name or ""])
        other = parts[0] == "jgd" and len(parts) > 1 and parts[1] != own
        beside = own is None and len(parts) == 2
        if other and private and not beside:
            yield f"{path} imports {module}.{name}"


def test_no_private_name_is_imported_across_packages():
    assert [found for path, source in SOURCES.items() for found in back_doors(path, source)] == []


def test_a_private_name_across_packages_is_found():
    assert list(back_doors(Path("jgd/train/_a.py"), "from jgd.core._lift import lift"))
    assert list(back_doors(Path("jgd/train/_a.py"), "def f():\n    from jgd.core import _lift"))
    assert not list(back_doors(Path("jgd/core/_a.py"), "from jgd.core._lift import lift"))


def code_of(node, lines):
    """How many lines of the body of a function are code."""
    first = node.body[0]
    text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    start = first.end_lineno + 1 if text else first.lineno
    body = [lines[i - 1].strip() for i in range(start, node.end_lineno + 1)]
    return sum(line != "" and not line.startswith("#") for line in body)


def functions(source):
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]


def endless(source):
    """Functions of more lines of code than one can hold in mind."""
    counted = [(node.name, code_of(node, source.splitlines())) for node in functions(source)]
    return [(name, count) for name, count in counted if count > LONGEST]


def test_no_function_is_endless():
    assert {str(path): found for path, source in SOURCES.items() if (found := endless(source))} == {}


def test_an_endless_function_is_found():
    assert endless("def f():\n" + (LONGEST + 1) * "    g()\n") == [("f", LONGEST + 1)]
    assert endless('def f():\n    """Text.\n' + LONGEST * "    more\n" + '    """\n    g()\n') == []


def without_caller(sources):
    """Functions that no file names again, and that are neither public nor called by name through a protocol."""
    words = Counter(word for text in sources.values() for word in re.findall(r"\w+", text))
    private = {path for path in sources if any(part.startswith("_") and part != "__init__.py" for part in path.parts)}
    defined = Counter(node.name for path in private for node in functions(sources[path]))
    return sorted(name for name, count in defined.items() if words[name] <= count and not name.startswith("__"))


#: Methods that their users call, or JAX.
CALLED_FROM_OUTSIDE = {"has_updated", "retune", "tree_flatten", "tree_flatten_with_keys", "tree_unflatten"}


def test_no_function_is_without_a_caller():
    assert set(without_caller(SOURCES)) <= CALLED_FROM_OUTSIDE


def test_a_function_without_a_caller_is_found():
    caller = "from jgd._b import used\nused()"
    sources = {Path("jgd/_b.py"): "def used(): ...\ndef unused(): ...", Path("jgd/_a.py"): caller}
    assert without_caller(sources) == ["unused"]


def is_there(name):
    """Whether a dotted name can be reached from `import jgd`, or imported."""
    found, parts = jgd, name.split(".")
    for count, part in enumerate(parts[1:], 2):
        if part in getattr(found, "__annotations__", {}):
            return True  # a field
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = importlib.import_module(".".join(parts[:count]))
            except ImportError:
                return False
    return True


def dotted_names(text):
    return set(re.findall(r"(?<![\w./-])jgd(?:\.[A-Za-z_]\w*)+", text))


def docstrings(source):
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return "\n".join(ast.get_docstring(node) or "" for node in ast.walk(ast.parse(source)) if isinstance(node, owners))


#: The printed form of a rule that the page writes itself.
OF_THE_READERS_OWN = {"jgd.normalized"}


def test_every_dotted_name_resolves():
    texts = PAGES | {path: docstrings(source) for path, source in SOURCES.items()}
    named = {(name, str(path)) for path, text in texts.items() for name in dotted_names(text) - OF_THE_READERS_OWN}
    assert sorted(found for found in named if not is_there(found[0])) == []


def test_a_dotted_name_that_is_not_there_is_found():
    assert dotted_names("`jgd.minimize.explain` and jgd.adam") == {"jgd.minimize.explain", "jgd.adam"}
    assert not is_there("jgd.minimize.explain")
    assert is_there("jgd.minimizers.explain")
    assert is_there("jgd.TrainState.params")


PRIVATE_IMPORT = re.compile(r"^\s*(?:>>>|\.\.\.) .*\b(?:from|import) jgd(?:\.\w+)*\._\w+", re.MULTILINE)


def test_no_example_imports_a_private_module():
    assert [found for text in (PAGES | SOURCES).values() for found in PRIVATE_IMPORT.findall(text)] == []


def test_a_private_import_in_an_example_is_found():
    assert PRIVATE_IMPORT.findall("    >>> from jgd.rules._adam import adam\n")
    assert not PRIVATE_IMPORT.findall("    >>> from jgd.minimizers import LBFGS\n    >>> import jgd\n")


def layers(page):
    """Who may import whom, as a page's table says."""
    rows = re.findall(r"^\| `jgd/(\w+)/` \|.*\| ([^|]*) \|$", page, re.MULTILINE)
    return {folder: set(re.findall(r"\w+", names)) for folder, names in rows}


def test_the_page_on_the_design_says_who_may_import_whom():
    assert layers(PAGES[ROOT / "docs/pages/design.md"]) == MAY_IMPORT


def test_a_layer_that_the_page_does_not_say_is_found():
    assert layers("| `jgd/core/` | the base |  |\n| `jgd/train/` | training | core, rules |\n") != MAY_IMPORT


#: Parameters of public functions that take anything at all, and why. A tree of any kind is `PyTree`, and has a name.
TAKE_ANYTHING = {
    "value": "what is checked, shown or put in the place of another",
    "leaf": "what is checked for being an array",
    "loss": "what a user's function returned, to be checked",
    "grad": "what a caller gave for a gradient, to be checked",
    "param": "what a caller gave for a param, to be checked",
    "function": "what is checked for being callable",
    "pattern": "what is checked for being a pattern",
    "key": "what is checked for being a key",
    "choices": "a Literal, for which Python has no type",
    "annotation": "a type, a union or an alias, for which Python has no type",
    "static": "what JAX hands back of a tree's structure",
    "treedef": "JAX exports its type as a variable only",
    "equation": "an equation of a jaxpr: JAX does not export its type",
    "at": "where a value was found, for a message",
    "position": "whatever a caller wants back with a state",
    "stored": "what a loaded state holds, to be checked",
    "state_dict": "a file's content, to be checked",
    "w": "the weight of a probed operation: an array, a pair, or none",
}


def public_functions():
    """Functions and methods that can be reached by public names, without their doors."""
    modules = [jgd, *(value for name, value in vars(jgd).items() if inspect.ismodule(value) and name[0] != "_")]
    modules += [
        jgd.core,
        jgd.transforms,
        jgd.rules,
        jgd.train,
        jgd.testing,
        jgd.gradients.probes,
        jgd.compat.optax,
        jgd.compat.torch,
    ]
    reached = {}
    for module in modules:
        for name, value in vars(module).items():
            if name.startswith("_") or not (getattr(value, "__module__", None) or "").startswith("jgd"):
                continue
            if inspect.isfunction(value):
                reached[id(value)] = value
            elif inspect.isclass(value):
                methods = [getattr(method, "__func__", method) for method in vars(value).values()]
                named = ("__init__", "__call__")
                reached |= {id(method): method for method in methods if inspect.isfunction(method)
                            and (method.__name__ in named or not method.__name__.startswith("_"))}  # fmt: skip
    return list(reached.values())


def anything(function):
    """Names of parameters that are annotated `Any`; those of `*args` and `**kwargs` are not counted."""
    parameters = inspect.signature(function).parameters.values()
    return [
        each.name
        for each in parameters
        if each.annotation is Any and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]


def test_few_parameters_take_anything_and_each_has_a_reason():
    functions = public_functions()
    names = [name for function in functions for name in anything(function)]
    assert len(functions) > 400
    assert set(names) - TAKE_ANYTHING.keys() == set()
    assert len(names) <= 40


def test_a_parameter_that_takes_anything_is_found():
    def door(given: Any, tree: PyTree, *more: Any, **rest: Any): ...

    assert anything(door) == ["given"]
    assert anything(functools.wraps(door)(lambda *args: None)) == ["given"]
