"""Runs optimizers of torch that are put around another one."""

import dataclasses

from runners_first_order import resolve as resolve_clone


def run_wrapped(row):
    """`theirs(inner(params, **inner_arguments), **arguments)`; the inner one is named in the row's options."""
    from make import resolve, run_torch

    inner, outer = resolve(row.options["inner"]), resolve_clone(row)

    def build(params, **arguments):
        return outer(inner(params, **row.options["inner_arguments"]), **arguments)

    return run_torch(row, build)


def run_clone(row):
    """A `torch.optim.Optimizer` out of a clone."""
    from make import run_torch

    return run_torch(dataclasses.replace(row, how="torch"), resolve_clone(row))


def run_stepper(row):
    """A reference that extrapolates before the gradient is taken: `nesterov_step()`, gradient, `step()`.

    What is recorded are the params where the next gradient is taken, as those of jgd are.
    """
    from make import run_torch

    outer, inner = resolve_clone(row), row.options["inner"]

    def build(params, **arguments):
        from make import resolve

        optimizer = outer(params, resolve(inner)(params, **row.options["inner_arguments"]), **arguments)
        optimizer.nesterov_step()
        step = optimizer.step

        def step_and_look_ahead():
            step()
            optimizer.nesterov_step()

        optimizer.step = step_and_look_ahead
        return optimizer

    return run_torch(row, build)


def run_bare_clone(row):
    """As `clone`, with the modules that the file imports besides, and does not need here, left out."""
    from unittest import mock

    with mock.patch.dict("sys.modules", {name: mock.MagicMock() for name in row.options["missing"]}):
        return run_clone(row)


RUNNERS = {"bare_clone": run_bare_clone, "wrapped": run_wrapped, "clone": run_clone, "stepper": run_stepper}
