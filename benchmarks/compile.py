"""Building the program of an optimizer step: seconds to trace, lower and compile, of jgd in its layouts and of optax.

    python benchmarks/compile.py                            # everything; a quarter of an hour on two cores
    python benchmarks/compile.py --trees small1000,resnet50 --rules adamw --layout auto,packed
    python benchmarks/compile.py --trees gpt2tiny --rules muon,soap,shampoo --programs 1

Figures are medians over fresh programs, made by turns, with JAX's caches cleared before each and the cache on disk off.
A step is `update` and `apply_updates`. Rules that optax lacks are compared with jgd's AdamW.
"""

import argparse
import statistics
import time
from typing import Any

import contestants as field
import jax
import numpy as np
from timing import Budget, add_common_options, header, pick, print_table, write_json
from trees import TREES, describe

PHASES = ("trace", "lower", "compile", "all three")

Seconds = dict[str, dict[str, float]]


def time_program(name: str, make: field.Make, tree: str) -> dict[str, float]:
    """Seconds of each phase of one fresh program."""
    jax.clear_caches()
    optimizer = make()
    step = field.step_of(optimizer)
    params = field.abstract_params(name, tree)
    state = jax.eval_shape(optimizer.init, params)
    marks = [time.perf_counter()]
    traced = step.trace(params, state, params)
    marks.append(time.perf_counter())
    lowered = traced.lower()
    marks.append(time.perf_counter())
    lowered.compile()
    marks.append(time.perf_counter())
    return dict(zip(PHASES, (*np.diff(marks).tolist(), marks[-1] - marks[0]), strict=True))


def measure(tree: str, rule: str, layouts: list[str], programs: int, seconds: float) -> Seconds:
    """Each contestant's median seconds by phase; once the time is up, no further program is begun."""
    end = time.perf_counter() + seconds
    makers = field.optimizers(rule, layouts)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in makers}
    for i in range(programs):
        if i and time.perf_counter() > end:
            break
        for name, make in makers.items():
            found[name].append(time_program(name, make, tree))
    return {
        name: {phase: statistics.median(row[phase] for row in rows) for phase in PHASES} for name, rows in found.items()
    }


def cells_of(tree: str, rule: str, seconds: Seconds) -> list[dict[str, str]]:
    """The rows of the table: one for each layout."""
    other = field.reference_of(rule)
    rows = []
    for name, times in seconds.items():
        if name == other:
            continue
        cells = {"tree": tree, "rule": rule, "which": name, "against": other}
        cells |= {phase: f"{times[phase] / seconds[other][phase]:.2f}" for phase in PHASES}
        cells |= {"seconds": f"{times['all three']:.2f}", "other's seconds": f"{seconds[other]['all three']:.2f}"}
        rows.append(cells)
    return rows


def main() -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", default=",".join(TREES), help="some of: " + ", ".join(TREES))
    parser.add_argument("--rules", default=",".join(field.RULES), help="some of: " + ", ".join(field.RULES))
    parser.add_argument("--layout", default="auto", help="jgd's layouts")
    parser.add_argument("--programs", type=int, default=3, help="fresh programs of each contestant")
    add_common_options(parser)
    given = parser.parse_args()
    trees = pick(parser, "tree", given.trees, list(TREES))
    rules = pick(parser, "rule", given.rules, list(field.RULES))
    layouts = field.pick_layouts(given.layout)
    jax.config.update("jax_enable_compilation_cache", False)

    print(header())
    print("; ".join(describe(tree) for tree in trees))
    rows: list[dict[str, str]] = []
    figures: list[dict[str, Any]] = []
    for (tree, rule), share in Budget(given.budget).over(field.split_rows(trees, rules, runs=False)):
        seconds = measure(tree, rule, layouts, given.programs, share)
        rows += cells_of(tree, rule, seconds)
        figures.append({"tree": tree, "rule": rule, "seconds": seconds})
        totals = ", ".join(f"{name} {times['all three']:.2f} s" for name, times in seconds.items())
        print(f"  {tree} {rule}: {totals}", flush=True)
    print_table("Ratios of the time to trace, lower and compile", rows)
    write_json(given.json, figures)


if __name__ == "__main__":
    main()
