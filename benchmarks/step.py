"""The optimizer step alone: jgd, optax and, where it is installed, torch, in one process, by turns.

    python benchmarks/step.py                               # everything; some ten minutes on two cores
    python benchmarks/step.py --trees gpt2tiny --rules adamw,sgd --rounds 20

Each contestant is given the same params and gradients. A JAX step is `update` and `apply_updates` under one `jit` that
donates params and state. Step times are medians over rounds in which every contestant makes one step; what a machine
does besides then falls on all alike, and the ratios are what carries over. Where in memory its arrays come to lie can
make a contestant faster or slower by a tenth, so the rounds come in four sessions, each with arrays made afresh, and in
every other one in the opposite order.
Trace, lowering and compile times are medians over fresh programs, by turns as well, with JAX's caches cleared before
each.
"""

import argparse
import datetime
import gc
import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from trees import TREES, describe

import jgd

Make = Callable[[Any], optax.GradientTransformation]

#: How each rule is made of a library that is jgd or optax.
RULES: dict[str, Make] = {
    "sgd": lambda library: library.sgd(0.1, momentum=0.9),
    "adam": lambda library: library.adam(1e-3),
    "adamw": lambda library: library.adamw(1e-3),
    "lion": lambda library: library.lion(1e-4),
    "clip+adamw": lambda library: library.chain(library.clip_by_global_norm(1.0), library.adamw(1e-3)),
    "muon": lambda library: (optax.contrib if library is optax else library).muon(0.02),
}
# On larger trees one step of Muon takes minutes on a CPU.
MUON_TREES = ("gpt2tiny",)


def random_tree(name: str, scale: float, seed: int) -> dict[str, np.ndarray]:
    """Normal numbers in a tree's shapes."""
    rng = np.random.default_rng(seed)
    return {leaf: scale * rng.standard_normal(shape, dtype=np.float32) for leaf, shape in TREES[name]().items()}


def jax_step(library: Any, rule: str) -> tuple[optax.GradientTransformation, Any]:
    """The optimizer and its jitted step, `(params, state, grads) -> (params, state)`."""
    optimizer = RULES[rule](library)

    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(grads, state, params)
        return library.apply_updates(params, updates), state

    return optimizer, jax.jit(step, donate_argnums=(0, 1))


def time_program(library: Any, rule: str, tree: str) -> dict[str, float]:
    """Seconds to trace, lower and compile one fresh step."""
    jax.clear_caches()
    optimizer, step = jax_step(library, rule)
    params = {leaf: jax.ShapeDtypeStruct(shape, jnp.float32) for leaf, shape in TREES[tree]().items()}
    state = jax.eval_shape(optimizer.init, params)
    marks = [time.perf_counter()]
    traced = step.trace(params, state, params)
    marks.append(time.perf_counter())
    lowered = traced.lower()
    marks.append(time.perf_counter())
    lowered.compile()
    marks.append(time.perf_counter())
    trace, lower, build = np.diff(marks)
    return {"trace": trace, "lower": lower, "compile": build, "all three": trace + lower + build}


def jax_contestant(library: Any, rule: str, tree: str) -> Callable[[], None]:
    """A function that makes one step and waits for it."""
    optimizer, step = jax_step(library, rule)
    grads = jax.device_put(random_tree(tree, 0.01, seed=1))
    params = jax.device_put(random_tree(tree, 1.0, seed=0))
    carried = [params, optimizer.init(params)]

    def run() -> None:
        carried[:] = step(*carried, grads)
        jax.block_until_ready(carried)

    return run


def torch_contestants(rule: str, tree: str) -> dict[str, Callable[[], None]]:
    """Torch's own implementations of a rule, where there are torch and the rule."""
    if importlib.util.find_spec("torch") is None or rule not in ("sgd", "adam", "adamw"):
        return {}
    import torch

    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    options = {"sgd": {"lr": 0.1, "momentum": 0.9}}.get(rule, {"lr": 1e-3})
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[rule]

    def contestant(flag: str) -> Callable[[], None]:
        params = [torch.tensor(leaf, device=device) for leaf in random_tree(tree, 1.0, seed=0).values()]
        for param, grad in zip(params, random_tree(tree, 0.01, seed=1).values(), strict=True):
            param.grad = torch.tensor(grad, device=device)
        optimizer = kind(params, **options, **{flag: True})

        def run() -> None:
            optimizer.step()
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    return {f"torch {flag}": contestant(flag) for flag in ("fused", "foreach")}


def time_steps(contestants: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every step of every contestant, by turns and in turning order."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for run in contestants.values():
        for _ in range(3):
            run()
    order = list(contestants)
    for _ in range(rounds):
        order = order[1:] + order[:1]
        for name in order:
            start = time.perf_counter()
            contestants[name]()
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def contestants_of(rule: str, tree: str, *, reverse: bool) -> dict[str, Callable[[], None]]:
    """All contestants with arrays of their own, made in one order or the opposite one."""
    libraries = [("jgd", jgd), ("optax", optax)]
    made = {name: jax_contestant(library, rule, tree) for name, library in (libraries[::-1] if reverse else libraries)}
    return made | torch_contestants(rule, tree)


def measure(tree: str, rule: str, rounds: int, programs: int) -> dict[str, Any]:
    """One row of the tables."""
    build: dict[str, list[dict[str, float]]] = {"jgd": [], "optax": []}
    for _ in range(programs):
        for name, library in (("jgd", jgd), ("optax", optax)):
            build[name].append(time_program(library, rule, tree))
    phases = {
        phase: {name: statistics.median(row[phase] for row in rows) for name, rows in build.items()}
        for phase in ("trace", "lower", "compile", "all three")
    }
    sessions = []
    for session in range(4):
        sessions.append(time_steps(contestants_of(rule, tree, reverse=session % 2 == 1), max(1, rounds // 4)))
        gc.collect()  # these arrays, before the next are made
    medians = {name: statistics.median(time for times in sessions for time in times[name]) for name in sessions[0]}
    ratios = [statistics.median(times["jgd"]) / statistics.median(times["optax"]) for times in sessions]
    return {
        "tree": tree,
        "rule": rule,
        "step": medians,
        "ratio": statistics.geometric_mean(ratios),
        "ratios": ratios,
        "build": phases,
    }


def print_tables(rows: list[dict[str, Any]]) -> None:
    """Two tables in Markdown."""
    print("\n| step: tree | rule | jgd ms | optax ms | jgd / optax | by session | torch fused ms | torch foreach ms |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        step = row["step"]
        torch_times = [f"{step[name]:.3g}" if name in step else "" for name in ("torch fused", "torch foreach")]
        spread = f"{min(row['ratios']):.2f} to {max(row['ratios']):.2f}"
        cells = [row["tree"], row["rule"], f"{step['jgd']:.3g}", f"{step['optax']:.3g}", f"{row['ratio']:.2f}", spread]
        print("| " + " | ".join(cells + torch_times) + " |")
    print("\n| program: tree | rule | trace | lower | compile | all three | jgd s | optax s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        ratios = [f"{times['jgd'] / times['optax']:.2f}" for times in row["build"].values()]
        total = [f"{row['build']['all three'][name]:.2f}" for name in ("jgd", "optax")]
        print("| " + " | ".join([row["tree"], row["rule"], *ratios, *total]) + " |")


def header() -> str:
    """When, on what, and of which versions."""
    device = jax.devices()[0].device_kind
    return (
        f"{datetime.date.today()}, {device}, {os.cpu_count()} cores, {platform.machine()}; python"
        f" {platform.python_version()}, jax {jax.__version__}, optax {optax.__version__}, jgd {jgd.__version__}"
    )


def main() -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description="The optimizer step: jgd against optax and torch.")
    parser.add_argument("--trees", default=",".join(TREES), help="some of: " + ", ".join(TREES))
    parser.add_argument("--rules", default=",".join(RULES), help="some of: " + ", ".join(RULES))
    parser.add_argument("--rounds", type=int, default=40, help="steps of each contestant")
    parser.add_argument("--programs", type=int, default=3, help="fresh programs of each library")
    parser.add_argument("--json", help="a file for all figures")
    given = parser.parse_args()
    for kind, names, known in (("tree", given.trees, TREES), ("rule", given.rules, RULES)):
        for name in names.split(","):
            if name not in known:
                parser.error(f"no {kind} {name!r}; there are {', '.join(known)}")

    print(header())
    print("; ".join(describe(tree) for tree in given.trees.split(",")))
    rows = []
    for tree in given.trees.split(","):
        for rule in given.rules.split(","):
            if rule == "muon" and tree not in MUON_TREES and jax.default_backend() == "cpu":
                continue
            rows.append(measure(tree, rule, given.rounds, given.programs))
            print(f"  {tree} {rule}: {rows[-1]['ratio']:.2f}", flush=True)
    print_tables(rows)
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump({"header": header(), "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
