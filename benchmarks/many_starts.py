"""Many starts at once: `vmap` over `jgd.minimize`, next to a loop over scipy's L-BFGS-B.

    python benchmarks/many_starts.py
    python benchmarks/many_starts.py --starts 10000 --rounds 5 --budget 300

Rosenbrock's function of two variables from normal starts, to a gradient of 1e-6 in float64. scipy is given a function
in NumPy with its gradient by hand, and a compiled one; of the loop a hundredth is run and scaled up. Times are without
compilation.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from timing import Contestant, add_common_options, alternate, header, medians, print_table, write_json

from jgd.minimizers import minimize

TOL = 1e-6
#: What part of the loop is run.
PART = 100


def rosenbrock(x: Any) -> Any:
    """The function, for either library."""
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def by_hand(x: np.ndarray) -> tuple[float, np.ndarray]:
    """The value and the gradient in NumPy."""
    valley = x[1] - x[0] ** 2
    return rosenbrock(x), np.array([-400 * x[0] * valley - 2 * (1 - x[0]), 200 * valley])


def loop(fun: Callable[[np.ndarray], Any], starts: np.ndarray) -> list[Any]:
    """The runs of scipy."""
    options = {"gtol": TOL, "ftol": 0.0}
    return [scipy.optimize.minimize(fun, x, jac=True, method="L-BFGS-B", options=options) for x in starts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=10)
    add_common_options(parser)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    print(header().removesuffix("; float32"), flush=True)

    starts = 2 * np.random.default_rng(0).normal(size=(options.starts, 2))
    few = starts[: max(1, options.starts // PART)]
    together = jax.jit(jax.vmap(lambda x: minimize(rosenbrock, x, tol=TOL)))
    compiled = jax.jit(jax.value_and_grad(rosenbrock))

    def on_host(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = compiled(jnp.asarray(x))
        return float(value), np.asarray(gradient)

    def by_scipy(fun: Callable[[np.ndarray], Any]) -> Contestant:
        return Contestant(lambda turns: [loop(fun, few) for _ in range(turns)], 1, len(few))

    contestants = {
        "jgd, vmap": Contestant(
            lambda turns: [jax.block_until_ready(together(starts)) for _ in range(turns)], 5, len(starts)
        ),
        "scipy, NumPy": by_scipy(by_hand),
        "scipy, compiled": by_scipy(on_host),
    }
    sessions = [alternate(contestants, options.rounds, options.budget or float("inf"))]
    found = together(starts)
    arrived = {"jgd, vmap": int(jnp.sum(found.converged)) / len(starts)}
    arrived |= {
        name: sum(np.max(np.abs(run.jac)) <= TOL for run in loop(fun, few)) / len(few)
        for name, fun in (("scipy, NumPy", by_hand), ("scipy, compiled", on_host))
    }
    base = medians(sessions)["jgd, vmap"]
    rows = [
        {
            "who": name,
            "ms for all": f"{ms * len(starts):.4g}",
            "time / jgd's": f"{ms / base:.1f}",
            "converged": f"{arrived[name]:.3f}",
        }
        for name, ms in medians(sessions).items()
    ]
    print_table(f"{len(starts)} starts", rows)
    write_json(options.json, rows)


if __name__ == "__main__":
    main()
