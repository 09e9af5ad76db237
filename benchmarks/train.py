"""Whole training steps: jgd and optax, each in a Python loop and in one scan, and torch with its fused AdamW.

    python benchmarks/train.py                              # everything; some five minutes on two cores
    python benchmarks/train.py --tasks mlp --rounds 20
    python benchmarks/train.py --layout auto,packed --budget 540

The models are those of `tasks.py`: an MLP 64-256-256-10, a small convolutional network, and a small GPT, on handwritten
digits. All use AdamW at one learning rate, start from the same numbers and see the same batches, which lie on the
device from the beginning. The losses after the first turn must agree within one percent, else the script fails.

- `jgd ... loop`: `jgd.make_step` as it comes, called from Python: it checks every loss and gradient, waits for the
  answer after each step, and gives back six metrics. With `ignore` it checks and does not wait.
- `jgd ... scan`: `jgd.scan_steps` of the same step; with `no norms` in its metrics where it says so.
- `optax loop`: `value_and_grad`, `update` and `apply_updates` under one `jit` that donates params and state.
- `optax scan`: the same in a `jax.lax.scan`.
- `torch fused`: `zero_grad`, loss, `backward`, `step`, in eager mode.

One turn of a contestant is as many steps as there are batches; only its end is waited for. `timing.py` says how turns
become medians and ratios.
"""

import argparse
from collections.abc import Callable
from typing import Any

import contestants as field
import jax
import jax.numpy as jnp
import optax
from tasks import TASKS, Task
from timing import (
    Budget,
    Contestant,
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

import jgd

RATE = 1e-3
DECAY = 1e-4  # jgd's and optax's default; torch's is another

#: Trains for one turn and gives back the last loss; carries on from there when it is called again.
Turn = Callable[[], Any]


def unstacked(batches: Any, steps: int) -> list[Any]:
    """One tree of arrays a step."""
    return [jax.tree.map(lambda leaf, i=i: leaf[i], batches) for i in range(steps)]


def jgd_turns(task: Task, steps: int, layout: str) -> dict[str, Callable[[], Turn]]:
    """By name what makes jgd's contestants; all that one makes share a compiled program."""
    optimizer = jgd.adamw(RATE, weight_decay=DECAY, layout="alone" if layout == field.KEPT else layout)
    stacked = jax.device_put(task.batches)
    apart = unstacked(stacked, steps)

    def start() -> jgd.TrainState:
        params = field.packed_if_kept(f"jgd {layout}", task.params)
        return jgd.TrainState.create(params, optimizer)

    def looping(step: Any) -> Turn:
        carried = [start()]

        def turn() -> Any:
            state, metrics = carried[0], {}
            for batch in apart:
                state, metrics = step(state, batch)
            carried[0] = jax.block_until_ready(state)
            return metrics["loss"]

        return turn

    def scanning(run: Any) -> Turn:
        carried = [start()]

        def turn() -> Any:
            state, metrics = run(carried[0], stacked)
            carried[0] = jax.block_until_ready(state)
            return metrics["loss"][-1]

        return turn

    checking = jgd.make_step(task.loss, optimizer)
    ignoring = jgd.make_step(task.loss, optimizer, on_nonfinite="ignore")
    scan = jgd.scan_steps(checking)
    bare_scan = jgd.scan_steps(jgd.make_step(task.loss, optimizer, norms=False))
    return {
        f"jgd {layout} loop": lambda: looping(checking),
        f"jgd {layout} loop, ignore": lambda: looping(ignoring),
        f"jgd {layout} scan": lambda: scanning(scan),
        f"jgd {layout} scan, no norms": lambda: scanning(bare_scan),
    }


def optax_turns(task: Task, steps: int) -> dict[str, Callable[[], Turn]]:
    """The same of optax."""
    optimizer = optax.adamw(RATE, weight_decay=DECAY)
    stacked = jax.device_put(task.batches)
    apart = unstacked(stacked, steps)

    def advance(params: Any, state: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
        loss, grads = jax.value_and_grad(task.loss)(params, batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    def advance_all(params: Any, state: Any, batches: Any) -> tuple[Any, Any, jax.Array]:
        def body(carry: Any, batch: Any) -> tuple[Any, jax.Array]:
            params, state, loss = advance(carry[0], carry[1], batch)
            return (params, state), loss

        (params, state), losses = jax.lax.scan(body, (params, state), batches)
        return params, state, losses

    def running(program: Any, inputs: list[Any]) -> Turn:
        params = jax.tree.map(jnp.array, task.params)
        carried = [params, optimizer.init(params)]

        def turn() -> Any:
            (params, state), loss = carried, jnp.nan
            for batch in inputs:
                params, state, loss = program(params, state, batch)
            carried[:] = jax.block_until_ready([params, state])
            return jnp.ravel(loss)[-1]

        return turn

    step = jax.jit(advance, donate_argnums=(0, 1))
    scan = jax.jit(advance_all, donate_argnums=(0, 1))
    return {"optax loop": lambda: running(step, apart), "optax scan": lambda: running(scan, [stacked])}


def torch_turns(task: Task, steps: int) -> dict[str, Callable[[], Turn]]:
    """The same of torch, where it is installed."""
    if not has_torch():
        return {}
    import torch

    device = torch_device()
    torch.set_float32_matmul_precision("high")  # on a GPU JAX, too, multiplies float32 by way of TF32

    def fused() -> Turn:
        params = {name: torch.tensor(leaf, device=device) for name, leaf in task.params.items()}
        params = {n: (p.permute(3, 2, 0, 1).contiguous() if p.ndim == 4 else p) for n, p in params.items()}
        for param in params.values():
            param.requires_grad_()
        inputs = unstacked(jax.tree.map(lambda leaf: torch.tensor(leaf, device=device), task.batches), steps)
        optimizer = torch.optim.AdamW(params.values(), lr=RATE, weight_decay=DECAY, fused=True)

        def turn() -> Any:
            loss = torch.tensor(float("nan"))
            for batch in inputs:
                optimizer.zero_grad()
                loss = task.torch_loss(params, batch)
                loss.backward()
                optimizer.step()
            if device == "cuda":
                torch.cuda.synchronize()
            return loss.detach()

        return turn

    return {"torch fused": fused}


def check_losses(name: str, losses: dict[str, float]) -> None:
    """Contestants that did not do the same work are not to be compared.

    Raises:
        SystemExit: A loss is not that of the optax loop, within a percent.
    """
    expected = losses["optax loop"]
    for contestant, loss in losses.items():
        if not abs(loss - expected) <= 0.01 * expected:
            raise SystemExit(f"{name}: the loss of {contestant} is {loss}, that of optax is {expected}")


def cells_of(name: str, sessions: list[Times], losses: dict[str, float]) -> list[dict[str, str]]:
    """The rows of the table: one for each contestant."""
    rows = []
    peers = [peer for peer in ("optax loop", "optax scan", "torch fused") if peer in losses]
    for contestant, ms in medians(sessions).items():
        cells = {"task": name, "contestant": contestant, "us a step": f"{1e3 * ms:.0f}"}
        cells |= {f"/ {peer}": "" if peer == contestant else str(ratio(sessions, contestant, peer)) for peer in peers}
        rows.append(cells | {"loss after one turn": f"{losses[contestant]:.5f}"})
    return rows


def measure(name: str, layouts: list[str], steps: int, rounds: int, seconds: float) -> tuple[list[Times], Any]:
    """The times and the losses of all contestants at one task."""
    task = TASKS[name][0](steps)
    made = optax_turns(task, steps) | torch_turns(task, steps)
    for layout in reversed(layouts):
        made = jgd_turns(task, steps, layout) | made
    losses = {contestant: float(make()()) for contestant, make in made.items()}
    check_losses(name, losses)

    def contestant(make: Callable[[], Turn]) -> Contestant:
        turn = make()

        def run(times: int) -> None:
            for _ in range(times):
                turn()

        return Contestant(run, steps=steps)

    makers = {name: lambda make=make: contestant(make) for name, make in made.items()}
    return in_sessions(lambda: makers, rounds, seconds), losses


def main() -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(TASKS), help="some of: " + ", ".join(TASKS))
    parser.add_argument("--layout", default="auto", help="jgd's layouts")
    parser.add_argument("--rounds", type=int, default=20, help="turns of each contestant")
    parser.add_argument("--steps", type=int, help="steps of a turn, instead of each task's own number")
    add_common_options(parser)
    given = parser.parse_args()
    names = pick(parser, "task", given.tasks, list(TASKS))
    layouts = field.pick_layouts(given.layout)

    print(header())
    rows: list[dict[str, str]] = []
    figures: list[dict[str, Any]] = []
    for (name,), seconds in Budget(given.budget).over([(name,) for name in names]):
        steps = given.steps or TASKS[name][1]
        sessions, losses = measure(name, layouts, steps, given.rounds, seconds)
        rows += cells_of(name, sessions, losses)
        figures.append({"task": name, "steps": steps, "sessions": sessions, "losses": losses})
        print(f"  {name}: " + ", ".join(f"{n} {1e3 * ms:.0f} us" for n, ms in medians(sessions).items()), flush=True)
    print_table("A training step", rows)
    write_json(given.json, figures)


if __name__ == "__main__":
    main()
