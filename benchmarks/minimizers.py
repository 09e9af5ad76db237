"""The minimizers that take part in `minimize.py`: jgd's methods, scipy's, optimistix's and jaxopt's.

A contestant is made for one group: problems of one size whose functions are the branches of one `lax.switch`, so that
one compiled program solves them all. It is called with a start and an index, and returns a `Run`.
"""

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from jgd.minimizers import Status, minimize

Array = Any


class Group(NamedTuple):
    """Problems of one size.

    Attributes:
        fun: ``(x [n], index) -> value``.
        residuals: ``(x [n], index) -> residuals``, padded with zeros to one length; None unless all problems have them.
        value_and_grad: The compiled value and gradient of `fun`.
    """

    fun: Callable[..., Any]
    residuals: Any
    value_and_grad: Callable[..., Any]


class Run(NamedTuple):
    """What a solver ends with.

    Attributes:
        x: The point, [n].
        values: Values and gradients, or residuals, that were asked for.
        gradients: Gradients or Jacobians; NaN where the library does not say.
        products: Hessian-vector products.
        status: What the solver says of it.
    """

    x: np.ndarray
    values: float
    gradients: float
    products: float
    status: str


class Settings(NamedTuple):
    """What all solvers are asked for: the gradient's largest entry, and steps at most."""

    tol: float
    steps: int


Solver = Callable[[np.ndarray, int, Any], Run]
Make = Callable[[Group, Settings], Solver]


def of_jgd(method: str, *, squares: bool = False) -> Make:
    def make(group: Group, settings: Settings) -> Solver:
        fun: Any = group.residuals if squares else group.fun

        @jax.jit
        def solve(x: Array, i: Array, bounds: Any) -> Any:
            tol = settings.tol / 2 if squares else settings.tol  # the gradient of half the squares
            more = {} if bounds is None else {"bounds": bounds}
            found = minimize(fun, x, args=(i,), method=method, tol=tol, max_steps=settings.steps, **more)
            return found.params, found.evaluations, found.status

        def run(x: np.ndarray, i: int, bounds: Any) -> Run:
            params, evaluations, status = jax.device_get(solve(x, i, bounds))
            values, gradients, products = (int(count) for count in evaluations)
            return Run(params, values, gradients, products, Status(int(status)).name.lower())

        return run

    return make


def of_scipy(method: str) -> Make:
    def make(group: Group, settings: Settings) -> Solver:
        hessp = jax.jit(lambda x, v, i: jax.jvp(lambda x: jax.grad(group.fun)(x, i), (x,), (v,))[1])
        options: dict[str, Any] = {"maxiter": settings.steps}
        if method == "L-BFGS-B":
            options |= {"gtol": settings.tol, "ftol": 0.0, "maxfun": 20 * settings.steps}
        elif method == "Newton-CG":
            options |= {"xtol": 1e-10}
        else:
            options |= {"gtol": settings.tol}

        def run(x: np.ndarray, i: int, bounds: Any) -> Run:
            calls = [0, 0]
            dtype = x.dtype

            def value_and_grad(x: np.ndarray) -> tuple[float, np.ndarray]:
                calls[0] += 1
                value, gradient = group.value_and_grad(x.astype(dtype), i)
                return float(value), np.asarray(gradient, np.float64)

            def product(x: np.ndarray, v: np.ndarray) -> np.ndarray:
                calls[1] += 1
                return np.asarray(hessp(x.astype(dtype), v.astype(dtype), i), np.float64)

            more: dict[str, Any] = {"hessp": product} if method == "Newton-CG" else {}
            if bounds is not None:
                more["bounds"] = scipy.optimize.Bounds(*bounds)
            found = scipy.optimize.minimize(
                value_and_grad, x.astype(np.float64), jac=True, method=method, options=options, **more
            )
            return Run(found.x, calls[0], calls[0], calls[1], str(found.message).lower()[:60])

        return run

    return make


def of_scipy_squares(method: str) -> Make:
    def make(group: Group, settings: Settings) -> Solver:
        residuals = jax.jit(group.residuals)
        jacobian = jax.jit(jax.jacfwd(group.residuals))

        def run(x: np.ndarray, i: int, bounds: Any) -> Run:
            del bounds
            dtype = x.dtype
            tiny = float(np.finfo(dtype).eps)
            jac: Any = lambda x: np.asarray(jacobian(x.astype(dtype), i), np.float64)  # noqa: E731
            found = scipy.optimize.least_squares(
                lambda x: np.asarray(residuals(x.astype(dtype), i), np.float64),
                x.astype(np.float64),
                jac,
                method=method,
                gtol=settings.tol / 2,
                ftol=max(tiny, 1e-15),
                xtol=max(tiny, 1e-15),
                max_nfev=settings.steps,
            )
            return Run(found.x, found.nfev, found.njev or float("nan"), 0, str(found.message).lower()[:60])

        return run

    return make


def of_optimistix(name: str, *, squares: bool = False) -> Make:
    def make(group: Group, settings: Settings) -> Solver:
        import optimistix

        # Its solvers stop by the change of the point and of the value, not by the gradient.
        solver = getattr(optimistix, name)(rtol=settings.tol / 100, atol=settings.tol / 100)
        solve_with = optimistix.least_squares if squares else optimistix.minimise
        fun: Any = group.residuals if squares else group.fun

        @jax.jit
        def solve(x: Array, i: Array) -> Any:
            # Each step evaluates one value, or takes it and a gradient; three times the steps make that fair.
            found = solve_with(fun, solver, x, args=i, max_steps=3 * settings.steps, throw=False)
            return found.value, found.stats["num_steps"], found.result == optimistix.RESULTS.successful

        def run(x: np.ndarray, i: int, bounds: Any) -> Run:
            del bounds
            x, count, done = jax.device_get(solve(x, i))
            return Run(x, int(count), float("nan"), 0, "successful" if done else "not successful")

        return run

    return make


def of_jaxopt(name: str, *, squares: bool = False) -> Make:
    def make(group: Group, settings: Settings) -> Solver:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that it is no longer maintained
            import jaxopt
        fun: Any = group.residuals if squares else group.fun
        more = {"solver": "cholesky", "xtol": 0.0, "gtol": settings.tol / 2, "materialize_jac": True} if squares else {}
        solver = getattr(jaxopt, name)(fun, maxiter=settings.steps, tol=settings.tol, implicit_diff=False, **more)

        @jax.jit
        def solve(x: Array, i: Array, bounds: Any) -> Any:
            arguments = (i,) if bounds is None else (bounds, i)
            params, state = solver.run(x, *arguments)
            none = jnp.nan
            return params, getattr(state, "num_fun_eval", state.iter_num), getattr(state, "num_grad_eval", none)

        def run(x: np.ndarray, i: int, bounds: Any) -> Run:
            params, values, gradients = jax.device_get(solve(x, i, bounds))
            return Run(params, int(values), float(gradients), 0, "")

        return run

    return make


def installed(*names: str) -> bool:
    """Whether packages are there."""
    return all(importlib.util.find_spec(name) is not None for name in names)


#: What minimizes any function, by name; the first is the one that all are compared with.
GENERAL: dict[str, Make] = {
    "jgd lbfgs": of_jgd("lbfgs"),
    "jgd bfgs": of_jgd("bfgs"),
    "jgd cg": of_jgd("cg"),
    "jgd newton_cg": of_jgd("newton_cg"),
    "jgd trust_region": of_jgd("trust_region"),
    "scipy L-BFGS-B": of_scipy("L-BFGS-B"),
    "scipy BFGS": of_scipy("BFGS"),
    "scipy CG": of_scipy("CG"),
    "scipy Newton-CG": of_scipy("Newton-CG"),
    "optimistix LBFGS": of_optimistix("LBFGS"),
    "optimistix BFGS": of_optimistix("BFGS"),
    "optimistix NonlinearCG": of_optimistix("NonlinearCG"),
    "jaxopt LBFGS": of_jaxopt("LBFGS"),
    "jaxopt BFGS": of_jaxopt("BFGS"),
    "jaxopt NonlinearCG": of_jaxopt("NonlinearCG"),
}
#: What minimizes sums of squares.
SQUARES: dict[str, Make] = {
    "jgd levenberg_marquardt": of_jgd("levenberg_marquardt", squares=True),
    "jgd gauss_newton": of_jgd("gauss_newton", squares=True),
    "scipy least_squares trf": of_scipy_squares("trf"),
    "scipy least_squares lm": of_scipy_squares("lm"),
    "optimistix LevenbergMarquardt": of_optimistix("LevenbergMarquardt", squares=True),
    "optimistix Dogleg": of_optimistix("Dogleg", squares=True),
    "jaxopt LevenbergMarquardt": of_jaxopt("LevenbergMarquardt", squares=True),
}
#: What keeps to bounds.
BOUNDED: dict[str, Make] = {
    "jgd lbfgsb": of_jgd("lbfgsb"),
    "scipy L-BFGS-B": of_scipy("L-BFGS-B"),
    "jaxopt LBFGSB": of_jaxopt("LBFGSB"),
}
#: Those that take part in large sets, and all of `BOUNDED`.
FEW = ("jgd lbfgs", "L-BFGS-B", "scipy BFGS", "optimistix LBFGS", "optimistix BFGS", "jaxopt LBFGS")
#: Those that hold or factor a matrix of all variables by all variables.
DENSE = ("bfgs", "BFGS", "levenberg", "gauss_newton", "least_squares", "Levenberg", "Dogleg")


def is_dense(name: str) -> bool:
    """Whether a method's work grows with the square of the size or faster."""
    return "L-BFGS" not in name and "lbfgs" not in name.lower() and any(word in name for word in DENSE)


def has_products(name: str) -> bool:
    """Whether a method takes products with the Hessian, and so needs a function that is differentiable twice."""
    return "newton" in name.lower() or "trust" in name
