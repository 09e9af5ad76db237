"""`jgd.minimize` on test problems, next to scipy, optimistix and jaxopt: what is solved, at what cost.

    python benchmarks/minimize.py                                # 15 minutes; it says what there was no time for
    python benchmarks/minimize.py --budget 5400 --json all.json  # everything, on two cores
    python benchmarks/minimize.py --sets mgh,classics --dtypes float64
    python benchmarks/minimize.py --sets sif --methods jgd,scipy --largest 100 --json figures.json
    python benchmarks/minimize.py --sets mgh --methods "jgd lbfgs,scipy L-BFGS-B" --details
    python benchmarks/minimize.py --sets mgh,classics,sif,bounds --on-host       # evaluations alone, in a few minutes

The sets are the 35 problems of More, Garbow and Hillstrom (`mgh`), further classics (`classics`), CUTEst's problems of
up to 1,000 variables as sif2jax has them (`sif`), those with bounds (`bounds`), and those of thousands of variables at
the size `--largest` (`sized`). All start from their standard starts.

Every method is asked for a gradient whose largest entry is 1e-6, in float32 1e-4, within `--steps` steps; optimistix,
which does not look at the gradient, for changes of a hundredth of that. A problem is *solved* where the value is within
1e-6 (float32: 1e-4) of the smallest known one, or of another local minimum that the paper lists, times the smaller of 1
or that value and of the decrease from the start; or where the gradient is small: its largest entry at most ten times
what was asked for and a hundredth of that at the start. The smallest known value is the published one, for sif2jax's
the best that any method finds here. Points are judged in float64.

On CUTEst's problems only the methods in `minimizers.FEW` take part, unless others are asked for.

Problems of one size share one compiled program. Times are of the second run of each, so without compilation. With
`--on-host` one program of each solver serves all problems, see `host_functions.py`: calls are counted, not timed.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import minimizers as field
import numpy as np
from host_functions import groups_on_host, padded_size, together_on_host
from timing import Budget, add_common_options, header, pick, print_table, write_json

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "minimize"))
from problems import classics, mgh, sif

TOL = {"float64": 1e-6, "float32": 1e-4}
SHARE = {"float64": 1e-6, "float32": 1e-4}
#: So many functions share a program at most; with more, compiling takes longer than it saves.
BRANCHES = 16
#: Methods that hold a matrix are not run on more variables.
DENSE_LIMIT = 200
#: Milliseconds of a first run after which there is no second.
LONG = 8000.0
#: The sets of sif2jax, and what they are called there.
CUTEST = {"sif": "unconstrained", "bounds": "bounded", "sized": "sized"}
SETS = ("mgh", "classics", *CUTEST)


def problems_of(name: str, largest: int) -> list[Any]:
    """The problems of a set."""
    if name in CUTEST:
        return list(sif.problems(CUTEST[name], largest).values())
    return [p for p in {"mgh": mgh, "classics": classics}[name].PROBLEMS.values() if p.size <= largest]


def groups_of(problems: Sequence[Any]) -> list[list[Any]]:
    """The problems by size, and those with residuals apart from the others."""
    kinds: dict[tuple[int, bool], list[Any]] = {}
    for problem in problems:
        kinds.setdefault((problem.size, problem.residuals is not None), []).append(problem)
    return [group[i : i + BRANCHES] for _, group in sorted(kinds.items()) for i in range(0, len(group), BRANCHES)]


def together(problems: Sequence[Any]) -> field.Group:
    """The functions of a group as one function of a point and an index."""

    def fun(x: Any, i: Any) -> Any:
        return jax.lax.switch(i, [problem.fun for problem in problems], x)

    value_and_grad = jax.jit(jax.value_and_grad(fun))
    if problems[0].residuals is None:
        return field.Group(fun, None, value_and_grad)
    x = jax.ShapeDtypeStruct((problems[0].size,), jnp.zeros(()).dtype)
    rows = max(jax.eval_shape(problem.residuals, x).size for problem in problems)

    def padded(residuals: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def found(x: Any) -> Any:
            r = residuals(x)
            return jnp.pad(r, (0, rows - r.size))

        return found

    def residuals(x: Any, i: Any) -> Any:
        return jax.lax.switch(i, [padded(problem.residuals) for problem in problems], x)

    return field.Group(fun, residuals, value_and_grad)


def contestants(problems: Sequence[Any], wanted: Callable[[str], bool], on_host: bool) -> dict[str, field.Make]:
    """The methods that can solve a group's problems."""
    bounded, squares = problems[0].bounds is not None, problems[0].residuals is not None and not on_host
    found = field.BOUNDED if bounded else field.GENERAL | (field.SQUARES if squares else {})
    too_many = problems[-1].size > DENSE_LIMIT
    return {
        name: make
        for name, make in found.items()
        if wanted(name) and not (field.is_dense(name) and too_many) and not (on_host and field.has_products(name))
    }


def chooser(parts: Sequence[str]) -> Callable[[str], bool]:
    """Whether a method's name has one of the parts, or there are none."""
    return lambda name: not parts or any(part in name for part in parts)


def run_one(solver: field.Solver, problem: Any, i: int, dtype: str) -> dict[str, Any]:
    """The second of two runs: where it ended, after how many evaluations and milliseconds."""
    start = problem.start.astype(dtype)
    bounds = None if problem.bounds is None else tuple(bound.astype(dtype) for bound in problem.bounds)
    times = []
    for _ in range(2):
        began = time.perf_counter()
        found = solver(start, i, bounds)
        times.append(1e3 * (time.perf_counter() - began))
        if times[0] > LONG:
            break  # what it took to compile is little of it
    row = found._asdict() | {"x": np.asarray(found.x, np.float64), "ms": times[-1], "first ms": times[0]}
    return row | {"problem": problem.name, "dtype": dtype}


def run_on_host(solver: field.Solver, calls: Any, problem: Any, i: int, dtype: str) -> dict[str, Any]:
    """One run of a padded problem: where it ended, and how often its function was called."""
    more = (0, padded_size(problem.size) - problem.size)
    bounds = None
    if problem.bounds is not None:
        lower, upper = problem.bounds
        bounds = (
            np.pad(lower, more, constant_values=-1).astype(dtype),
            np.pad(upper, more, constant_values=1).astype(dtype),
        )
    calls.count = 0
    found = solver(np.pad(problem.start, more).astype(dtype), i, bounds)
    x = np.asarray(found.x, np.float64)[: problem.size]
    row = found._asdict() | {"x": x, "values": calls.count, "gradients": calls.count, "ms": float("nan")}
    return row | {"problem": problem.name, "dtype": dtype}


def solve_group(
    problems: Sequence[Any], dtype: str, wanted: Callable[[str], bool], options: Any, missing: dict[str, str]
) -> list[dict[str, Any]]:
    """A row for each method and problem."""
    rows = []
    with jax.enable_x64(dtype == "float64"):
        group, calls = together_on_host(problems) if options.on_host else (together(problems), None)
        for name, make in contestants(problems, wanted, options.on_host).items():
            try:
                solver = make(group, field.Settings(TOL[dtype], options.steps))
                if options.on_host:
                    found = [run_on_host(solver, calls, problem, i, dtype) for i, problem in enumerate(problems)]
                else:
                    found = [run_one(solver, problem, i, dtype) for i, problem in enumerate(problems)]
            except (ImportError, AttributeError, KeyError, TypeError, ValueError) as error:
                missing.setdefault(f"{type(error).__name__}: {error}".splitlines()[0], f"{name} on {problems[0].name}")
            else:
                rows += [{"method": name} | row for row in found]
    return rows


def judge(problems: Sequence[Any], rows: list[dict[str, Any]], on_host: bool) -> None:
    """Adds to each row its value, gradient norm and whether it is solved, all in float64."""
    group = together_on_host(problems)[0] if on_host else together(problems)

    def at(problem: Any, x: np.ndarray, i: int) -> tuple[float, float]:
        value, gradient = group.value_and_grad(x, i)
        gradient = np.asarray(gradient)
        if problem.bounds is not None:
            gradient = x - np.clip(x - gradient, *problem.bounds)
        return float(value), float(np.max(np.abs(gradient)))

    for i, problem in enumerate(problems):
        mine = [row for row in rows if row["problem"] == problem.name]
        first_value, first_norm = at(problem, problem.start, i)
        for row in mine:
            x = row.pop("x")
            x = x if problem.bounds is None else np.clip(x, *problem.bounds)
            row["value"], row["grad_norm"] = at(problem, x, i)
        known = [row["value"] for row in mine if np.isfinite(row["value"])]
        best = min(known + [first_value]) if problem.minimum is None else problem.minimum
        for row in mine:
            row["best"] = best
            row["unbounded"] = bool(best < -1e10 * max(1.0, abs(first_value)))
            near = SHARE[row["dtype"]] * min(1.0 + abs(best), first_value - best)
            lowest = any(row["value"] - value <= near for value in [best] if np.isfinite(row["value"]))
            other = any(abs(row["value"] - value) <= near + 1e-4 * abs(value) for value in problem.others)
            small = row["grad_norm"] <= min(10 * TOL[row["dtype"]], 1e-2 * first_norm)
            row["lowest"], row["solved"] = lowest, lowest or other or small


def table(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """A line for each method: medians over what it solves, ratios over what it and jgd's first method solve."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    solved = {(row["method"], row["problem"]): row for row in rows if row["solved"]}

    def median(method: str, key: str) -> str:
        found = [row[key] for (name, _), row in solved.items() if name == method and np.isfinite(row[key])]
        return f"{statistics.median(found):.3g}" if found else ""

    def ratio(method: str, key: str) -> str:
        both = [
            (row, solved[methods[0], p]) for (m, p), row in solved.items() if m == method and (methods[0], p) in solved
        ]
        found = [row[key] / base[key] for row, base in both if np.isfinite(row[key]) and base[key] > 0]
        return f"{statistics.median(found):.2f}" if found else ""

    return [
        {
            "method": method,
            "problems": str(len(mine := [row for row in rows if row["method"] == method])),
            "solved": str(sum(row["solved"] for row in mine)),
            "lowest": str(sum(row["lowest"] for row in mine)),
            "values": median(method, "values"),
            "gradients": median(method, "gradients"),
            "products": median(method, "products"),
            f"values / {methods[0]}": ratio(method, "values"),
            "ms": median(method, "ms"),
            f"ms / {methods[0]}": ratio(method, "ms"),
        }
        for method in methods
    ]


def print_unsolved(rows: Sequence[dict[str, Any]], everything: bool) -> None:
    """What jgd does not solve though another method does, or every failure."""
    for row in rows:
        others = [r["method"] for r in rows if r["problem"] == row["problem"] and r["solved"]]
        if row["solved"] or not (everything or (row["method"].startswith("jgd") and others)):
            continue
        print(
            f"- {row['method']} on {row['problem']}: {row['status']} after {row['values']:.0f} values, value "
            f"{row['value']:.6g}, best {row['best']:.6g}, gradient {row['grad_norm']:.1e}; solved by {len(others)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="mgh,classics,sif,bounds", help=f"of {', '.join(SETS)}")
    parser.add_argument("--dtypes", default="float64,float32")
    parser.add_argument("--methods", default="", help="parts of names: what has one of them in its name takes part")
    parser.add_argument("--problems", default="", help="names of problems; all if empty")
    parser.add_argument("--largest", type=int, default=1000, help="how many variables a problem has at most")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--on-host", action="store_true", help="one program for all problems: calls, no times")
    parser.add_argument("--details", action="store_true", help="every failure, not only jgd's")
    add_common_options(parser)
    parser.set_defaults(budget=900.0)
    options = parser.parse_args()
    sets = pick(parser, "set", options.sets, SETS)
    dtypes = pick(parser, "data type", options.dtypes, tuple(TOL))
    parts, names = (list(filter(None, text.split(","))) for text in (options.methods, options.problems))
    jax.config.update("jax_enable_x64", True)
    print(header().removesuffix("; float32"), flush=True)

    budget = Budget(options.budget)
    missing: dict[str, str] = {}
    figures = []
    for (name,), _ in budget.over([(name,) for name in sets]):
        if name in CUTEST and not sif.is_installed():
            print(f"\n{name}: sif2jax is not installed")
            continue
        problems = [p for p in problems_of(name, options.largest) if not names or p.name in names]
        wanted = chooser(parts or (field.FEW if name in CUTEST else []))
        rows: list[dict[str, Any]] = []
        late = 0
        for group in groups_on_host(problems) if options.on_host else groups_of(problems):
            if budget.share(1) <= 0:
                late += len(group)
                continue
            found = []
            for dtype in dtypes:
                found += solve_group(group, dtype, wanted, options, missing)
            judge(group, found, options.on_host)
            rows += [row | {"set": name, "size": group[-1].size} for row in found]
            solved = sum(row["solved"] for row in found)
            print(f"{name}: {len(group)} of {group[-1].size} variables, {solved} of {len(found)} runs", file=sys.stderr)
        figures += rows
        if late:
            print(f"\nNo time for {late} problems of {name}")
        report(name, rows, dtypes, options.details)
        sys.stdout.flush()
    for why, where in missing.items():
        print(f"\n{where} and other problems of that size: {why}")
    write_json(options.json, figures)


def report(name: str, rows: Sequence[dict[str, Any]], dtypes: Sequence[str], details: bool) -> None:
    """The tables of a set: of all methods, and of those for sums of squares on their problems."""
    endless = sorted({row["problem"] for row in rows if row["unbounded"]})
    if endless:
        print(f"\n{name}: unbounded below, left out: {', '.join(endless)}")
    for dtype in dtypes:
        mine = [row for row in rows if row["dtype"] == dtype and row["problem"] not in endless]
        squares = [row for row in mine if row["method"] in field.SQUARES]
        print_table(f"{name}, {dtype}", table([row for row in mine if row["method"] not in field.SQUARES]))
        print_table(f"{name}, {dtype}, sums of squares", table(squares))
        print()
        print_unsolved(mine, details)


if __name__ == "__main__":
    main()
