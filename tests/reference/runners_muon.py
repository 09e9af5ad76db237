"""Runs the references of Muon and its relatives, which round to bfloat16, draw random numbers, or take param groups.

Their code runs unchanged; what is changed is what they call. Compilation is off, `bfloat16` and `float32` mean
float64 (unless the row is `rounded`), and what they draw at random is what jgd's side draws or is handed.

Options of a row:
    rounded: Whether the reference keeps its bfloat16.
    clone: The repository that holds it, a folder in that which the environment variable JGD_REFERENCES names.
    folder: Where in the clone its modules are.
    bare: A package of which only the module is imported, not what it loads besides.
    missing: Modules that the reference imports and does not need here.
    groups: Groups of params, each with its `leaves`; they are given as the first argument.
    split: Arguments that are lists of params, with their leaves, in place of the first argument.
    draws: `(module, function)` that draws random projections, replaced by `projection`.
"""

import collections
import contextlib
import dataclasses
import importlib
import importlib.machinery
import os
import sys
import types
from unittest import mock

import numpy as np
from runners_preconditioned import replaced


def first_basis(shape):
    """The start of a power iteration, for both sides."""
    return np.random.RandomState(11).normal(size=shape)


def handed_basis(optimizer):
    """jgd's optimizer with the slot `q` that the reference starts from."""
    import jax
    import jax.numpy as jnp

    from jgd.core._optimizer import make_optimizer

    def init(params):
        state = optimizer.init(params)
        q = jax.tree.map(lambda x: jnp.asarray(first_basis(x.shape[1:]), x.dtype)[None], state.slots["q"])
        return state._replace(slots=state.slots | {"q": q})

    return make_optimizer(init, optimizer.update, repr(optimizer))


def projection():
    """In place of APOLLO's random numbers: those of `jgd.apollo(seed=0)`, by the number of draws for each shape."""
    import jax
    import torch

    draws = collections.Counter()

    def draw(shape, seed, **unused):
        del seed, unused
        with jax.enable_x64(True):
            key = jax.random.fold_in(jax.random.key(0), draws[shape])
            # The rank is the smaller number here; jgd has it last.
            found = np.array(jax.random.normal(key, tuple(sorted(shape, reverse=True)), "float64"))
        draws[shape] += 1
        return torch.tensor(found if shape[0] >= shape[1] else found.T.copy())

    return draw


def _import_bare(package):
    """Puts the package among the imported modules without running its code, so that parts of it can be imported."""
    spec = importlib.machinery.PathFinder.find_spec(package)
    module = types.ModuleType(package)
    module.__path__ = list(spec.submodule_search_locations)
    sys.modules[package] = module


class _OneProcess:
    """What the references ask of torch.distributed, where there is one process."""

    @staticmethod
    def all_gather_into_tensor(gathered, own, **unused):
        del unused
        gathered[0] = own
        return mock.Mock()


def _on_the_processor(make_empty):
    def empty(*shape, dtype=None, **unused):
        import torch

        del unused
        return make_empty(*shape, dtype=torch.float64 if dtype == torch.bfloat16 else dtype)

    return empty


def run_matrices(row):
    """A `torch.optim.Optimizer`, as the options say."""
    import make
    import torch

    options = row.options
    if "clone" in options:
        sys.path.insert(0, os.path.join(os.environ["JGD_REFERENCES"], options["clone"], options.get("folder", "")))
    if "bare" in options:
        _import_bare(options["bare"])
    torch.compiler.set_stance("force_eager")
    resolve = make.resolve

    def adapted(theirs):
        factory = resolve(theirs)

        def build(named, **arguments):
            named = dict(named)
            groups = [
                {name: value for name, value in group.items() if name != "leaves"}
                | {"params": [named[leaf] for leaf in group["leaves"]]}
                for group in options.get("groups", ())
            ]
            split = {name: [named[leaf] for leaf in leaves] for name, leaves in options.get("split", {}).items()}
            first = () if split else (groups or list(named.values()),)
            return factory(*first, **split, **arguments)

        return build

    def normal(shape, **unused):
        return torch.tensor(first_basis(tuple(shape)))

    with contextlib.ExitStack() as stack:
        for name in options.get("missing", ()):
            sys.modules[name] = mock.MagicMock()
            stack.callback(sys.modules.pop, name)
        stack.enter_context(replaced(make, resolve=adapted))
        stack.enter_context(replaced(torch.distributed, all_gather_into_tensor=_OneProcess.all_gather_into_tensor))
        if not options.get("rounded"):
            torch.set_default_dtype(torch.float64)
            stack.callback(torch.set_default_dtype, torch.float32)
            stack.enter_context(replaced(torch.Tensor, bfloat16=torch.Tensor.clone))
            empty = _on_the_processor(torch.empty)
            stack.enter_context(replaced(torch, randn=normal, empty=empty))
            resolve(row.theirs)  # before dtypes change their names, which modules read when they are imported
            stack.enter_context(replaced(torch, bfloat16=torch.float64, float32=torch.float64))
        if "draws" in options:
            module, function = options["draws"]
            stack.enter_context(replaced(importlib.import_module(module), **{function: projection()}))
        return make.run_torch(dataclasses.replace(row, arguments=row.arguments | {"named": True}))


RUNNERS = {"matrices": run_matrices}
