"""The optimizer step alone: jgd in its layouts, optax, torch where it is installed, and the floor of memory bandwidth.

    python benchmarks/step.py                               # everything; half an hour on two cores
    python benchmarks/step.py --trees gpt2tiny --rules adamw,sgd --rounds 20
    python benchmarks/step.py --layout auto,packed,stacked,kept --trees small1000,gpt2tiny --rules adamw
    python benchmarks/step.py --trees gpt2s,yolo26n,small1000 --rules adamw,clip+adamw --budget 540     # on a GPU

Each contestant is given the same params and gradients. A JAX step is `update` and `apply_updates` under one `jit` that
donates params and state. Step times are medians over rounds in which every contestant has one turn; `timing.py` says
how. On a GPU a turn is ten steps, of which only the last is waited for, as in training; on a CPU it is one.

The floor is the time in which the bytes that the rule must move at least pass through memory: for AdamW 28 a
parameter, its reads of param, gradient and two moments, and its writes of all but the gradient. The bandwidth is that
of a compiled kernel that reads and writes one array as large as all of these together, by turns with the rest.

`--layout kept` is no layout of an update: it has the small leaves packed from step to step, by `jgd.pack`, gradients
too.

Rules that optax lacks are compared with jgd's AdamW; their turn is twenty steps, which covers their refreshes.

For trees named by `--scan-trees` there are also steps inside a `jax.lax.scan` over many, with gradients that differ
from step to step: of `update` and `apply_updates` alone, and of a whole training step, `jgd.scan_steps`, whose loss is
half the squared norm of the params. Both are compared with the step at the jit boundary.
"""

import argparse
from collections.abc import Callable
from typing import Any

import contestants as field
import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import (
    Budget,
    Contestant,
    Ratio,
    Times,
    add_common_options,
    has_torch,
    header,
    in_sessions,
    medians,
    pick,
    print_table,
    ratio,
    torch_device,
    write_json,
)
from trees import TREES, describe, size

import jgd

#: For each rule the bytes a parameter that a step must move, and how many arrays of the params' size take part.
BYTES = {"sgd": (20, 3), "adam": (28, 4), "adamw": (28, 4), "lion": (20, 3), "clip+adamw": (32, 4)}
TORCH_FLAGS = ("fused", "foreach")

Program = Callable[..., Any]


def random_tree(name: str, scale: float, seed: int) -> dict[str, np.ndarray]:
    """Normal numbers in a tree's shapes."""
    rng = np.random.default_rng(seed)
    return {leaf: scale * rng.standard_normal(shape, dtype=np.float32) for leaf, shape in TREES[name]().items()}


def scan_of(optimizer: optax.GradientTransformation) -> Program:
    """Many steps as one program, `(params, state, grads, scales) -> (params, state)`."""
    apply_updates = field.apply_of(optimizer)

    def scan(params: Any, state: Any, grads: Any, scales: jax.Array) -> tuple[Any, Any]:
        def body(carry: tuple[Any, Any], scale: jax.Array) -> tuple[tuple[Any, Any], None]:
            params, state = carry
            # Were the gradients the same each time, what is done to them alone could move out of the loop.
            updates, state = optimizer.update(jax.tree.map(lambda g: scale * g, grads), state, params)
            return (apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, state), scales)[0]

    return jax.jit(scan, donate_argnums=(0, 1))


def training_scan_of(optimizer: optax.GradientTransformation) -> Program:
    """Many training steps as one program, `(state, scales) -> (state, metrics)`."""

    def loss_fn(params: Any, scale: jax.Array) -> jax.Array:
        return 0.5 * scale * sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(params))

    return jgd.scan_steps(jgd.make_step(loss_fn, optimizer))


def running(program: Program, carried: list[Any], *rest: Any, calls: int = 1, steps: int = 1) -> Contestant:
    """A contestant that hands `carried` on from call to call of a program, and waits after the last of them."""

    def run(times: int) -> None:
        for _ in range(times):
            carried[:] = program(*carried, *rest)
        jax.block_until_ready(carried)

    return Contestant(run, calls, steps)


class Row:
    """One tree and one rule: programs, which all sessions share, and what makes contestants of them."""

    def __init__(self, tree: str, rule: str, layouts: list[str], scan: int):
        self.tree, self.rule, self.scan = tree, rule, scan
        self.optimizers = {name: make() for name, make in field.optimizers(rule, layouts).items()}
        self.programs = {name: field.step_of(optimizer) for name, optimizer in self.optimizers.items()}
        self.scans = {name: scan_of(optimizer) for name, optimizer in self.optimizers.items() if scan}
        self.training = {name: training_scan_of(self.optimizers[name]) for name in self.scans if name.startswith("jgd")}
        self.turn = 20 if rule in field.WITHOUT_PEER else 10 if jax.default_backend() == "gpu" else 1
        self.floor = jax.jit(lambda array, one: (array + one,), donate_argnums=0)

    def makers(self) -> dict[str, Callable[[], Contestant]]:
        """All contestants, each to be given arrays of its own; only the gradients, which stay, are shared."""
        grads = jax.device_put(random_tree(self.tree, 0.01, seed=1))
        scales = jnp.linspace(0.5, 1.5, max(self.scan, 1))

        def fresh(name: str) -> list[Any]:
            params = field.packed_if_kept(name, jax.device_put(random_tree(self.tree, 1.0, seed=0)))
            return [params, self.optimizers[name].init(params)]

        def gradients(name: str) -> Any:
            return field.packed_if_kept(name, grads)

        def step(name: str) -> Contestant:
            return running(self.programs[name], fresh(name), gradients(name), calls=self.turn)

        def scan(name: str) -> Contestant:
            return running(self.scans[name], fresh(name), gradients(name), scales, steps=self.scan)

        def training(name: str) -> Contestant:
            params = field.packed_if_kept(name, random_tree(self.tree, 1.0, seed=0))
            state = jgd.TrainState.create(params, self.optimizers[name])
            program = self.training[name]
            # Its metrics are not handed on.
            return running(lambda *given: program(*given)[:1], [state], scales, steps=self.scan)

        def floor() -> Contestant:
            array = jnp.zeros(BYTES[self.rule][1] * size(self.tree), jnp.float32)
            return running(self.floor, [array], jnp.float32(1), calls=self.turn)

        made: dict[str, Callable[[], Contestant]] = {}
        for name in self.programs:
            made[name] = lambda name=name: step(name)
        for name in self.scans:
            made[f"{name} scan"] = lambda name=name: scan(name)
        for name in self.training:
            made[f"{name} scan_steps"] = lambda name=name: training(name)
        if self.rule in BYTES:
            made["floor"] = floor
        return made | torch_makers(self.tree, self.rule, self.turn)


def torch_makers(tree: str, rule: str, turn: int) -> dict[str, Callable[[], Contestant]]:
    """Torch's own implementations of a rule, where there are torch and the rule."""
    if not has_torch() or rule not in ("sgd", "adam", "adamw", "clip+adamw"):
        return {}
    import torch

    device = torch_device()
    options = {"sgd": {"lr": 0.1, "momentum": 0.9}}.get(rule, {"lr": 1e-3})
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}.get(rule, torch.optim.AdamW)

    def contestant(flag: str) -> Contestant:
        params = [torch.tensor(leaf, device=device) for leaf in random_tree(tree, 1.0, seed=0).values()]
        for param, grad in zip(params, random_tree(tree, 0.01, seed=1).values(), strict=True):
            param.grad = torch.tensor(grad, device=device)
        optimizer = kind(params, **options, **{flag: True})

        def run(times: int) -> None:
            for _ in range(times):
                if rule == "clip+adamw":
                    torch.nn.utils.clip_grad_norm_(params, 1.0)
                optimizer.step()
            if device == "cuda":
                torch.cuda.synchronize()

        return Contestant(run, calls=turn)

    return {f"torch {flag}": lambda flag=flag: contestant(flag) for flag in TORCH_FLAGS}


def measure(row: Row, rounds: int, seconds: float) -> list[Times]:
    """The times of all contestants of a row; where a turn has many steps, there are fewer turns."""
    return in_sessions(row.makers, -(-rounds // row.turn), seconds)


def floor_scale(rule: str) -> float:
    """The bytes that the rule moves, in those that the kernel which measures the bandwidth moves."""
    moved, arrays = BYTES[rule]
    return moved / (8 * arrays)


def step_cells(row: Row, sessions: list[Times]) -> dict[str, str]:
    """One row of the table of steps."""
    ms = medians(sessions)
    ours = [name for name in row.programs if name != field.reference_of(row.rule)]
    other = field.reference_of(row.rule)
    cells = {"tree": row.tree, "rule": row.rule, "peer": other}
    cells |= {f"{name} / peer": str(ratio(sessions, name, other)) for name in ours}
    if "torch fused" in ms:
        cells |= {f"{ours[0]} / torch fused": str(ratio(sessions, ours[0], "torch fused"))}
    if "floor" in ms:
        scale = floor_scale(row.rule)
        cells |= {f"{ours[0]} / floor": str(ratio(sessions, ours[0], "floor", scale))}
        ms["floor"] *= scale
        cells |= {"GB/s": f"{BYTES[row.rule][0] * size(row.tree) / ms['floor'] / 1e6:.3g}"}
    shown = {
        name: "peer" if name == other else name for name in (*ours, other, "torch fused", "torch foreach", "floor")
    }
    return cells | {f"{text} ms": f"{ms[name]:.3g}" for name, text in shown.items() if name in ms}


def scan_cells(row: Row, sessions: list[Times]) -> list[dict[str, str]]:
    """The rows of the table of steps inside a scan."""
    ms, other = medians(sessions), field.reference_of(row.rule)
    rows = []
    for name in [name for name in ms if name.endswith(("scan", "scan_steps"))]:
        against: Ratio = ratio(sessions, name, other)
        cells = {"tree": row.tree, "rule": row.rule, "inside the scan": name, "ms a step": f"{ms[name]:.3g}"}
        cells |= {
            f"{other} at the jit boundary, ms": f"{ms[other]:.3g}",
            f"/ {other} at the jit boundary": str(against),
        }
        if not name.startswith(other):
            cells[f"/ {other} scan"] = str(ratio(sessions, name, f"{other} scan"))
        rows.append(cells)
    return rows


def main() -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", default=",".join(TREES), help="some of: " + ", ".join(TREES))
    parser.add_argument("--rules", default=",".join(field.RULES), help="some of: " + ", ".join(field.RULES))
    parser.add_argument("--layout", default="auto", help="jgd's layouts; the first is also compared with torch")
    parser.add_argument("--rounds", type=int, default=40, help="steps of each contestant")
    parser.add_argument("--scan-trees", default="small1000", help="trees with steps inside a scan too; '' for none")
    parser.add_argument("--scan", type=int, default=20, help="steps of such a scan")
    add_common_options(parser)
    given = parser.parse_args()
    trees = pick(parser, "tree", given.trees, list(TREES))
    rules = pick(parser, "rule", given.rules, list(field.RULES))
    scanned = pick(parser, "tree", given.scan_trees, list(TREES)) if given.scan_trees else []
    layouts = field.pick_layouts(given.layout)

    print(header())
    print("; ".join(describe(tree) for tree in trees))
    steps, scans, figures = [], [], []
    pairs = field.split_rows(trees, rules, runs=True)
    for (tree, rule), seconds in Budget(given.budget).over(pairs):
        row = Row(tree, rule, layouts, given.scan if tree in scanned and rule not in field.WITHOUT_PEER else 0)
        sessions = measure(row, given.rounds, seconds)
        steps.append(step_cells(row, sessions))
        scans += scan_cells(row, sessions)
        figures.append({"tree": tree, "rule": rule, "sessions": sessions})
        print("  " + ", ".join(steps[-1].values()), flush=True)
    print_table("The step", steps)
    print_table(f"One step inside a scan of {given.scan}", scans)
    write_json(given.json, figures)


if __name__ == "__main__":
    main()
