"""What each optimizer of `torch.optim` calls its slots and hyperparameters, and which leaf its parameters are."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jgd.compat._states import slot_paths
from jgd.core import OptState, path_keys, path_text


class Kind(NamedTuple):
    """One optimizer of torch.

    Attributes:
        name: Of its class.
        marks: Options that its groups have and those of the kinds below it have not, taken together.
        slots: What a parameter's state holds, and the slot of jgd that this is.
        hyperparams: Its options that are numbers, and the hyperparameters of jgd that they are.
        optional: What a parameter's state holds by option only.
        counts: Whether a parameter's state has a step count.
    """

    name: str
    marks: tuple[str, ...]
    slots: dict[str, str]
    hyperparams: dict[str, tuple[str, ...]]
    optional: tuple[str, ...] = ()
    counts: bool = True


_MOMENTS = {"exp_avg": "mu", "exp_avg_sq": "nu"}
_BASIC = {"lr": ("learning_rate",), "weight_decay": ("weight_decay",)}
_WITH_EPS = _BASIC | {"eps": ("eps",)}
_ADAM = _WITH_EPS | {"betas": ("b1", "b2")}
_SUM = {"momentum_buffer": "trace"}
_MUON = _WITH_EPS | {"momentum": ("beta",), "ns_coefficients": ("ns_coeffs",)}

KINDS = (
    Kind(
        "NAdam",
        ("momentum_decay",),
        _MOMENTS | {"mu_product": "mu_product"},
        _ADAM | {"momentum_decay": ("momentum_decay",)},
    ),
    Kind("Adam or AdamW", ("betas", "amsgrad"), _MOMENTS | {"max_exp_avg_sq": "nu_max"}, _ADAM, ("max_exp_avg_sq",)),
    Kind("RAdam", ("betas", "decoupled_weight_decay"), _MOMENTS, _ADAM),
    Kind("Adamax", ("betas", "eps"), {"exp_avg": "mu", "exp_inf": "nu"}, _ADAM),
    Kind("Muon", ("ns_steps",), {"momentum_buffer": "mu"}, _MUON, counts=False),
    Kind(
        "RMSprop",
        ("alpha", "centered"),
        {"square_avg": "nu", "grad_avg": "mu"} | _SUM,
        _WITH_EPS | {"alpha": ("decay",), "momentum": ("momentum",)},
        ("grad_avg", "momentum_buffer"),
    ),
    Kind("SGD", ("dampening",), _SUM, _BASIC | {"momentum": ("momentum",)}, ("momentum_buffer",), counts=False),
    Kind("Adagrad", ("lr_decay",), {"sum": "sum_of_squares"}, _WITH_EPS | {"lr_decay": ("lr_decay",)}),
    Kind("Adadelta", ("rho",), {"square_avg": "e_g", "acc_delta": "e_x"}, _WITH_EPS | {"rho": ("rho",)}),
)  # fmt: skip


def kind_of(owner: str, state_dict: Any) -> Kind:
    """Which optimizer's state it is, by the options of its groups.

    Raises:
        TypeError: It is no state of a torch optimizer.
        ValueError: It is that of one not known here.
    """
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
        raise TypeError(f"{owner}: expected what a torch optimizer's state_dict() gives, with 'state', 'param_groups'.")
    options = set(state_dict["param_groups"][0])
    for kind in KINDS:
        if options.issuperset(kind.marks):
            return kind
    known = ", ".join(kind.name for kind in KINDS)
    raise ValueError(f"{owner}: no known optimizer has the options {sorted(options)}; known are {known}.")


class Leaf(NamedTuple):
    """One leaf of the params that has slots."""

    path: tuple[Any, ...]
    text: str  # as in messages, and as key

    @property
    def dotted(self) -> str:
        """The path as torch would write it."""
        return ".".join(map(str, path_keys(self.path)))


def trained_leaves(states: Sequence[OptState]) -> list[Leaf]:
    """The leaves that have a slot in any of the states, in the order of the params."""
    with_slot: set[str] = set()
    order: dict[str, Leaf] = {}
    for state in states:
        for tree in state.slots.values():
            with_slot |= {path_text(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]}
            order |= {path_text(path): Leaf(path, path_text(path)) for path in slot_paths(tree)}
    return [leaf for text, leaf in order.items() if text in with_slot]


def pair(
    owner: str, state_dict: Mapping[str, Any], names: Sequence[str | None] | None, leaves: Sequence[Leaf]
) -> dict[str, Any]:
    """For each leaf, by its path's text, torch's number of the parameter.

    Raises:
        ValueError: The names do not match one to one.
    """
    groups = state_dict["param_groups"]
    numbers = [number for group in groups for number in group["params"]]
    shown = ", ".join(leaf.dotted for leaf in leaves)
    if not leaves:
        return {}
    if names is None:
        names = _torch_names(groups, numbers)
    if names is None:
        if not _is_sequence(leaves):
            raise ValueError(
                f"{owner}: torch numbers its parameters. Pass names, the path of each in the order of torch, such as"
                f" [name for name, _ in model.named_parameters()] by the names of jgd's params: {shown}."
            )
        names = [leaf.dotted for leaf in leaves]
    if len(names) != len(numbers):
        raise ValueError(f"{owner}: got {len(names)} names for {len(numbers)} parameters of torch; leaves: {shown}.")
    known = {
        spelling: leaf.text for leaf in leaves for spelling in (leaf.text, leaf.dotted, leaf.dotted.replace(".", "/"))
    }
    number_of: dict[str, Any] = {}
    for name, number in zip(names, numbers, strict=True):
        if name is None:
            continue
        if name not in known:
            raise ValueError(f"{owner}: no leaf has slots at {name!r}; those that have are {shown}.")
        if known[name] in number_of:
            raise ValueError(f"{owner}: two parameters of torch are named {name!r}.")
        number_of[known[name]] = number
    return number_of


def _torch_names(groups: Sequence[Mapping[str, Any]], numbers: Sequence[Any]) -> Sequence[str] | None:
    if all("param_names" in group for group in groups):
        return [name for group in groups for name in group["param_names"]]
    return list(numbers) if numbers and all(isinstance(number, str) for number in numbers) else None


def _is_sequence(leaves: Sequence[Leaf]) -> bool:
    """Whether the order of the params is the caller's: one array, or a list of them."""
    return len(leaves) == 1 or all(
        len(leaf.path) == 1 and isinstance(leaf.path[0], jax.tree_util.SequenceKey) for leaf in leaves
    )
