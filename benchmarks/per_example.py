"""Clipped per-example gradients: jgd, jax_privacy, Opacus and the plain forms, in time and memory.

    python benchmarks/per_example.py                                # three models; some ten minutes on two cores
    python benchmarks/per_example.py --models mlp --chunks 16,64 --rounds 8

All are given the same model, params and batch of 256, and compute the mean of the gradients clipped to norm 1, but for
`mean gradient`, which is what plain training computes. Their results must agree, else the script fails.

- `vmap(grad)`: all gradients at once, clipped and averaged, as one would write it.
- `jgd c=16`: `jgd.gradients.clipped_value_and_grad` with chunks of 16; `c=256` is the whole batch at once.
- `probes`: `jgd.gradients.probes.clipped_grad`, the loss being written with probed operations; as `probes, two passes`
  with a second backward pass in place of the cotangents kept; `norms alone` computes no gradient.
- `jax_privacy c=16`: its `clipped_grad` with microbatches of 16, where it is installed.
- `opacus`: its per-sample gradients by hooks, for the MLP, where it and torch are installed.

Times are medians of alternating runs; the memory is that of temporary arrays and results by the compiler's account.
"""

import argparse
import functools
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from per_example_models import MAX_NORM, MODELS, Model
from timing import (
    Budget,
    Contestant,
    add_common_options,
    alternate,
    has_torch,
    header,
    medians,
    pick,
    print_table,
    write_json,
)

from jgd.gradients import clipped_value_and_grad, probes

BATCH = 256


class Program(NamedTuple):
    """Something to be timed.

    Attributes:
        run: Computes the gradient and waits for it.
        memory: Bytes of temporary arrays and results; None where nothing gives an account.
        grads: The gradient, to be compared; None for what computes another one.
    """

    run: Callable[[], Any]
    memory: int | None
    grads: Callable[[], Any] | None


def compiled(function: Callable[[Any, Any], Any], params: Any, batch: Any, *, clips: bool = True) -> Program:
    """A JAX function of params and batch."""
    program = jax.jit(function).lower(params, batch).compile()
    found = program.memory_analysis()
    memory = None if found is None else found.temp_size_in_bytes + found.output_size_in_bytes
    return Program(
        lambda: jax.block_until_ready(program(params, batch)),
        memory,
        (lambda: program(params, batch)) if clips else None,
    )


def loss_of(model: Model) -> Callable[[Any, Any], jax.Array]:
    """The mean loss of a batch."""
    return lambda params, batch: jnp.mean(model.losses_fn(params, batch, None))


def vmap_grad(loss: Any, params: Any, batch: Any) -> Any:
    """All gradients at once, as one would write it."""

    def one(example: Any) -> Any:
        grad = jax.grad(loss)(params, jax.tree.map(lambda leaf: leaf[None], example))
        norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(grad)))
        return jax.tree.map(lambda leaf: leaf * jnp.minimum(1, MAX_NORM / norm), grad)

    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), jax.vmap(one)(batch))


def plain_programs(model: Model, params: Any, batch: Any, chunks: list[int]) -> dict[str, Program]:
    """The gradient of plain training, and the plain form of the clipped one."""
    del chunks
    loss = loss_of(model)
    return {
        "mean gradient": compiled(jax.grad(loss), params, batch, clips=False),
        "vmap(grad)": compiled(functools.partial(vmap_grad, loss), params, batch),
    }


def jgd_programs(model: Model, params: Any, batch: Any, chunks: list[int]) -> dict[str, Program]:
    """The microbatched form of jgd."""
    runs = {c: clipped_value_and_grad(loss_of(model), MAX_NORM, chunk_size=c) for c in chunks}
    return {f"jgd c={c}": compiled(lambda p, b, run=run: run(p, b)[1], params, batch) for c, run in runs.items()}


def jax_privacy_programs(model: Model, params: Any, batch: Any, chunks: list[int]) -> dict[str, Program]:
    """jax_privacy's, where it is installed."""
    if importlib.util.find_spec("jax_privacy") is None:
        return {}
    from jax_privacy import clipping

    made = {
        c: clipping.clipped_grad(
            loss_of(model), l2_clip_norm=MAX_NORM, normalize_by=float(BATCH), microbatch_size=c if c < BATCH else None
        )
        for c in chunks
    }
    return {f"jax_privacy c={c}": compiled(lambda p, b, run=run: run(p, b), params, batch) for c, run in made.items()}


def opacus_programs(model: Model, params: Any, batch: Any, chunks: list[int]) -> dict[str, Program]:
    """Opacus on the MLP, where it is installed."""
    del chunks
    if model is not MODELS["mlp"] or not has_torch() or importlib.util.find_spec("opacus") is None:
        return {}
    import torch
    from opacus import GradSampleModule

    layers: list[Any] = []
    for i in range(len(params) // 2):
        rows, columns = params[f"{i}w"].shape
        layer = torch.nn.Linear(rows, columns)
        layer.weight.data = torch.tensor(np.asarray(params[f"{i}w"]).T.copy())
        layer.bias.data = torch.tensor(np.asarray(params[f"{i}b"]))
        layers += [layer, torch.nn.ReLU()]
    module = GradSampleModule(torch.nn.Sequential(*layers[:-1]))
    x = torch.tensor(np.asarray(batch["x"]).reshape(BATCH, -1))
    y = torch.tensor(np.asarray(batch["y"])).long()

    def run() -> list[Any]:
        module.zero_grad()
        torch.nn.functional.cross_entropy(module(x), y, reduction="mean").backward()
        samples: list[Any] = [getattr(parameter, "grad_sample") for parameter in module.parameters()]  # noqa: B009
        norms = torch.stack([sample.flatten(1).norm(dim=1) for sample in samples]).norm(dim=0)
        factors = (MAX_NORM / norms).clamp(max=1)
        return [torch.einsum("b,b...->...", factors, sample) / BATCH for sample in samples]

    def grads() -> dict[str, Any]:
        found = [grad.numpy() for grad in run()]
        return {f"{i // 2}{'wb'[i % 2]}": grad.T if i % 2 == 0 else grad for i, grad in enumerate(found)}

    return {"opacus": Program(run, None, grads)}


def probe_programs(model: Model, params: Any, batch: Any, chunks: list[int]) -> dict[str, Program]:
    """Exact clipping through probed operations, whole, in chunks, and with a second backward pass."""

    def program(**options: Any) -> Program:
        run = probes.clipped_grad(model.losses_fn, MAX_NORM, **options)
        return compiled(run, params, batch)

    whole = {"probes": program(), "probes, two passes": program(keep_cotangents=False)}
    norms = {"probes, norms alone": compiled(probes.norms(model.losses_fn), params, batch, clips=False)}
    return whole | norms | {f"probes c={c}": program(chunk_size=c) for c in chunks if c < BATCH}


#: What takes part: each gives programs by name, or none where its package is not installed.
CONTESTANTS: Mapping[str, Callable[[Model, Any, Any, list[int]], dict[str, Program]]] = {
    "plain": plain_programs,
    "jgd": jgd_programs,
    "jax_privacy": jax_privacy_programs,
    "probes": probe_programs,
    "opacus": opacus_programs,  # the last: torch's threads spin on for a while, at the cost of whoever follows
}


def check_agreement(programs: Mapping[str, Program]) -> None:
    """Fails unless all that clip find the same gradient."""
    found = {name: program.grads() for name, program in programs.items() if program.grads is not None}
    names = list(found)
    for name in names[1:]:
        for leaf, expected in found[names[0]].items():
            scale = float(jnp.abs(expected).max())
            np.testing.assert_allclose(found[name][leaf], expected, atol=1e-4 * scale, err_msg=f"{name}: {leaf}")


def measure(name: str, who: list[str], chunks: list[int], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """The figures of all contestants on one model."""
    model = MODELS[name]
    params, batch = model.init(0), model.batch(BATCH)
    programs: dict[str, Program] = {}
    for kind in who:
        programs |= CONTESTANTS[kind](model, params, batch, chunks)
    check_agreement(programs)

    def waits(program: Program) -> Contestant:
        return Contestant(lambda calls: [program.run() for _ in range(calls)])

    contestants = {label: waits(program) for label, program in programs.items()}
    times = medians([alternate(contestants, rounds, seconds)])
    return [{"model": name, "which": label, "ms": times[label], "bytes": programs[label].memory} for label in programs]


def cells(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, str]:
    """A row of the table, each beside the plain mean gradient and beside its peer at the same chunk size."""
    by_name = {other["which"]: other for other in rows}
    plain, peer = by_name.get("mean gradient"), by_name.get(row["which"].replace("jgd", "jax_privacy"))
    shown = {"model": row["model"], "which": row["which"], "ms": f"{row['ms']:.1f}"}
    shown["MB"] = "" if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f}"
    shown["time / mean gradient's"] = f"{row['ms'] / plain['ms']:.2f}" if plain else ""
    shown["memory / mean gradient's"] = f"{row['bytes'] / plain['bytes']:.2f}" if plain and row["bytes"] else ""
    is_ours = row["which"].startswith("jgd") and peer is not None
    shown["time / jax_privacy's"] = f"{row['ms'] / peer['ms']:.2f}" if is_ours and peer else ""
    return shown


def main() -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="some of: " + ", ".join(MODELS))
    parser.add_argument("--who", default=",".join(CONTESTANTS), help="some of: " + ", ".join(CONTESTANTS))
    parser.add_argument("--chunks", default="16,64,256", help="examples at a time")
    parser.add_argument("--rounds", type=int, default=10, help="in how many rounds each contestant runs")
    add_common_options(parser)
    given = parser.parse_args()
    who = pick(parser, "contestant", given.who, list(CONTESTANTS))
    models = pick(parser, "model", given.models, list(MODELS))
    chunks = [int(chunk) for chunk in given.chunks.split(",")]
    print(header())
    figures: list[dict[str, Any]] = []
    table: list[dict[str, str]] = []
    for (name,), seconds in Budget(given.budget).over([(model,) for model in models]):
        rows = measure(name, who, chunks, given.rounds, seconds)
        figures += rows
        table += [cells(row, rows) for row in rows]
    print_table(f"The mean of clipped gradients, B = {BATCH}", table)
    write_json(given.json, figures)


if __name__ == "__main__":
    main()
