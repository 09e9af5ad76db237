"""Checks that a rule is what it says: how leaves are laid out while it runs changes none of its numbers."""

import jax

from jgd.core import GradientTransformation, PackedError, PyTree, every_rule_laid_out, pack, unpack
from jgd.testing._subject import Extra, OptimizerCheckError, Subject, as_subject, assert_close, check, gradients, scaled

_STEPS = 3
_ADVICE = " A rule that looks at more than single entries, such as norms or shapes, says kind='leaf' or kind='matrix'."
_TOGETHER = {
    "elementwise": "the leaves of an elementwise rule packed in one vector",
    "leaf": "leaves of one shape stacked",
    "matrix": "matrices of one shape stacked",
}


@check
def check_layouts(
    optimizer: GradientTransformation, *, params: PyTree = None, extra: Extra = None, rtol: float = 1e-4
) -> None:
    """Leaves packed or stacked together give the updates that each gives alone.

    They do not where a rule of norms says that it is elementwise: in one vector with others, its norm is that of all.
    Rules that `jgd.core.lift` lifted are laid out anew, wherever they stand in chains and wrappers: small leaves of
    elementwise rules in one vector (by `jgd.pack`, where the optimizer takes packed params), leaves of one shape of
    other rules stacked. Optimizers of optax say nothing of layouts, and pass.

    Args:
        optimizer: Any optax optimizer.
        params: As for `check_optimizer`.
        extra: As for `check_optimizer`.
        rtol: By how much an entry may differ, relative to the largest of its leaf.

    Raises:
        OptimizerCheckError: An update or the last state differs.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.core import Rule, lift
        >>> from jgd.testing import check_layouts
        >>> def unit_step(grad, slots, param, hyper, step):
        ...     return -hyper["learning_rate"] * grad / jnp.linalg.norm(grad), {}
        >>> check_layouts(lift(Rule(unit_step, kind="leaf"), {"learning_rate": 0.1}, name="unit_step"))
        >>> wrong = lift(Rule(unit_step), {"learning_rate": 0.1}, name="unit_step")
        >>> check_layouts(wrong)  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        OptimizerCheckError: check_layouts: with the leaves of an elementwise rule packed in one vector update 1 ...
    """
    subject = as_subject(optimizer, params, extra)
    start, grads = subject.params, [gradients(subject.params, seed) for seed in range(_STEPS)]
    kinds = _kinds_of(subject, start, grads[0])
    if not kinds:
        return
    if subject.is_default and kinds != {"elementwise"}:
        start, *grads = map(_with_twins, (start, *grads))
    alone = _run(subject, start, grads, "alone")
    together, allowed = _run_packed(subject, start, grads), rtol
    if together is None:
        together = _run(subject, start, grads, "packed")
    elif any(leaf.dtype.itemsize < 4 for leaf in jax.tree.leaves(together[1])):
        allowed = max(rtol, 0.05)  # slots of 16 bits are rounded at random, otherwise where they lie elsewhere
    what = " and ".join(_TOGETHER[kind] for kind in sorted(kinds))
    try:
        for number, (actual, expected) in enumerate(zip(together[0], alone[0], strict=True), 1):
            assert_close(f"with {what} update {number}", actual, expected, allowed, "with each leaf alone", start)
        assert_close(f"with {what} the state", together[1], alone[1], allowed, "with each leaf alone")
    except OptimizerCheckError as error:
        raise OptimizerCheckError(f"{error}{_ADVICE if 'elementwise' in kinds else ''}") from None


def _kinds_of(subject: Subject, params: PyTree, grads: PyTree) -> set[str]:
    """The kinds of the rules that may be laid out."""
    with every_rule_laid_out("alone") as kinds:
        jax.eval_shape(lambda: subject.plain_step(grads, subject.init(params), params))
    return kinds


def _with_twins(tree: PyTree) -> PyTree:
    """Two leaves of each shape, since leaves of one shape are what is stacked; of other sizes, for the norms."""
    return {"first": tree, "second": scaled(tree, 3.0)}


def _run(subject: Subject, params: PyTree, grads: list[PyTree], layout: str) -> tuple[list[PyTree], PyTree]:
    """All updates, and the last state."""
    step = jax.jit(lambda *arguments: subject.plain_step(*arguments))  # of this layout: traced anew
    state, all_updates = subject.init(params), []
    with every_rule_laid_out(layout):
        for grad in grads:
            updates, state, params = step(grad, state, params)
            all_updates.append(updates)
    return all_updates, state


def _run_packed(subject: Subject, params: PyTree, grads: list[PyTree]) -> tuple[list[PyTree], PyTree] | None:
    """The same with packed params; None where the optimizer refuses them, or is optax's and knows nothing of them."""
    if not subject.of_jgd:
        return None
    try:
        return unpack(_run(subject, pack(params), [pack(grad) for grad in grads], "alone"))
    except PackedError:
        return None
