"""Why a run stopped, and what would help, in sentences."""

import math

from jgd.core import Array
from jgd.minimizers.loop._fields import Fields, Status


def sentences(result: Fields) -> str:
    """Why one run stopped: one to three sentences."""
    status = Status(int(result.status))
    steps = f"{int(result.steps)} step" + ("" if int(result.steps) == 1 else "s")
    here = f"value {_text(result.value)}, gradient norm {_text(result.grad_norm)}, tol {_text(result.tol)}"
    first, last = _text(result.path.first_value), _text(result.value)
    reasons = {
        Status.RUNNING: f"Still running after {steps}: {here}.",
        Status.CONVERGED: (
            f"Converged in {steps}: the gradient norm {_text(result.grad_norm)} is at most tol {_text(result.tol)}"
            f" (value {last})."
        ),
        Status.SMALL_STEP: (
            f"Stopped after {steps}, as the last one changed no entry of params by more than the spacing of its dtype:"
            f" {here}. This is as near as the dtype can tell, or the steps are far too small."
        ),
        Status.SMALL_DECREASE: (
            f"Stopped after {steps}, as the value no longer decreases by more than its rounding error: {here}. A wider"
            " dtype, or value_dtype, would show more."
        ),
        Status.MAX_STEPS: f"Stopped at max_steps, after {steps}: {here}.",
        Status.DIVERGED: f"Diverged: the value rose from {first} to {last} in {steps}.",
        Status.LINE_SEARCH_FAILED: (
            f"Line search failed after {steps}: no lower value along the negative gradient; {here}. Check the gradient"
            " (jax.test_util.check_grads), and the function for jumps."
        ),
        Status.NON_FINITE: (
            f"Stopped after {steps}, as the value or the gradient became infinite or NaN. The params returned are the"
            f" last ones where both were finite: {here}."
        ),
        Status.UNBOUNDED: f"Unbounded below: the value fell from {first} to {last} in {steps}.",
        Status.INFEASIBLE: (
            f"Infeasible: after {steps} the constraints are violated by {_text(_or_zero(result.violation))}, however"
            f" large the penalty: {here}. Check their signs (inequality <= 0), or start elsewhere."
        ),
    }
    sentence = reasons[status]
    if result.violation is not None and status != Status.INFEASIBLE:
        sentence += f" The constraints are violated by at most {_text(result.violation)}."
    if status == Status.NON_FINITE and int(result.steps) == 0:
        sentence = "Not started: the value or the gradient at the start is infinite or NaN."
    advice = _overshoot(result) if status in (Status.DIVERGED, Status.NON_FINITE, Status.MAX_STEPS) else ""
    if not advice and status == Status.MAX_STEPS:
        advice = _crawl(result)
    return f"{sentence} {advice}".strip()


def largest_step(result: Fields) -> float:
    """The largest stable step size of gradient descent by the curvature of the path; infinite where it has none."""
    curvature = float(result.path.curvature)
    return 2 / curvature if curvature > 0 else math.inf


def rate_of(result: Fields) -> float:
    """The factor by which the gradient norm changes in a step; NaN with fewer than two steps."""
    path, steps = result.path, int(result.steps)
    before, span = float(path.half_norm), steps - int(path.half_step)
    if span < 1 or steps < 2 or not before > 0:
        return math.nan
    return (float(result.grad_norm) / before) ** (1 / span)


def _overshoot(result: Fields) -> str:
    """Advice on steps that are too long, or nothing."""
    largest, status = largest_step(result), Status(int(result.status))
    rose = not float(result.value) <= float(result.path.first_value)
    # steps too long along the gradient may bounce between the walls of a valley: the value need not rise then
    bounces = status == Status.MAX_STEPS and not rate_of(result) < 1 - 1e-3
    size = float(result.path.step_size) if rose else float(result.path.rate)
    if not ((rose or bounces) and size > largest):
        return ""
    return (
        f"Steps of size {_text(size)} overshoot: the curvature along the path reaches L = {_text(2 / largest)}, and"
        f" steps above 2/L = {_text(largest)} are not stable; try 1/L = {_text(largest / 2)}."
    )


def _crawl(result: Fields) -> str:
    """Advice on a run that converges slowly, or nothing."""
    rate, size, tol = rate_of(result), float(result.grad_norm), float(result.tol)
    if not rate < 1 - 1e-12:
        return "The gradient norm does not decrease." if rate >= 1 else ""
    if not 0 < tol < size:
        return ""
    more = math.ceil(math.log(tol / size) / math.log(rate))
    sentence = f"The gradient norm falls by a factor of {rate:.6g} a step: at that rate it takes {more} steps more."
    step, largest = float(result.path.step_size), largest_step(result)
    if 0 < step < largest / 20:
        sentence += f" Steps of size {_text(step)} crawl: up to 2/L = {_text(largest)} seems stable."
    return sentence


def _or_zero(number: Array | None) -> Array | float:
    return 0.0 if number is None else number


def _text(number: Array | float) -> str:
    return f"{float(number):.4g}"
