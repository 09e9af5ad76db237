"""Makes the golden traces: runs each reference in float64 (where it can) for a hundred steps of the seeded problem.

pip install -e ".[golden]"                # or the packages of the traces to make alone
python tests/reference/make.py            # all of them
python tests/reference/make.py adam lion  # these
python tests/reference/make.py --check    # compares with the files instead of writing them
"""

import argparse
import importlib
import importlib.metadata
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from problem import RECORDED, STEPS, gradient, leaf_loss, problem  # noqa: E402


def resolve(theirs):
    """The object that `module:name` names."""
    module, _, name = theirs.partition(":")
    return getattr(importlib.import_module(module), name)


def record(row, params, step, found):
    """Notes the params after a step, all leaves in one vector."""
    if step in RECORDED:
        found[step] = np.concatenate([np.asarray(params[name], np.float64).ravel() for name in row.leaves])


def run_torch(row, build=None):
    """A `torch.optim.Optimizer`: gradients are put in `.grad`; `closure` and `evaluated` as the row says."""
    import torch

    torch.manual_seed(0)
    dtype = getattr(torch, row.dtype)
    start, target, curvature, noise = problem(row.leaves)
    params = {name: torch.nn.Parameter(torch.tensor(start[name], dtype=dtype)) for name in row.leaves}
    fixed = {
        name: (torch.tensor(target[name], dtype=dtype), torch.tensor(curvature[name], dtype=dtype))
        for name in row.leaves
    }
    arguments = dict(row.arguments)
    given = arguments.pop("named", False)
    build = build or resolve(row.theirs)
    optimizer = build(list(params.items()) if given else list(params.values()), **arguments)
    found = {}
    for t in range(STEPS):
        noises = {name: torch.tensor(noise[name][t], dtype=dtype) for name in row.leaves}

        def closure(noises=noises):
            with torch.no_grad():
                loss = sum(leaf_loss(params[name], noises[name], *fixed[name]) for name in row.leaves)
                for name in row.leaves:
                    params[name].grad = gradient(params[name].detach(), noises[name], *fixed[name])
            return loss

        if row.options.get("modes"):
            optimizer.train()
        if row.options.get("closure"):
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
        if row.evaluated:
            optimizer.eval()
        record(row, {name: param.detach().numpy().copy() for name, param in params.items()}, t + 1, found)
    return found


def run_optax(row):
    """An optax transformation, in float64."""
    import jax
    import optax

    sys.path[:0] = [str(HERE.parent)]
    from trace_runner import run_trace

    jax.config.update("jax_enable_x64", row.dtype == "float64")
    optimizer = resolve(row.theirs)(**row.arguments)
    read = None
    if row.evaluated:
        read = getattr(optax.contrib, row.options["read"])
    return run_trace(optimizer, row, read)


def check_names(parser, names):
    """A name that no trace has ends the script."""
    from cases import TRACES

    if unknown := set(names) - {row.name for row in TRACES}:
        parser.error(f"no trace in tests/cases.py is called {', '.join(sorted(unknown))}")


RUNNERS = {"torch": run_torch, "optax": run_optax}


def main():
    import warnings

    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="the traces to make; all where none is given")
    parser.add_argument("--check", action="store_true", help="compare with the files, write nothing")
    chosen = parser.parse_args()
    from cases import TRACES

    check_names(parser, chosen.names)
    for file in sorted(HERE.glob("runners_*.py")):
        RUNNERS.update(importlib.import_module(file.stem).RUNNERS)
    failed = []
    for row in TRACES:
        if chosen.names and row.name not in chosen.names:
            continue
        found = RUNNERS[row.how](row)
        trace = np.stack([found[step] for step in RECORDED])
        version = importlib.metadata.version(row.package)
        file = HERE / "traces" / f"{row.name}.npz"
        if chosen.check:
            same = file.exists() and np.allclose(np.load(file)["trace"], trace, rtol=1e-12, atol=1e-14)
            failed += [] if same else [row.name]
            print(f"{row.name:32s} {'equal' if same else 'DIFFERS'}")
        else:
            np.savez_compressed(file, trace=trace, version=version)
            print(f"{row.name:32s} {row.theirs} {version}")
    if failed:
        sys.exit(f"{len(failed)} traces differ: {', '.join(failed)}")


if __name__ == "__main__":
    main()
