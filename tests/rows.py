"""What `cases.py` is made of: a row a rule, and in it the traces and formulas that the rule is held to."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from problem import SHAPES

import jgd


@dataclasses.dataclass(frozen=True)
class Trace:
    """One golden trace: one optimizer setting, here and at its author's.

    The script `reference/make.py` runs the references and writes the traces; `test_golden.py` runs jgd and compares.

    Attributes:
        name: Of the trace, and of its file.
        ours: Makes jgd's optimizer.
        package: The distribution that holds the reference; its version is written down with the trace.
        theirs: `"module:name"` of the reference.
        arguments: Its arguments. For torch-like references, those beside the params.
        leaves: The leaves of the problem, where the reference cannot take all of them.
        tolerance: The largest difference, relative to the largest entry of the leaf.
        extra: Which of `value`, `grad`, `value_fn`, `obj_fn` jgd's update is handed.
        contracted: Whether the numbers are those of an optimized program, in which a product and a sum are contracted
            into one rounding: where optax computes part of them in float32, or a rounding decides how a search goes on.
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
    contracted: bool = False
    evaluated: bool = False
    how: str = "torch"
    dtype: str = "float64"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def same(name: str, ours: Callable[..., Any], arguments: Mapping[str, Any], **more: Any) -> Trace:
    """A trace whose reference is optax's factory of the same name, with the same arguments."""
    factory = more.pop("factory", name)
    where = "optax.contrib" if more.pop("contrib", False) else "optax"
    return Trace(name, lambda: ours(**arguments), "optax", f"{where}:{factory}", arguments, how="optax", **more)


def of_torch(name: str, ours: Callable[[], Any], factory: str, arguments: Mapping[str, Any], **more: Any) -> Trace:
    """A trace whose reference is an optimizer of torch.optim."""
    return Trace(name, ours, "torch", f"torch.optim:{factory}", arguments, **more)


@dataclasses.dataclass(frozen=True)
class Formula:
    """A rule with settings that are not its defaults, beside its formula in plain NumPy, one of `formulas.py`."""

    name: str
    settings: Mapping[str, Any]
    formula: Callable[..., Any]
    formula_settings: Mapping[str, Any] | None = None  # where the formula's arguments differ from the factory's
    slots: tuple[str, ...] = ()
    real_only: bool = False
    for_matrices: bool = False  # other leaves get another rule


@dataclasses.dataclass(frozen=True)
class Rule:
    """All that the tests know of one update rule.

    Attributes:
        name: Of its factory.
        first: The arguments that one would give it first; none for a rule that finds its own learning rate.
        stands_for: The kind that it represents in tests too dear to be run on every rule each time.
        dear: Whether its programs take several times as long to compile as Adam's: such tests of it are `slow`.
        needs: What an update needs beside gradients, state and params: functions of the loss and its gradient.
        has_rate: Whether its learning rate can be changed once it runs, or is but where the steps start.
        skipped: Checks of `jgd.testing` that it is let off, and why.
        small: `"refused"` for rules that need all of their slots exactly and take no fewer bits, `"inside"` where the
            slots are those of a transform inside of it, with no `state_dtype`.
        small_tolerance: Of the way that a float32 run goes in ten steps, how far one with a small state may end from
            there, by form.
        layout_tolerance: How far two layouts may be apart. More than roundings where a rounding decides a sign or is
            divided by.
        optax_rounds: How far off optax is in float64, where it computes a power of a Python number in float32.
        lifted: Arguments with which `jgd.compat.optax.lift` takes optax's factory of that name.
        ranges: Where random hyperparameters are drawn from for the comparison with optax: bounds, or `bool`.
        median: Settings in which the errors of float32 are compared with optax's.
        formulas: Settings held to a formula in plain NumPy.
        traces: Settings held to its author's code.
        untraced: Why there is no trace.
    """

    name: str
    first: tuple[Any, ...] = (0.01,)
    stands_for: str = ""
    dear: bool = False
    needs: tuple[str, ...] = ()
    has_rate: bool = True
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)
    small: str = "taken"
    small_tolerance: Mapping[str, float] = dataclasses.field(default_factory=dict)
    layout_tolerance: float = 1e-5
    optax_rounds: float = 1e-12
    lifted: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ranges: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    median: Mapping[str, float] = dataclasses.field(default_factory=dict)
    formulas: Sequence[Formula] = ()
    traces: Sequence[Trace] = ()
    untraced: str = ""

    __hash__ = object.__hash__

    @property
    def factory(self) -> Callable[..., jgd.Optimizer]:
        return getattr(jgd, self.name)

    def make(self, **more: Any) -> jgd.Optimizer:
        """The optimizer with a usual learning rate and everything else as it comes."""
        return self.factory(*self.first, **more)

    def extra(self, loss: Callable[[Any], Any], params: Any, grads: Any) -> dict[str, Any]:
        """The further arguments of an update."""
        known = {"value": lambda: loss(params), "grad": lambda: grads, "value_fn": lambda: loss, "obj_fn": lambda: loss}
        return {name: known[name]() for name in self.needs}


@dataclasses.dataclass(frozen=True)
class Case:
    """One formula and the rule that it is of."""

    rule: Rule
    written: Formula

    @property
    def name(self) -> str:
        return self.written.name

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.written.settings

    def optimizer(self, **more: Any) -> jgd.Optimizer:
        return self.rule.factory(**(dict(self.settings) | more))

    def expected(self, param: Any, grads: Any) -> tuple[Any, dict[str, Any]]:
        settings = self.settings if self.written.formula_settings is None else self.written.formula_settings
        return self.written.formula(param, grads, **settings)


@dataclasses.dataclass(frozen=True)
class Wrapper:
    """All that the tests know of what goes around an optimizer.

    Attributes:
        name: Of its factory.
        around: `around(inner) -> optimizer`, with settings that suit any inner optimizer. None where it takes more
            than an optimizer.
        traces: As for `Rule`.
    """

    name: str
    around: Callable[[Any], Any] | None = None
    traces: Sequence[Trace] = ()
