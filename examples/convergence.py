"""Where does it go, and why does it stop? Six ways down one curved valley, by `jgd.minimize`.

Run it:  python examples/convergence.py    (10 seconds)

The valley is Rosenbrock's, a little less narrow: floor and walls differ by a factor of 260. All start at the same point
and may take 2,000 steps to a gradient of 1e-3. It prints a table and draws `convergence.png`, where each dot is a step.

Gradient descent with a rate that fits takes 1,468 steps. With a fiftieth of it the steps are used up far from the
minimum; with one above 2 / curvature it is thrown from wall to wall, and would be for ever. `explain` tells one from
the other. Momentum takes 169 steps, L-BFGS and Newton-CG, which learn or use the curvature, 20 and 14.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from jgd.minimizers import LBFGS, GradientDescent, HeavyBall, NewtonCG, Status, explain, minimize

START, MINIMUM = (-1.2, 1.0), (1.0, 1.0)
TOL, MAX_STEPS = 1e-3, 2000
METHODS = {
    "Gradient descent, rate too small": GradientDescent(0.0002),
    "Gradient descent, rate that fits": GradientDescent(0.01),
    "Gradient descent, rate too large": GradientDescent(0.025),
    "Momentum": HeavyBall(0.01, 0.9),
    "L-BFGS": LBFGS(),
    "Newton-CG": NewtonCG(),
}
PAPER, INK, FAINT, PATH = "#ffffff", "#1c2733", "#66727f", "#e8453c"


class Row(NamedTuple):
    """What one method came to."""

    status: int
    steps: int
    evaluations: int
    distance: float  # to the minimum


def valley(x: Any) -> Any:
    return (1 - x[0]) ** 2 + 10 * (x[1] - x[0] ** 2) ** 2


def descend(method: Any) -> tuple[Any, np.ndarray]:
    """The result, and the points [n, 2] where the function was evaluated, in their order."""
    points: list[np.ndarray] = []

    def watched(x: jax.Array) -> jax.Array:
        jax.debug.callback(lambda x: points.append(np.array(x)), x, ordered=True)
        return valley(x)

    result = jax.block_until_ready(minimize(watched, jnp.array(START), method=method, tol=TOL, max_steps=MAX_STEPS))
    jax.effects_barrier()
    return result, np.array(points)


def path_of(points: np.ndarray, steps: int) -> np.ndarray:
    """All points where there is one a step; else those lower than all before: the others were trials."""
    if len(points) == steps + 1:
        return points
    values = np.array([valley(x) for x in points])
    return points[values <= np.minimum.accumulate(values)]


def draw(paths: dict[str, np.ndarray], captions: dict[str, str], file: str) -> None:
    """One panel for each method, over the same level lines."""
    x, y = np.meshgrid(np.linspace(-1.55, 1.45, 301), np.linspace(-0.45, 1.55, 241))
    height = np.log10(valley(np.stack([x, y])) + 3e-3)
    figure = Figure(figsize=(12, 6.6), facecolor=PAPER, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12, wspace=0.02, hspace=0.03)  # type: ignore[union-attr]
    for axes, (name, path) in zip(figure.subplots(2, 3, sharex=True, sharey=True).flat, paths.items(), strict=True):
        axes.contourf(x, y, height, levels=18, cmap=mpl.colormaps["YlGnBu_r"], alpha=0.85)
        axes.contour(x, y, height, levels=18, colors="white", linewidths=0.35, alpha=0.5)
        axes.plot(*path.T, color="white", linewidth=2.6, alpha=0.75, solid_joinstyle="round")
        axes.plot(*path.T, color=PATH, linewidth=1.2, solid_joinstyle="round")
        dense = len(path) > 300  # edges of many dots would hide the dots
        edge = {"markersize": 2.2, "markeredgewidth": 0} if dense else {"markersize": 6, "markeredgewidth": 0.5}
        axes.plot(*path.T, ".", color=PATH, markeredgecolor="white", **edge)
        axes.plot(*START, "o", color=PAPER, markersize=8, markeredgecolor=INK, markeredgewidth=1.4)
        axes.plot(*MINIMUM, "*", color="#ffd23f", markersize=17, markeredgecolor=INK, markeredgewidth=0.9)
        axes.set_title(name, loc="left", fontsize=13, fontweight="bold", color=INK, pad=22)
        axes.text(0, 1.03, captions[name], transform=axes.transAxes, fontsize=10.5, color=FAINT)
        axes.set(xlim=(-1.55, 1.45), ylim=(-0.45, 1.55), xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    figure.savefig(file, dpi=110)


def main() -> dict[str, Row]:
    rows: dict[str, Row] = {}
    paths, captions, reasons = {}, {}, {}
    print(f"{'method':<34} {'status':<12} {'steps':>6} {'values':>7} {'distance':>9}")
    for name, method in METHODS.items():
        result, points = descend(method)
        status, steps, evaluations = Status(int(result.status)), int(result.steps), int(result.evaluations.values)
        distance = float(np.linalg.norm(np.asarray(result.params) - MINIMUM))
        rows[name] = Row(int(status), steps, evaluations, distance)
        word = status.name.lower().replace("_", " ")
        print(f"{name:<34} {word:<12} {steps:>6,} {evaluations:>7,} {distance:>9.5f}")
        reasons[name] = explain(result)
        paths[name] = path_of(points, steps)
        captions[name] = f"{word}: {steps:,} steps, {evaluations:,} evaluations"
    for name in ("Gradient descent, rate too small", "Gradient descent, rate too large"):
        print(f"\n{name}: {reasons[name]}")
    draw(paths, captions, "convergence.png")
    print("\ndrawn: convergence.png")
    return rows


if __name__ == "__main__":
    main()
