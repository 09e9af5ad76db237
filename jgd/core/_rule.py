"""Update rules: what is done to one leaf, or to all leaves at once, and nothing about layouts or storage."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from jgd.core._fingerprints import fingerprint
from jgd.core._rule_checks import check_declared
from jgd.core._types import Array, Hyper, Slots

Kind = Literal["elementwise", "matrix", "leaf"]


class LeafUpdate(Protocol):
    """`update(grad, slots, param, hyper, step) -> (delta, slots)` on the arrays of one leaf.

    `grad`, `param` and every slot have the same compute dtype (float32 or wider), hyperparameters are scalars of
    the matching real dtype, `step` counts from 1. For each decay rate, such as `b1`, `hyper` also holds `1-b1`, more
    exactly than one could compute it from a rounded `b1`. `delta` is added to the parameter. `param` is None where the
    caller gave no params and the rule did not ask for them. A slot may be a tree of arrays.
    """

    def __call__(
        self, grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array, /
    ) -> tuple[Array, Slots]: ...


class TreeUpdate(Protocol):
    """As `LeafUpdate`, on the lists of all leaves at once: for rules that join what they know of every leaf.

    Slots named in `TreeRule.scalars` are single arrays, the others lists in the order of the leaves.
    """

    def __call__(
        self, grads: list[Array], slots: Mapping[str, Any], params: list[Array], hyper: Hyper, step: Array, /
    ) -> tuple[list[Array], Mapping[str, Any]]: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Rule:
    """One update rule, as the lift (`jgd.core.lift`) takes it.

    Attributes:
        update: The formula; see `LeafUpdate`.
        slots: For each slot its name and the function that makes its first value from the parameter.
        kind: What the formula looks at, and so how leaves may be laid out while it runs: `"elementwise"` sees each
            entry alone (leaves may be packed into one vector), `"matrix"` and `"leaf"` see a whole leaf (leaves
            of one shape may be stacked and `vmap`-ped).
        needs_params: Whether the formula reads the parameter.
        supports_complex: Whether the formula holds for complex leaves.
        prepare: `prepare(hyper, step) -> hyper`: what depends on the step and not on the leaf, such as the correction
            of a bias. It is computed once an update, instead of once a leaf.
        needs: Names of numbers that `update` must be given beside the gradients, such as `"value"`, the loss. They
            arrive in `hyper`.
        nonnegative: Names of slots that are never below zero, such as averages of squares. Stored in eight bits they
            then have twice as many codes, and what is not zero stays so: a step may be divided by it.
        exact: Names of slots that must not be rounded to 16 bits or fewer, such as copies of params and bases of
            projections. A `state_dtype` for all slots passes them over.

    Raises:
        TypeError, ValueError: A field that cannot be right: an unknown kind, a function that takes other arguments, a
            slot without a function that makes it.
    """

    update: LeafUpdate
    slots: Mapping[str, Callable[[Array], Any]] = dataclasses.field(default_factory=dict)
    kind: Kind = "elementwise"
    needs_params: bool = False
    supports_complex: bool = True
    prepare: Callable[[Hyper, Array], Hyper] = lambda hyper, _: hyper
    needs: Sequence[str] = ()
    nonnegative: Sequence[str] = ()
    exact: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_declared(self, Kind)

    @functools.cached_property
    def _fingerprint(self) -> Any:
        return fingerprint(self)

    def __eq__(self, other: object) -> bool:
        """Whether both do the same, though one may be made anew."""
        return self is other or (isinstance(other, type(self)) and self._fingerprint == other._fingerprint)

    def __hash__(self) -> int:
        return hash(self._fingerprint)


@dataclasses.dataclass(frozen=True, eq=False)
class TreeRule:
    """An update rule that sees all leaves at once, such as one whose step follows from a norm over the whole tree.

    Attributes:
        update: The formula; see `TreeUpdate`.
        slots: As for `Rule`, one value a leaf.
        scalars: Slots that are one array for the whole tree: name, and the function that makes its first value from
            the list of params.
        needs_params: Whether the formula reads the params.
        supports_complex: Whether the formula holds for complex leaves.
        prepare: As for `Rule`.
        needs: As for `Rule`.
        nonnegative: As for `Rule`.
        exact: As for `Rule`.
    """

    update: TreeUpdate
    slots: Mapping[str, Callable[[Array], Any]] = dataclasses.field(default_factory=dict)
    scalars: Mapping[str, Callable[[list[Array]], Array]] = dataclasses.field(default_factory=dict)
    needs_params: bool = False
    supports_complex: bool = True
    prepare: Callable[[Hyper, Array], Hyper] = lambda hyper, _: hyper
    needs: Sequence[str] = ()
    nonnegative: Sequence[str] = ()
    exact: Sequence[str] = ()
    kind = "tree"

    def __post_init__(self) -> None:
        check_declared(self)

    _fingerprint, __eq__, __hash__ = Rule._fingerprint, Rule.__eq__, Rule.__hash__


def under_prefix(rule: Rule, prefix: str) -> Rule:
    """The rule, reading each hyperparameter under a name with the prefix where there is one.

    It is how a second rule stands beside the first in one optimizer, with its `adam_b1` beside the other's `b1`.
    """

    def prepare(hyper: Hyper, step: Array) -> Hyper:
        unprefixed = {name.replace(prefix, "", 1): value for name, value in hyper.items() if prefix in name}
        return rule.prepare(hyper | unprefixed, step)

    return dataclasses.replace(rule, prepare=prepare)
