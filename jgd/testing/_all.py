"""All checks in one call."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from jgd.core import GradientTransformation, PyTree, checked
from jgd.testing._hyperparams import check_hyperparams
from jgd.testing._layouts import check_layouts
from jgd.testing._numbers import check_descends, check_huge_gradients, check_low_precision, check_zero_gradients
from jgd.testing._programs import check_donation, check_jit_equals_eager, check_one_trace, check_vmap_equals_loop
from jgd.testing._structure import (
    check_abstract_init,
    check_integer_leaves,
    check_none_and_empty_leaves,
    check_state_types,
)
from jgd.testing._subject import Extra, OptimizerCheckError, as_subject
from jgd.testing._traces import check_trace

#: Every check that needs nothing but the optimizer, by name.
CHECKS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (
        check_jit_equals_eager,
        check_vmap_equals_loop,
        check_one_trace,
        check_donation,
        check_layouts,
        check_hyperparams,
        check_state_types,
        check_abstract_init,
        check_none_and_empty_leaves,
        check_integer_leaves,
        check_zero_gradients,
        check_huge_gradients,
        check_low_precision,
        check_descends,
    )
}


@checked
def check_optimizer(
    optimizer: GradientTransformation,
    *,
    params: PyTree = None,
    skip: Sequence[str] = (),
    extra: Extra = None,
    trace: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Literal["passed", "skipped"]]:
    """Runs every check of `jgd.testing` on an optimizer, of jgd, optax or your own.

    Args:
        optimizer: Any optax optimizer: what has `init(params)` and `update(grads, state, params)`.
        params: Params to check it on, a tree of a few small arrays; by default a matrix, a vector, a scalar and a
            stack of matrices. Their dtype is changed where a check is about dtypes.
        skip: Names of checks that do not apply, such as `["check_integer_leaves"]`.
        extra: What `update` needs beside them, `{"value": 1.0}`, or a function `extra(params, grads)` that returns
            it: `lambda params, grads: {"value": jgd.testing.quadratic(params)}`.
        trace: What `record_trace` returned for this optimizer, these params and extra arguments; then `check_trace`
            runs as well.

    Returns:
        The name of every check to `"passed"` or `"skipped"`.

    Raises:
        OptimizerCheckError: At least one check failed. The message lists all that did; so does its attribute
            `failures`, a dict.
        ValueError: `skip` has a name that no check has.

    Examples:
        >>> import jgd
        >>> from jgd.testing import check_optimizer
        >>> report = check_optimizer(jgd.sgd(0.1, momentum=0.9), skip=["check_low_precision"])
        >>> report["check_donation"], report["check_low_precision"]
        ('passed', 'skipped')
    """
    checks = dict(CHECKS)
    if trace is not None:
        checks["check_trace"] = lambda subject: check_trace(subject, trace)
    skipped = {skip} if isinstance(skip, str) else set(skip)
    unknown = sorted(skipped - set(checks) - {"check_trace"})
    if unknown:
        raise ValueError(f"check_optimizer: skip names no check: {unknown}. The checks are {', '.join(checks)}.")
    subject = as_subject(optimizer, params, extra)
    report: dict[str, Literal["passed", "skipped"]] = {}
    failures: dict[str, str] = {}
    for name, run in checks.items():
        if name in skipped:
            report[name] = "skipped"
            continue
        try:
            run(subject)
            report[name] = "passed"
        except OptimizerCheckError as error:
            failures |= error.failures
    if failures:
        lines = [f"{len(failures)} of {len(checks) - len(skipped)} checks failed"]
        raise OptimizerCheckError("\n  ".join([*lines, *(f"{k}: {v}" for k, v in failures.items())]), failures)
    return report
