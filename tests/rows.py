"""What the golden traces are made of: one row is one optimizer setting, here and at its author's.

A row names a factory of jgd with its arguments, and the reference with its own. The script `make.py` runs the
references and writes the traces; `tests/test_golden.py` runs jgd and compares.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from problem import SHAPES


@dataclasses.dataclass(frozen=True)
class Row:
    """One golden trace.

    Attributes:
        name: Of the trace, and of its file.
        ours: Makes jgd's optimizer.
        package: The distribution that holds the reference; its version is written down with the trace.
        theirs: `"module:name"` of the reference.
        arguments: Its arguments. For torch-like references, those beside the params.
        leaves: The leaves of the problem, where the reference cannot take all of them.
        tolerance: The largest difference, relative to the largest entry of the leaf.
        extra: Which of `value`, `grad`, `value_fn`, `obj_fn` jgd's update is handed.
        evaluated: Whether the trace is of the params to evaluate, `jgd.eval_params`, not of those trained.
        how: How the reference is run, a key of `make.RUNNERS`.
        dtype: The dtype in which the reference runs.
        options: Anything else that the runner takes.
    """

    name: str
    ours: Callable[[], Any]
    package: str
    theirs: str
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    leaves: tuple[str, ...] = tuple(SHAPES)
    tolerance: float = 1e-9
    extra: tuple[str, ...] = ()
    evaluated: bool = False
    how: str = "torch"
    dtype: str = "float64"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def same(name: str, ours: Callable[..., Any], arguments: Mapping[str, Any], **more: Any) -> Row:
    """A row whose reference is optax's factory of the same name, with the same arguments."""
    factory = more.pop("factory", name)
    where = "optax.contrib" if more.pop("contrib", False) else "optax"
    return Row(name, lambda: ours(**arguments), "optax", f"{where}:{factory}", arguments, how="optax", **more)
