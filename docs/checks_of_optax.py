"""Writes `pages/checks-of-optax.md`: which of jgd's checks the optimizers of optax pass.

Run it:  python docs/checks_of_optax.py    (some minutes)
"""

import collections
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jgd.testing import CHECKS, OptimizerCheckError, check_optimizer, quadratic

PAGE = Path(__file__).parent / "pages/checks-of-optax.md"

CALLS = """
optax.adabelief(1e-2)
optax.adadelta(1.0)
optax.adafactor(1e-2)
optax.adagrad(1e-1)
optax.adam(1e-2)
optax.adamax(1e-2)
optax.adamaxw(1e-2)
optax.adamw(1e-2)
optax.adan(1e-2)
optax.amsgrad(1e-2)
optax.fromage(1e-2)
optax.lamb(1e-2)
optax.lars(1e-1)
optax.lbfgs()
optax.lion(1e-2)
optax.nadam(1e-2)
optax.nadamw(1e-2)
optax.noisy_sgd(1e-2, key=0)
optax.novograd(1e-2)
optax.optimistic_adam_v2(1e-2)
optax.optimistic_gradient_descent(1e-1)
optax.polyak_sgd()
optax.radam(1e-2)
optax.rmsprop(1e-2)
optax.rprop(1e-2)
optax.sgd(1e-1)
optax.sgd(1e-1, momentum=0.9)
optax.sign_sgd(1e-2)
optax.signum(1e-2)
optax.sm3(1e-1)
optax.yogi(1e-2)
optax.MultiSteps(optax.sgd(1e-1), 2)
optax.apply_if_finite(optax.adam(1e-2), 3)
contrib.acprop(1e-2)
contrib.ademamix(1e-2)
contrib.adopt(1e-2)
contrib.cocob()
contrib.dadapt_adamw()
contrib.dog()
contrib.dowg()
contrib.galore(1e-2, rank=2)
contrib.madgrad(1e-2)
contrib.mechanize(optax.sgd(1e-1))
contrib.momo()
contrib.momo_adam()
contrib.muon(1e-2)
contrib.prodigy()
contrib.sam(optax.sgd(1e-1), optax.sgd(1e-2))
contrib.schedule_free_adamw(1e-2)
contrib.schedule_free_sgd(1e-1)
contrib.simplified_ademamix(1e-4)
contrib.sophia(1e-2)
"""

# What the updates of some read beside the gradients.
EXTRA = {
    "lbfgs": ("value", "grad", "value_fn"),
    "momo": ("value",),
    "momo_adam": ("value",),
    "polyak_sgd": ("value",),
    "sophia": ("obj_fn",),
}

INTRODUCTION = """# What optax's optimizers pass

`jgd.testing.check_optimizer` takes any optimizer that speaks optax's protocol. This page is what it finds in optax's
own, with their default arguments and a usual learning rate; `python docs/checks_of_optax.py` writes it.

A failed check is a promise that does not hold, not always one that was made: optax keeps moments in the dtype of the
params, and leaves integer leaves to `optax.masked` or `optax.partition`. `noisy_sgd` draws other noise in each dtype,
which is no fault, and is not asked for `low_precision`. `sm3` refuses scalars, and is checked without one. `dpsgd`,
whose gradients are those of single examples, does not fit the checks. `layouts` and `hyperparams` ask for what
jgd's optimizers say of themselves, and so nothing of these.
"""


def failures_of(call: str) -> dict[str, str]:
    """Name to message of each check that fails."""
    # Fixed strings of this file: the page shows what runs.
    optimizer: Any = eval(call, {"optax": optax, "contrib": contrib})
    names = EXTRA.get(call.split("(")[0].split(".")[1], ())

    def extra(params: Any, grads: Any) -> dict[str, Any]:
        known = {"value": quadratic(params), "grad": grads, "value_fn": quadratic, "obj_fn": quadratic}
        return {name: known[name] for name in names}

    params = {"matrix": jnp.ones((4, 3)), "vector": jnp.ones(3)} if "sm3" in call else None
    skip = ["check_low_precision"] if "noisy" in call else []
    try:
        check_optimizer(optimizer, params=params, skip=skip, extra=extra)
    except OptimizerCheckError as error:
        return error.failures
    return {}


def short(name: str) -> str:
    """The check's name without what all names begin with."""
    return name.removeprefix("check_")


def page(results: dict[str, dict[str, str]]) -> str:
    """The page's text."""
    counts = collections.Counter(name for failures in results.values() for name in failures)
    common = [name for name in CHECKS if counts[name] == len(results)]
    others = {call: [short(name) for name in found if name not in common] for call, found in results.items()}
    versions = ", ".join(f"{name} {version(name)}" for name in ("jax", "optax", "chex"))
    lines = [
        INTRODUCTION,
        f"Run with {versions}, on {jax.default_backend().upper()}. All {len(results)} fail"
        f" {', '.join(map(short, common)) or 'none together'}; {sum(not failed for failed in others.values())} pass all"
        f" of the other {len(CHECKS) - len(common)} checks. A check stops at the first thing that it finds.\n",
        "| optimizer | fails |",
        "| --- | --- |",
        *(f"| `{call}` | {', '.join(failed) or 'none'} |" for call, failed in others.items()),
        "\n## By check\n",
        "| check | fail | for example |",
        "| --- | --- | --- |",
    ]
    for name in CHECKS:
        example = next(((call, found[name]) for call, found in results.items() if name in found), None)
        shown = f"`{example[0]}`: {escaped(example[1])}" if example else ""
        lines.append(f"| {short(name)} | {counts[name]} | {shown} |")
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """A message as text in a table."""
    for sign in "\\|[]_*<>":
        text = text.replace(sign, "\\" + sign)
    return text


def main() -> None:
    """Checks one optimizer after the other, and writes the page."""
    warnings.simplefilter("ignore")
    results = {}
    for call in CALLS.split("\n")[1:-1]:
        started = time.process_time()
        results[call] = failures_of(call)
        print(
            f"{call}: {', '.join(map(short, results[call])) or 'passes'} ({time.process_time() - started:.1f} s)",
            flush=True,
        )
    PAGE.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
