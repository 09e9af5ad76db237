"""The picture of a rule: its path down two surfaces, from one start, with the learning rate that ends lowest.

Both surfaces are `a (s - x)^2 + b (y - k x^2 - c)^2`, so that one compiled scan runs every learning rate on both.
"""

import collections
import io
import re

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

import jgd

STEPS = 300
CLOSE = 1e-4  # values below it count as alike, and then the smaller learning rate is taken
LAST = 10  # a learning rate is judged by the largest value over so many steps at the end
HIGHEST = 5  # and passed over where the value exceeds so many times the first, if others do not
RATES = [float(f"{digit}e{power}") for power in range(-4, 1) for digit in (1, 2, 5)] + [10.0]

# a, s, b, k, c; the start; the window; the title.
SURFACES = {
    "valley": ((0.5, 1.0, 50.0, 0.0, 1.0), (-3.0, 2.0), (-3.6, 3.0, -0.15, 2.4), "Valley"),
    "rosenbrock": ((1.0, 1.0, 100.0, 1.0, 0.0), (-1.2, 1.0), (-1.8, 1.6, -0.6, 2.4), "Rosenbrock"),
}
COEFFICIENTS = np.array([surface[0] for surface in SURFACES.values()], np.float32)
STARTS = np.array([surface[1] for surface in SURFACES.values()], np.float32)
MINIMUM = (1.0, 1.0)

# What says nothing about the formula when two programs are compared.
_SHAPES = (
    "reshape",
    "broadcast_in_dim",
    "squeeze",
    "transpose",
    "convert_element_type",
    "copy",
    "slice",
    "pjit",
    "jit",
)
_INK, _PATH = "#808488", "#e8590c"  # an ink that is read on white and on near-black alike
_COLORS = LinearSegmentedColormap.from_list("jgd", ["#22313a", "#5f7d8c", "#a9bfca", "#eef3f5"])
_NUMBER = re.compile(r"-?\d+\.\d{2,}")
_LOW, _HIGH = -3, 3  # decades of the colours


def height(coefficients, x, y):
    """The surface at a point, or at arrays of points."""
    a, s, b, k, c = coefficients
    return a * (s - x) ** 2 + b * (y - k * x**2 - c) ** 2


def update_with_everything(optimizer, coefficients, params, state):
    """One update, told all that any rule asks for, in so far as it takes it."""

    def value_fn(p):
        return height(coefficients, *p.reshape(2))

    value, grads = jax.value_and_grad(value_fn)(params)
    line_search = {"value": value, "grad": grads, "value_fn": value_fn}
    # Some updates hand on what they do not know, to a function that then refuses it.
    attempts = (line_search | {"obj_fn": value_fn, "grad_fn": lambda p, *_: jax.grad(value_fn)(p)}, line_search, {})
    first_error = None
    for known in attempts:
        try:
            return optimizer.update(grads, state, params, **known)
        except TypeError as error:
            first_error = first_error or error
    raise first_error


def looks_at_matrices(make):
    """Whether the rule does something else with a matrix of two numbers than with a vector of two."""

    def primitives(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name not in _SHAPES:
                yield equation.primitive.name
            for parameter in jax.tree.leaves(list(equation.params.values())):
                inner = getattr(parameter, "jaxpr", parameter)
                if hasattr(inner, "eqns"):
                    yield from primitives(inner)

    def count(shape):
        def one_update(params):
            optimizer = make(0.1)
            return update_with_everything(optimizer, COEFFICIENTS[0], params, optimizer.init(params))[0]

        return collections.Counter(primitives(jax.make_jaxpr(one_update)(jnp.ones(shape)).jaxpr))

    return count((1, 2)) != count((2,))


def walk(make, shape):
    """Paths `[surface, rate, step, 2]` of the params that are evaluated, the start included."""
    read = getattr(jgd, "eval_params", lambda _, params: params)

    def path(rate, coefficients, start):
        optimizer = make(rate)
        params = start.reshape(shape)

        def body(carry, _):
            params, state = carry
            updates, state = update_with_everything(optimizer, coefficients, params, state)
            params = jgd.apply_updates(params, updates)
            return (params, state), read(state, params).reshape(2)

        _, points = jax.lax.scan(body, (params, optimizer.init(params)), None, STEPS)
        return jnp.concatenate([start[None], points])

    over_rates = jax.vmap(path, (0, None, None))
    return np.asarray(jax.jit(jax.vmap(over_rates, (None, 0, 0)))(jnp.array(RATES), COEFFICIENTS, STARTS))


def best_paths(make, shape):
    """For each surface the path with the best learning rate, that rate, and the value at the end."""
    best = {}
    for name, coefficients, paths in zip(SURFACES, COEFFICIENTS, walk(make, shape), strict=True):
        values = height(coefficients, paths[..., 0], paths[..., 1])
        scores = np.where(np.all(np.isfinite(values), axis=-1), np.max(values[:, -LAST:], axis=-1), np.inf)
        scores = np.maximum(scores, CLOSE)
        tame = np.isfinite(scores) & (np.max(values, axis=-1) <= HIGHEST * values[:, 0])
        i = int(np.argmin(np.where(tame, scores, np.inf) if np.any(tame) else scores))
        if not np.isfinite(scores[i]):
            raise ValueError(f"nothing stays finite on the {name}")
        best[name] = (paths[i], RATES[i], float(values[i, -1]))
    return best


def draw(best, swept=True):
    """The picture as SVG, both surfaces side by side; `swept` is whether there was a learning rate to choose."""
    settings = {"svg.fonttype": "none", "svg.hashsalt": "jgd", "font.sans-serif": ["DejaVu Sans"], "font.size": 10}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(7.4, 3.0), layout="constrained")
        axes = figure.subplots(1, 2)
        for ax, (name, (path, rate, _)) in zip(axes, best.items(), strict=True):
            coefficients, start, window, title = SURFACES[name]
            filled = _surface(ax, coefficients, window)
            shown = np.clip(path, [window[0] - 9, window[2] - 9], [window[1] + 9, window[3] + 9])
            ax.plot(*shown.T, color="white", lw=2.6, alpha=0.8)
            ax.plot(*shown.T, color=_PATH, lw=1.2)
            ax.plot(*shown[::10].T, "o", color=_PATH, ms=3, mec="white", mew=0.4)
            ax.plot(*start, "o", color="white", ms=7, mec="black", mew=1.2)
            ax.plot(*MINIMUM, "*", color="white", ms=12, mec="black", mew=0.9)
            ax.set(xlim=window[:2], ylim=window[2:])
            ax.set_title(f"{title}, learning rate {rate:g}" if swept else title, color=_INK, fontsize=10)
            ax.locator_params(nbins=5)
            ax.tick_params(colors=_INK, labelsize=9)
            for spine in ax.spines.values():
                spine.set_color(_INK)
        bar = figure.colorbar(filled, ax=axes, pad=0.02, aspect=30)
        bar.ax.yaxis.set_major_locator(FixedLocator(range(_LOW, _HIGH + 1)))
        bar.ax.set_yticklabels([f"{10.0**power:g}" for power in range(_LOW, _HIGH + 1)])
        bar.ax.minorticks_off()
        bar.ax.tick_params(colors=_INK, labelsize=9)
        bar.outline.set_edgecolor(_INK)
        bar.set_label("value", color=_INK)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _smaller(text.getvalue())


def draw_small(best):
    """The path down the valley alone, as small as the row of a table."""
    path = best["valley"][0]
    coefficients, start, window, _ = SURFACES["valley"]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "jgd"}):
        figure = Figure(figsize=(1.2, 0.72))
        ax = figure.add_axes((0, 0, 1, 1))
        ax.axis("off")
        _surface(ax, coefficients, window, (80, 48))
        shown = np.clip(path, [window[0] - 9, window[2] - 9], [window[1] + 9, window[3] + 9])
        ax.plot(*shown.T, color="white", lw=2, alpha=0.8)
        ax.plot(*shown.T, color=_PATH, lw=1)
        ax.plot(*start, "o", color="white", ms=3, mec="black", mew=0.6)
        ax.plot(*MINIMUM, "*", color="white", ms=6, mec="black", mew=0.5)
        ax.set(xlim=window[:2], ylim=window[2:])
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _smaller(text.getvalue())


def _smaller(svg):
    """The same picture in fewer bytes: coordinates to a tenth of a point, finer than anyone sees, and no repetition."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:d|x|y|transform|width|height)="[^"]*"', _shorter, svg)
    svg = svg.replace(' style="image-rendering:crisp-edges;image-rendering:pixelated"', "")
    svg = re.sub(
        r' id="(?:text|line2d|patch|xtick|ytick|axes|figure|matplotlib|QuadMesh|LineCollection)[\w.]*"', "", svg
    )
    svg = re.sub(r">\s+<", "><", re.sub(r"[ \n]+", " ", svg))
    return re.sub(r'<g clip-path="([^"]*)">((?:<use [^>]*/>){2,})</g>', _with_one_style, svg)


def _shorter(attribute):
    text = _NUMBER.sub(lambda number: f"{float(number.group()):.1f}".removesuffix(".0"), attribute.group())
    # A line goes on without being told.
    return text if "C" in text else re.sub(r"(?<=\d)\s+L (?=[-\d])", " ", text)


def _with_one_style(group):
    style = re.search(r' style="[^"]*"', group[2])[0]
    return f'<g clip-path="{group[1]}"{style}>{group[2].replace(style, "")}</g>'


def _surface(ax, coefficients, window, pixels=(240, 180)):
    """The surface in bands of half a decade, as pixels: as contours it would be three times the file."""
    x, y = np.meshgrid(np.linspace(*window[:2], pixels[0]), np.linspace(*window[2:], pixels[1]))
    decades = np.log10(np.maximum(height(coefficients, x, y), 1e-12))
    bands = BoundaryNorm(np.arange(_LOW, _HIGH + 0.25, 0.5), _COLORS.N, extend="both")
    return ax.imshow(
        decades, extent=window, origin="lower", aspect="auto", interpolation="none", cmap=_COLORS, norm=bands
    )
