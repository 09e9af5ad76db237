"""The optimizers that take part: each rule as jgd makes it, in one layout or another, and as its peer does."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from trees import TREES, size

import jgd

Make = Callable[[], optax.GradientTransformation]

#: How each rule is made of a library that is jgd or optax, with further options of jgd's.
RULES: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": lambda library, **options: library.sgd(0.1, momentum=0.9, **options),
    "adam": lambda library, **options: library.adam(1e-3, **options),
    "adamw": lambda library, **options: library.adamw(1e-3, **options),
    "lion": lambda library, **options: library.lion(1e-4, **options),
    "clip+adamw": lambda library, **options: library.chain(
        library.clip_by_global_norm(1.0), library.adamw(1e-3, **options)
    ),
    "muon": lambda library, **options: (optax.contrib if library is optax else library).muon(0.02, **options),
    "musgd": lambda library, **options: library.musgd(0.02, **options),
    # Both refresh their matrices every tenth step, SOAP by default and Shampoo as its docstring advises.
    "soap": lambda library, **options: library.soap(3e-3, **options),
    "shampoo": lambda library, **options: library.shampoo(3e-3, precondition_frequency=10, **options),
}
#: No layout of an update: small leaves packed from step to step, by `jgd.pack`.
KEPT = "kept"
#: Rules that optax lacks are compared with jgd's AdamW.
WITHOUT_PEER = ("musgd", "soap", "shampoo")
MATRIX_RULES = ("muon", *WITHOUT_PEER)
MATRIX_TREES = ("muon200", "muon48")
#: Parameters of a tree on which a step of these rules takes minutes on a CPU.
MANY = 2e6


def optimizers(rule: str, layouts: Sequence[str]) -> dict[str, Make]:
    """By name what makes a rule's optimizers: jgd's in each layout, last the one that they are compared with."""
    made: dict[str, Make] = {
        f"jgd {layout}": functools.partial(RULES[rule], jgd, layout="alone" if layout == KEPT else layout)
        for layout in layouts
        if layout != KEPT or rule not in MATRIX_RULES  # which refuse packed params
    }
    if rule in WITHOUT_PEER:
        return made | {"jgd adamw": functools.partial(RULES["adamw"], jgd)}
    return made | {"optax": functools.partial(RULES[rule], optax)}


def reference_of(rule: str) -> str:
    """The contestant that a rule's others are compared with."""
    return "jgd adamw" if rule in WITHOUT_PEER else "optax"


def pick_layouts(names: str) -> list[str]:
    """Comma-separated names of layouts; those that this version of jgd refuses are left out, and a line says so."""
    known = []
    for name in names.split(","):
        try:
            jgd.sgd(0.1, layout="alone" if name == KEPT else name)
        except ValueError as error:
            print(f"left out: {error}")
        else:
            known.append(name)
    if not known:
        raise SystemExit("no layout is left")
    return known


def packed_if_kept(name: str, tree: Any) -> Any:
    """The tree as the contestant of that name takes it."""
    return jgd.pack(tree) if name == f"jgd {KEPT}" else tree


def apply_of(optimizer: optax.GradientTransformation) -> Callable[[Any, Any], Any]:
    """The optimizer's own library's `apply_updates`."""
    return jgd.apply_updates if isinstance(optimizer, jgd.Optimizer) else optax.apply_updates


def step_of(optimizer: optax.GradientTransformation) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """The jitted step `(params, state, grads) -> (params, state)`, which reuses the memory of params and state."""
    apply_updates = apply_of(optimizer)

    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(grads, state, params)
        return apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1))


def abstract_params(name: str, tree: str) -> Any:
    """A tree without its numbers, as the contestant of that name takes it."""
    plain = {leaf: jax.ShapeDtypeStruct(shape, jnp.float32) for leaf, shape in TREES[tree]().items()}
    return jax.eval_shape(lambda params: packed_if_kept(name, params), plain)


def split_rows(trees: Sequence[str], rules: Sequence[str], *, runs: bool) -> list[tuple[str, ...]]:
    """The pairs of tree and rule that are measured; a line says which are not, and why.

    Args:
        trees: Names.
        rules: Names.
        runs: Whether steps are made, of which a rule of matrices needs minutes where they are large and the device is
            a CPU.
    """
    pairs, slow, pointless = [], [], []
    for tree in trees:
        for rule in rules:
            has_matrices = any(len(shape) > 1 for shape in TREES[tree]().values())
            if not has_matrices if rule in MATRIX_RULES else tree in MATRIX_TREES:
                pointless.append(f"{rule} on {tree}")
            elif runs and rule in MATRIX_RULES and size(tree) > MANY and jax.default_backend() == "cpu":
                slow.append(f"{rule} on {tree}")
            else:
                pairs.append((tree, rule))
    for names, why in (
        (slow, "takes minutes on a CPU"),
        (pointless, "a rule of matrices without any, or only matrices for another"),
    ):
        if names:
            print(f"left out: {', '.join(names)} ({why})")
    return pairs
