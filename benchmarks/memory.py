"""Memory: what the program of a step takes, by the compiler's own account, and what each rule's state takes.

    python benchmarks/memory.py                             # everything; some minutes on two cores
    python benchmarks/memory.py --trees resnet50 --rules adamw,clip+adamw --layout auto,packed
    python benchmarks/memory.py --trees '' --state-tree gpt2s

Nothing is run and no array is made. A step is `update` and `apply_updates` under one `jit` that donates params and
state. Its arguments are params, state and gradients, and what it returns lies in the memory of the first two, as far as
the compiler can place it there. The peak is arguments, results and temporary arrays, with what is shared counted once.
"""

import argparse
import functools
from typing import Any

import contestants as field
import jax
import optax
from timing import Budget, add_common_options, header, pick, print_table, write_json
from trees import TREES, describe, size

import jgd

#: Rules whose states are counted, where optax has them, and what they are given beside a learning rate.
STATE_RULES: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (optax, {"momentum": 0.9}),
    "adam": (optax, {}),
    "adamw": (optax, {}),
    "lion": (optax, {}),
    "adafactor": (optax, {}),
    "sm3": (optax, {}),
    "adam_mini": (None, {}),
    "muon": (optax.contrib, {}),
    "soap": (None, {}),
    "shampoo": (None, {}),
}
STATE_DTYPES = ("float32", "bfloat16", "int8")


def program_bytes(name: str, make: field.Make, tree: str) -> dict[str, int] | None:
    """Bytes by kind of one compiled step; None where the compiler of this platform gives no account."""
    optimizer = make()
    params = field.abstract_params(name, tree)
    state = jax.eval_shape(optimizer.init, params)
    found = field.step_of(optimizer).trace(params, state, params).lower().compile().memory_analysis()
    if found is None:
        return None
    kinds = {
        "arguments": found.argument_size_in_bytes,
        "results": found.output_size_in_bytes,
        "shared": found.alias_size_in_bytes,
        "temporary": found.temp_size_in_bytes,
    }
    return kinds | {"peak": kinds["arguments"] + kinds["results"] - kinds["shared"] + kinds["temporary"]}


def program_cells(tree: str, rule: str, found: dict[str, dict[str, int]]) -> list[dict[str, str]]:
    """The rows of the table of programs: one for each contestant, each beside its peer."""
    other = found[field.reference_of(rule)]
    rows = []
    for name, kinds in found.items():
        cells = {"tree": tree, "rule": rule, "which": name}
        cells |= {f"{kind}, MB": f"{count / 1e6:.2f}" for kind, count in kinds.items()}
        cells["temporary bytes a parameter"] = f"{kinds['temporary'] / size(tree):.2f}"
        cells["peak / peer's"] = f"{kinds['peak'] / other['peak']:.3f}"
        rows.append(cells)
    return rows


def state_bytes(optimizer: optax.GradientTransformation, tree: str) -> float:
    """Bytes a parameter of all arrays in the state, hyperparameters and count among them."""
    params = field.abstract_params("", tree)
    return jgd.state_bytes(jax.eval_shape(optimizer.init, params), params).per_parameter or 0.0


def state_cells(tree: str) -> list[dict[str, str]]:
    """The rows of the table of states; a line says what this version of jgd refuses."""
    rows = []
    refused: dict[str, list[str]] = {}
    for rule, (peer, options) in STATE_RULES.items():
        make = functools.partial(getattr(jgd, rule), 1e-3, **options)
        cells = {"tree": tree, "rule": rule, "default": f"{state_bytes(make(), tree):.3f}"}
        for dtype in STATE_DTYPES:
            try:
                found = state_bytes(make(state_dtype=dtype), tree)
            except (TypeError, ValueError) as error:
                refused.setdefault(f"state_dtype={dtype!r}: {error}", []).append(rule)
            else:
                cells[dtype] = f"{found:.3f}"
        if peer is not None:
            cells["optax"] = f"{state_bytes(getattr(peer, rule)(1e-3, **options), tree):.3f}"
        rows.append(cells)
    for why, names in refused.items():
        print(f"left out, for {', '.join(names)}: {why}")
    return rows


def main() -> None:
    """Counts what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", default="gpt2tiny,resnet50,gpt2s", help="for programs, some of: " + ", ".join(TREES))
    parser.add_argument("--rules", default="sgd,adamw,lion,clip+adamw,muon", help="of: " + ", ".join(field.RULES))
    parser.add_argument("--layout", default="auto", help="jgd's layouts")
    parser.add_argument("--state-tree", default="gpt2s", help="the tree for which states are counted; '' for none")
    add_common_options(parser)
    given = parser.parse_args()
    trees = pick(parser, "tree", given.trees, list(TREES)) if given.trees else []
    rules = pick(parser, "rule", given.rules, list(field.RULES))
    layouts = field.pick_layouts(given.layout)
    states = pick(parser, "tree", given.state_tree, list(TREES)) if given.state_tree else []

    print(header())
    print("; ".join(describe(tree) for tree in dict.fromkeys((*trees, *states))))
    rows: list[dict[str, str]] = []
    figures: list[dict[str, Any]] = []
    for (tree, rule), _ in Budget(given.budget).over(field.split_rows(trees, rules, runs=False)):
        found = {name: program_bytes(name, make, tree) for name, make in field.optimizers(rule, layouts).items()}
        known = {name: kinds for name, kinds in found.items() if kinds is not None}
        if len(known) < len(found):
            print(f"left out: {tree} {rule}, of which the compiler gives no account")
            continue
        rows += program_cells(tree, rule, known)
        figures.append({"tree": tree, "rule": rule, "bytes": known})
        print(f"  {tree} {rule}: " + ", ".join(f"{name} {b['peak'] / 1e6:.1f} MB" for name, b in known.items()))
    state_rows = [cells for tree in states for cells in state_cells(tree)]
    print_table("The program of a step", rows)
    print_table("The state, bytes a parameter", state_rows)
    write_json(given.json, [*figures, *state_rows])


if __name__ == "__main__":
    main()
