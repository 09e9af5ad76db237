"""Why a step is not finite: which operation, which examples; and a bundle that reproduces it."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import Array, PyTree
from jgd.gradients import Padded
from jgd.train._state import TrainState
from jgd.train.checkpoints._paths import as_path
from jgd.train.debug._bundle import save_bundle
from jgd.train.debug._op_by_op import Origin, first_not_finite
from jgd.train.guards._events import example_ids
from jgd.train.guards._finite import ALL_FINITE, NonFiniteError, first_bad_leaf, leaf_name
from jgd.train.step._advance import Options, differentiate, scale_of, step_key
from jgd.train.step._stacked import check_batch


class DebugReport(NamedTuple):
    """What running a step once more has shown. `print` shows it as text."""

    step: int
    leaf: str | None  # the first gradient leaf that is not finite, or "loss"; None where all is finite
    loss: float
    operation: str | None  # the first operation that made NaN or infinity, or the input that held it
    source: str  # its file, line and function
    line: str  # the text of that line
    backward: bool  # whether the loss itself is finite: then the operation is in the backward pass
    inside: tuple[str, ...]  # loops around it, with their iteration
    makes: str  # "NaN" or "infinity"
    examples: (
        list[int] | None
    )  # which examples, each alone in a batch, are not finite; None where they cannot run alone
    ids: list[Any] | None  # what the batch says that these are called
    bundle: Path | None  # the folder that was written

    def __str__(self) -> str:
        if self.leaf is None:
            return (
                f"step {self.step}: run operation by operation, loss and gradients are finite (the loss is"
                f" {self.loss}). If the compiled step was not, a sum or product that XLA fused or reordered is close to"
                " overflow."
            )
        what = "the loss" if self.leaf == "loss" else f"the gradient at {self.leaf}"
        lines = [f"step {self.step}: {what} is not finite (the loss is {self.loss})."]
        if self.operation is not None:
            side = " of the gradients" if self.backward else ""
            place = f" at {self.source}" if self.source else ""
            held = "input" if not self.source and "[" in self.operation else "operation"
            lines.append(f"The first {held}{side} with {self.makes}: {self.operation}{place}")
            lines += [f"    {self.line}"] if self.line else []
            lines += [f"    in {', in '.join(reversed(self.inside))}"] if self.inside else []
        if self.examples is not None:
            named = "" if self.ids is None else f", by id {self.ids}"
            alone = f"Examples that are not finite alone: {self.examples}{named}"
            lines.append(alone if self.examples else "Each example alone is finite.")
        lines += [f"Bundle: {self.bundle}"] if self.bundle is not None else []
        return "\n".join(lines)


class MadeStep(Protocol):
    """What `make_step` returns, as far as it is read here."""

    @property
    def options(self) -> Options:
        """What the step computes."""
        ...


def debug_step(step: MadeStep, state: TrainState, batch: PyTree, folder: str | Path | None = None) -> DebugReport:
    """Runs loss and gradients of one step again, operation by operation, and says where they stop being finite.

    Nothing is updated, and neither state nor batch is used up. It is slow: each operation runs on its own and is
    looked at. Then each example runs alone in a batch of one, with the step's key, to see which of them are not finite.

    Args:
        step: What `make_step` returned.
        state: The state from before the step: the `.state` of a `NonFiniteError`.
        batch: The step's batch.
        folder: Where to write a bundle, if anywhere, `~` being the home; where there is something, a number is put
            behind the name. It holds state, batch, report and a short `reproduce.py`. `load_bundle`
            reads it.

    Returns:
        A `DebugReport`: `leaf`, `operation`, `source`, `line`, `backward`, `examples`, `ids`, `bundle`, and more.

    Raises:
        TypeError: `step` was not made by `make_step`, `state` is no TrainState, or `folder` no path.
        OSError: The folder cannot be made or written to.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> def loss_fn(w, batch):
        ...     return jnp.mean(jnp.sqrt(w * batch["x"]))
        >>> step = jgd.make_step(loss_fn, jgd.sgd(0.1))
        >>> state = jgd.TrainState.create(jnp.ones(()), jgd.sgd(0.1))
        >>> report = jgd.debug_step(step, state, {"x": jnp.array([1.0, -1.0, 2.0]), "id": [70, 71, 72]})
        >>> print(report.leaf, report.operation, report.makes, report.examples, report.ids)
        the root sqrt NaN [1] [71]
    """
    options = getattr(step, "options", None)
    if not isinstance(options, Options):
        raise TypeError(f"debug_step: expected the step that make_step returned; got a {type(step).__name__}.")
    if not isinstance(state, TrainState):
        raise TypeError(f"debug_step: state must be a TrainState; got a {type(state).__name__}.")
    if folder is not None:
        folder = as_path("debug_step", "folder", folder)

    def loss_and_grads(
        params: PyTree, batch: PyTree, model_state: PyTree, key: Array | None, scale: Array | None
    ) -> tuple[Array, PyTree]:
        at = TrainState(state.step, params, None, None, model_state)
        loss, grads, *_ = differentiate(options, at, batch, key, scale)
        return loss, grads

    check_batch("debug_step", batch)
    key, scale = step_key(state), scale_of(state)
    (loss, grads), origin = first_not_finite(
        loss_and_grads, params=state.params, batch=batch, model_state=state.model_state, key=key, scale=scale
    )
    position = int(first_bad_leaf(loss, grads))
    leaf = None if position == ALL_FINITE else leaf_name(position, state.params)
    examples = None if leaf is None else _nonfinite_examples(options, state, batch)
    report = _report(int(state.step), leaf, float(loss), origin, examples, _names(batch, examples))
    if folder is None:
        return report
    info = {"step": report.step, "report": _plain(report), "options": _described(options)}
    info["loss_fn"] = f"{getattr(options.loss_fn, '__module__', '')}:{getattr(options.loss_fn, '__qualname__', '')}"
    files = {"error.txt": f"{report}\n", "reproduce.py": _REPRODUCE}
    return report._replace(bundle=save_bundle(folder, state, batch, info, files))


def add_report(step: MadeStep, error: NonFiniteError, state: TrainState, batch: PyTree, folder: Path) -> None:
    """Adds the result of `debug_step` to an error, as `.report` and as a note. Never hides the error itself."""
    try:
        report = debug_step(step, state, batch, folder / f"step_{int(state.step)}")
    except Exception as failure:  # whatever it is, the error that is being raised says more
        error.add_note(f"debug: the second run of the batch failed: {type(failure).__name__}: {failure}")
        return
    error.report = report
    error.add_note(str(report))


def _report(
    step: int, leaf: str | None, loss: float, origin: Origin | None, examples: list[int] | None, ids: list[Any] | None
) -> DebugReport:
    if leaf is None or origin is None:
        return DebugReport(step, leaf, loss, None, "", "", False, (), "", examples, ids, None)
    where = (origin.operation, origin.source, origin.line, bool(np.isfinite(loss)), origin.inside, origin.makes)
    return DebugReport(step, leaf, loss, *where, examples, ids, None)


def _names(batch: PyTree, examples: list[int] | None) -> list[Any] | None:
    ids = example_ids(batch)
    if ids is None or examples is None or any(i >= len(ids) for i in examples):
        return None
    return [ids[i] for i in examples]


def _nonfinite_examples(options: Options, state: TrainState, batch: PyTree) -> list[int] | None:
    """Which examples are not finite by themselves; None where the batch is not made of examples."""
    alone = options._replace(accumulate=1, gradient=None)
    batch, mask = (batch.batch, batch.mask) if isinstance(batch, Padded) else (batch, None)
    leaves = jax.tree.map(jnp.asarray, batch)
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(leaves) if leaf.ndim}
    if len(sizes) != 1:
        return None
    (size,) = sizes
    real = np.ones(size, bool) if mask is None else np.asarray(mask)

    @jax.jit  # all of it as arguments: with constants XLA computes in another order, and float16 overflows elsewhere
    def is_nonfinite(state: TrainState, leaves: PyTree, i: int) -> Array:
        one = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, i, 1) if leaf.ndim else leaf, leaves)
        # A loss of a padded batch reads the mask; that of `gradient=` was given each example without it.
        one = one if mask is None or options.gradient is not None else Padded(one, jnp.ones(1, bool))
        loss, grads, *_ = differentiate(alone, state, one, step_key(state), scale_of(state))
        return first_bad_leaf(loss, grads) != ALL_FINITE

    try:
        return [i for i in range(size) if real[i] and bool(is_nonfinite(state, leaves, i))]
    except (TypeError, ValueError):  # a loss that cannot do with one example
        return None


def _described(options: Options) -> dict[str, Any]:
    plain = {name: getattr(options, name) for name in ("has_aux", "accumulate", "on_nonfinite", "norms")}
    # A function cannot be written down; what parts count for does not change which operation is not finite.
    plain["loss_weight"] = "parts" if callable(options.loss_weight) else options.loss_weight
    return plain | {"guard": repr(options.guard), "gradient": options.gradient is not None}


def _plain(report: DebugReport) -> dict[str, Any]:
    values = report._asdict() | {"inside": list(report.inside), "bundle": None}
    return values | {"loss": repr(report.loss)}  # as text: JSON has no NaN


_REPRODUCE = '''"""Runs the failed step once more, operation by operation, and prints the report.

    python reproduce.py                    # imports the loss, where it is a function of a module
    python reproduce.py my_training:step   # or imports your step, what jgd.make_step returned

Run it from where your own modules can be imported, with JAX_PLATFORMS as it was.
"""

import importlib
import json
import sys
from pathlib import Path

import jax

import jgd

folder = Path(__file__).parent
info = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))["info"]
jax.config.update("jax_enable_x64", info["x64"])
sys.path.insert(0, "")
module, _, name = (sys.argv[1] if len(sys.argv) > 1 else info["loss_fn"]).partition(":")
if module in ("", "__main__") or "<" in name:
    sys.exit(f"cannot import {module}:{name}; say where your step is: python reproduce.py my_training:step")
found = importlib.import_module(module)
for part in name.split("."):
    found = getattr(found, part)
if len(sys.argv) == 1:  # the loss: what follows it in a step plays no part in the failure
    options = {name: info["options"][name] for name in ("has_aux", "accumulate", "loss_weight")}
    found = jgd.make_step(found, jgd.sgd(0.0), **options)
bundle = jgd.load_bundle(folder)
print(jgd.debug_step(found, bundle.state, bundle.batch))
'''
