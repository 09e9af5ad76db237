"""Methods, line searches and bounds as `minimize` takes them: by name, as objects, in scipy's form."""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jgd.core import Array, ArrayTree, GradientTransformation, PyTree, check_kind, show_by_name
from jgd.minimizers.constrained._lbfgsb import LBFGSB, check_order
from jgd.minimizers.constrained._mirror import MirrorDescent
from jgd.minimizers.constrained._projected import ProjectedGradient
from jgd.minimizers.least_squares._methods import GaussNewton, LevenbergMarquardt
from jgd.minimizers.line_searches._armijo import Armijo
from jgd.minimizers.line_searches._hager_zhang import HagerZhang
from jgd.minimizers.line_searches._protocol import BaseLineSearch, LineSearch
from jgd.minimizers.line_searches._strong_wolfe import StrongWolfe
from jgd.minimizers.methods._barzilai_borwein import BarzilaiBorwein
from jgd.minimizers.methods._base import BaseMethod, Method
from jgd.minimizers.methods._bfgs import BFGS
from jgd.minimizers.methods._conjugate_gradient import ConjugateGradient
from jgd.minimizers.methods._from_optimizer import FromOptimizer
from jgd.minimizers.methods._gradient_descent import ExactDescent, GradientDescent, Polyak
from jgd.minimizers.methods._lbfgs import LBFGS
from jgd.minimizers.methods._momentum import HeavyBall, Nesterov
from jgd.minimizers.methods._newton import NewtonCG, TrustRegion
from jgd.minimizers.problem._flatten import flattener, refuse_complex

#: A method, its name, or an optimizer. `make_method` says what is wrong with it, not the door of a public function.
MethodLike = Annotated[str | Method | GradientTransformation, "method"]

#: A line search or its name; `make_method` says what is wrong with it.
LineSearchLike = Annotated[str | LineSearch, "line search"]

#: A pair of lower and upper bounds, each None, a number or a tree as params; or scipy's forms. `flat_bounds` says what
#: is wrong with them.
BoundsLike = Annotated[Any, "bounds"]

show_by_name(globals(), "MethodLike", "LineSearchLike", "BoundsLike")

METHODS: dict[str, type[BaseMethod]] = {
    "lbfgs": LBFGS,
    "lbfgsb": LBFGSB,
    "bfgs": BFGS,
    "gradient_descent": GradientDescent,
    "barzilai_borwein": BarzilaiBorwein,
    "exact_descent": ExactDescent,
    "polyak": Polyak,
    "heavy_ball": HeavyBall,
    "nesterov": Nesterov,
    "cg": ConjugateGradient,
    "newton_cg": NewtonCG,
    "trust_region": TrustRegion,
    "projected_gradient": ProjectedGradient,
    "mirror_descent": MirrorDescent,
    "gauss_newton": GaussNewton,
    "levenberg_marquardt": LevenbergMarquardt,
    "lm": LevenbergMarquardt,
}

LINE_SEARCHES: dict[str, type[BaseLineSearch]] = {
    "armijo": Armijo,
    "strong_wolfe": StrongWolfe,
    "hager_zhang": HagerZhang,
}

#: The method that a name stands for where there are bounds.
BOUNDED = {"lbfgs": "lbfgsb"}

#: Other libraries' names.
ALIASES = {
    "trustncg": "trust_region",
    "trustkrylov": "trust_region",
    "trustexact": "trust_region",
    "dogleg": "trust_region",
    "tnc": "newton_cg",
    "nonlinearcg": "cg",
    "conjugategradient": "cg",
    "zoom": "strong_wolfe",
    "wolfe": "strong_wolfe",
    "morethuente": "strong_wolfe",
    "backtracking": "armijo",
}
#: Methods of scipy that have no counterpart here, and what to do instead.
NO_COUNTERPART = dict.fromkeys(
    ("slsqp", "cobyla", "cobyqa", "trustconstr"), "for constraints give equality= and inequality= to minimize"
) | dict.fromkeys(("neldermead", "powell"), "all methods here use gradients; scipy.optimize.minimize has that one")


def _letters(name: str) -> str:
    """A name without case and punctuation."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _named(kind: str, name: str, table: dict[str, Any]) -> Any:
    """What a name stands for, with its default settings."""
    letters = _letters(name)
    key = {_letters(key): key for key in table}.get(letters) or ALIASES.get(letters)
    if key not in table:
        hint = f" ({NO_COUNTERPART[letters]})" if letters in NO_COUNTERPART else ""
        raise ValueError(f"minimize: {kind} must be one of {', '.join(map(repr, table))}; got {name!r}{hint}.")
    return table[key]()


def make_method(method: MethodLike, line_search: LineSearchLike | None, bounds: BoundsLike | None) -> Any:
    """The method of a name or of an optimizer, or the method itself; with another line search if one is given.

    Raises:
        ValueError: The name is unknown, the method has no line search, or there are bounds, which it does not know.
        TypeError: It is not a method.
    """
    if isinstance(method, str):
        name = BOUNDED.get(_letters(method), method) if bounds is not None else method
        made = _named("method", name, METHODS)
    else:
        made: Any = FromOptimizer(method) if isinstance(method, optax.GradientTransformation) else method
    if isinstance(made, type) or not (hasattr(made, "init") and hasattr(made, "step")):
        kind = getattr(made, "__name__", None)
        text = f"{kind} itself: call it, {kind}(...)" if kind else f"a {type(made).__name__}"
        raise TypeError(f"minimize: method must be a name, a method or an optimizer; got {text}.")
    if line_search is not None:
        made = _with_line_search(made, line_search)
    if bounds is not None and not made.handles_bounds:
        able = ", ".join(repr(name) for name, kind in METHODS.items() if kind.handles_bounds)
        raise ValueError(f"minimize: {type(made).__name__} knows no bounds; expected bounds=None or one of {able}.")
    return made.bounded() if bounds is not None and isinstance(made, LevenbergMarquardt) else made


def _with_line_search(method: Any, line_search: LineSearchLike) -> Any:
    search = _named("line_search", line_search, LINE_SEARCHES) if isinstance(line_search, str) else line_search
    if isinstance(search, type) or not (callable(search) and hasattr(search, "needs_slope")):
        known = ", ".join(map(repr, LINE_SEARCHES))
        raise TypeError(
            f"minimize: line_search must be one of {known}, or an object such as StrongWolfe(c2=0.1); got {search!r}."
        )
    if not hasattr(method, "line_search"):
        raise ValueError(f"minimize: {type(method).__name__} has no line search; expected line_search=None.")
    return dataclasses.replace(method, line_search=search)


def _from_scipy(bounds: BoundsLike, params: PyTree) -> BoundsLike:
    """Bounds in scipy's forms as a pair; all others as they are."""
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        return bounds.lb, bounds.ub
    vector = jax.tree.structure(params) == jax.tree.structure(0.0) and jnp.ndim(params) == 1
    if not (vector and isinstance(bounds, list | tuple) and len(bounds) == jnp.size(params)):
        return bounds
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in bounds):
        return bounds
    if len(bounds) == 2 and not (isinstance(bounds, list) and all(isinstance(pair, tuple) for pair in bounds)):
        raise ValueError(
            f"minimize: bounds={bounds!r} may be (lower, upper) or a pair for each entry; write"
            " (jnp.array(lower), jnp.array(upper)), or pairs as scipy has them, [(low, high), (low, high)]."
        )
    ends = [(-np.inf, np.inf) if pair is None else pair for pair in bounds]
    check_kind("minimize", "bounds", ends, ArrayTree)
    lower = [-np.inf if low is None else low for low, _ in ends]
    upper = [np.inf if high is None else high for _, high in ends]
    return (jnp.stack([jnp.asarray(low) for low in lower]), jnp.stack([jnp.asarray(high) for high in upper]))


def flat_bounds(bounds: BoundsLike | None, params: PyTree) -> tuple[Array, Array] | None:
    """Lower and upper bounds as vectors [n], infinite where there are none.

    Raises:
        ValueError: They are not a pair, do not fit the params, or a lower one is above its upper one.
    """
    if bounds is None:
        return None
    refuse_complex("minimize: bounds", params)
    bounds = _from_scipy(bounds, params)
    if not (isinstance(bounds, tuple | list | jax.Array | np.ndarray) and len(bounds) == 2):
        raise ValueError(
            f"minimize: bounds must be a pair (lower, upper); got {bounds!r}. A list of pairs becomes one by"
            " jnp.array(bounds).T."
        )
    flat = flattener(params)

    def side(bound: Any, infinity: float) -> Array:
        bound = infinity if bound is None else bound
        check_kind("minimize", "bounds", bound, ArrayTree)
        if jax.tree.structure(bound) == jax.tree.structure(0.0) and jnp.ndim(bound) == 0:
            bound = jax.tree.map(lambda leaf: jnp.full(jnp.shape(leaf), bound), params)
        try:
            return flat.ravel(jax.tree.map(lambda b, p: jnp.broadcast_to(b, jnp.shape(p)), bound, params))
        except (ValueError, TypeError) as error:
            raise ValueError(f"minimize: bounds do not fit params: {error}") from error

    pair = side(bounds[0], -jnp.inf), side(bounds[1], jnp.inf)
    check_order(pair)
    return pair
