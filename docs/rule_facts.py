"""Measures every update rule for its page: its arguments, what it keeps for a parameter, its path on two surfaces.

python docs/rule_facts.py FOLDER  # writes facts.json and one NAME.svg a rule; what has not changed is kept

The hook `rule_pages.py` runs it in a process of its own, so that a page is never made from code that was loaded before
the last edit. A rule that cannot be measured or drawn has the reason in its facts.
"""

import ast
import concurrent.futures
import hashlib
import inspect
import json
import math
import multiprocessing
import os
import re
import sys
import tomllib
import warnings
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402
import rule_arguments  # noqa: E402
import rule_pictures  # noqa: E402

import jgd.core  # noqa: E402
import jgd.rules  # noqa: E402
import jgd.transforms  # noqa: E402

SHAPES = {"matrix": (8, 16), "vector": (16,), "kernel": (3, 3, 4, 8), "large matrix": (1024, 4096)}

# Arguments without a default, by name, beside the learning rate.
REQUIRED = {
    "max_norm": 1.0,
    "weight_decay": 0.01,
    "batch_size": 1,
    "every": 4,
    "adv_optimizer": jgd.gradient_descent(0.05),
}
# What wrappers are wrapped around here: `jgd.adam`, and for these another.
INSIDE = {"schedule_free": "gradient_descent"}
# These have a learning rate to choose, whatever its default.
SWEPT = ("schedule_free_sgd", "schedule_free_adamw")
UNDRAWN = dict.fromkeys(("hutchinson", "gauss_newton"), "it measures curvature, and takes no step")


def factories():
    """All public factories of optimizers, by name: those of the rules, and what of the transforms has a family."""
    rules = {name: value for name, value in vars(jgd.rules).items() if _makes_an_optimizer(name, value)}
    placed = {name for members in _placed().values() for name in members}
    wrappers = {
        name: value
        for name, value in vars(jgd.transforms).items()
        if _makes_an_optimizer(name, value) and (wrapped_argument(value) or name in placed)
    }
    return dict(sorted((rules | wrappers).items()))


def _placed():
    """The names of each family, as `families.toml` has them."""
    with (HERE / "families.toml").open("rb") as file:
        return tomllib.load(file)["families"]


def _makes_an_optimizer(name, value):
    if not inspect.isfunction(value) or name.startswith("_"):
        return False
    signature = inspect.signature(value)
    lifts = any(parameter.annotation is jgd.core.Rule for parameter in signature.parameters.values())
    return signature.return_annotation is jgd.Optimizer and not lifts


def wrapped_argument(factory):
    """The name of the first argument, if that is another optimizer."""
    first = next(iter(inspect.signature(factory).parameters.values()), None)
    if first is None or first.kind is first.VAR_POSITIONAL:
        return None
    return first.name if first.annotation == optax.GradientTransformation else None


def rate_argument(factory):
    """The name of the argument that is swept: a learning rate that has no default. Others are meant to stay."""
    for name, parameter in inspect.signature(factory).parameters.items():
        meant = parameter.default is parameter.empty or factory.__name__ in SWEPT
        if meant and name.endswith("learning_rate"):
            return name
    return None


def maker(factory):
    """`make(rate)`: the optimizer with that learning rate and its defaults; a wrapper has another inside."""
    parameters = inspect.signature(factory).parameters
    required = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    arguments = {name: value for name, value in REQUIRED.items() if name in required}
    rate_name, inner_name = rate_argument(factory), wrapped_argument(factory)

    def make(rate):
        rates = {rate_name: rate} if rate_name else {}
        inner = {inner_name: getattr(jgd, inside(factory))(rate)} if inner_name else {}
        return factory(**inner, **rates, **arguments)

    return make


def inside(factory):
    """The name of the optimizer that a wrapper has inside here; None where it is no wrapper."""
    return INSIDE.get(factory.__name__, "adam") if wrapped_argument(factory) else None


def slots_of(make):
    """The slots for each kind of parameter, `[name, shape, dtype]`: shapes are worked out, nothing is computed."""

    def measured(shape):
        state = jax.eval_shape(lambda params: make(0.1).init(params), jax.ShapeDtypeStruct(shape, jnp.float32))
        rows = []
        for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
            text = jax.tree_util.keystr(path, simple=True, separator=".")
            if not re.search(r"(^|\.)(count|hyperparams)(\.|$)", text):
                rows.append([re.sub(r"(^|\.)slots\.", r"\1", text), list(leaf.shape), str(leaf.dtype)])
        return rows

    return {kind: measured(shape) for kind, shape in SHAPES.items()}


def per_parameter(slots):
    """Numbers kept for each parameter, by kind of parameter."""
    return {
        kind: sum(math.prod(shape) for _, shape, _ in rows) / math.prod(SHAPES[kind]) for kind, rows in slots.items()
    }


def arguments_of(factory):
    """`[name, default or None, meaning, keyword-only]` of each argument."""
    meanings = rule_arguments.described(factory)
    rows = []
    for parameter in inspect.signature(factory).parameters.values():
        default = None if parameter.default is parameter.empty else _default_text(parameter.default)
        only = parameter.kind is parameter.KEYWORD_ONLY
        rows.append([parameter.name, default, meanings.get(parameter.name, ""), only])
    return rows


def _default_text(value):
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    return f"{value.__module__}.{name}" if name and callable(value) else repr(value)


def describe(name):
    """What one rule's code says, without running it."""
    factory = factories()[name]
    module = inspect.getmodule(factory)
    return {
        "name": name,
        "public": f"jgd.{name}" if getattr(jgd, name, None) is factory else f"{factory.__module__}.{name}",
        "module": module.__name__,
        "module_doc": inspect.getdoc(module) or "",
        "summary": " ".join((inspect.getdoc(factory) or "").split("\n\n")[0].split()),
        "arguments": arguments_of(factory),
        "source": inspect.getsource(module),
        "inside": inside(factory),
        "problems": {},
    }


def measure(name, folder):
    """The facts of one rule, and its picture in the folder. What goes wrong is a fact as well."""
    facts, factory = describe(name), factories()[name]
    make = maker(factory)
    try:
        facts["slots"] = slots_of(make)
        facts["per_parameter"] = per_parameter(facts["slots"])
    except Exception as error:
        facts["problems"]["slots"] = _one_line(error)
    if name in UNDRAWN:
        facts["problems"]["picture"] = UNDRAWN[name]
        return facts
    try:
        swept = facts["inside"] is not None or rate_argument(factory) is not None
        facts |= {"as_matrix": rule_pictures.looks_at_matrices(make), "swept": swept}
        best = rule_pictures.best_paths(make, (1, 2) if facts["as_matrix"] else (2,))
        (folder / f"{name}.svg").write_text(rule_pictures.draw(best, swept), encoding="utf-8")
        (folder / f"{name}.small.svg").write_text(rule_pictures.draw_small(best), encoding="utf-8")
        facts["ends"] = {surface: [rate, value] for surface, (_, rate, value) in best.items()}
    except Exception as error:
        facts["problems"]["picture"] = _one_line(error)
    return facts


def _one_line(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def fingerprint(factory):
    """A hash of the files that the facts of a rule come from: its own, those of the factories that describe its
    arguments, what these import, and these scripts.
    """
    described_in = [Path(inspect.getfile(inspect.unwrap(other))) for other in rule_arguments.sources(factory)]
    files, waiting = set(HERE.glob("rule_[afp]*.py")), [*described_in, *ROOT.glob("jgd/core/*.py")]
    if inside(factory):
        waiting.append(ROOT / f"jgd/rules/_{inside(factory)}.py")
    while waiting:
        file = waiting.pop()
        if file in files or not file.is_file():
            continue
        files.add(file)
        nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        waiting += [ROOT / (name.replace(".", "/") + ".py") for name in modules if name.startswith("jgd.")]
    digest = hashlib.sha256(f"{jax.__version__} {factory.__name__} {jgd.__name__}".encode())
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def families():
    """Names by family, in the order of `families.toml`; what has no place there comes last."""
    names = factories()
    known = {family: [name for name in members if name in names] for family, members in _placed().items()}
    rest = sorted(set(names) - {name for members in known.values() for name in members})
    return {family: members for family, members in known.items() if members} | ({"Other": rest} if rest else {})


def when_to_use():
    """What `when_to_use.toml` says: for each rule when to use it, and a typical learning rate."""
    with (HERE / "when_to_use.toml").open("rb") as file:
        return tomllib.load(file)


def parts():
    """Public functions of `jgd.rules` that are no factories, by module."""
    known = factories()
    by_module = {}
    for name, value in sorted(vars(jgd.rules).items()):
        if inspect.isfunction(value) and not name.startswith("_") and name not in known:
            by_module.setdefault(value.__module__, []).append(name)
    return by_module


def main():
    """Measures what has changed, in as many processes as there are cores."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    file = folder / "facts.json"
    before = json.loads(file.read_text(encoding="utf-8"))["rules"] if file.exists() else {}
    prints = {name: fingerprint(factory) for name, factory in factories().items()}
    drawn = {picture.stem for picture in folder.glob("*.svg") if (folder / f"{picture.stem}.small.svg").exists()}
    rules = {
        name: facts
        for name, facts in before.items()
        if facts["fingerprint"] == prints.get(name) and (name in drawn or "picture" in facts["problems"])
    }
    missing = [name for name in prints if name not in rules]
    if missing:
        workers = min(len(missing), os.cpu_count() or 1)
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=_quiet) as pool:
            futures = {name: pool.submit(measure, name, folder) for name in missing}
            for name, future in futures.items():
                try:
                    rules[name] = future.result() | {"fingerprint": prints[name]}
                except Exception as error:  # its process died; the next build tries again
                    problem = dict.fromkeys(("slots", "picture"), _one_line(error))
                    rules[name] = describe(name) | {"problems": problem, "fingerprint": ""}
    for picture in folder.glob("*.svg"):
        if picture.stem.removesuffix(".small") not in rules:
            picture.unlink()
    everything = {"rules": rules, "families": families(), "parts": parts(), "shapes": SHAPES, "measured": missing}
    everything |= {"when": when_to_use(), "estimators": sorted(UNDRAWN)}
    file.write_text(json.dumps(everything, indent=1), encoding="utf-8")


def _quiet():
    warnings.simplefilter("ignore")


if __name__ == "__main__":
    main()
