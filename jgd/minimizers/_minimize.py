"""`minimize`: from a function and a start to a solution."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jgd.core import ArrayTree, FloatDtype, PyTree, Scalar, check_takes, checked, is_traced
from jgd.minimizers._arguments import as_float_dtype, as_tuple, check_constraints, check_limits, refuse_unknown
from jgd.minimizers._names import BoundsLike, LineSearchLike, MethodLike, flat_bounds, make_method
from jgd.minimizers.loop._program import Inputs, Settings, call_compiled
from jgd.minimizers.loop._progress import run_with_bar
from jgd.minimizers.loop._result import MinimizeResult
from jgd.minimizers.loop._solve import solve
from jgd.minimizers.problem._data import split
from jgd.minimizers.problem._flatten import flattener

Differentiate = Literal["implicit", "unroll"]


@checked
def minimize(
    fun: Callable[..., Any],
    params: PyTree,
    *,
    args: ArrayTree = (),
    method: MethodLike = "lbfgs",
    line_search: LineSearchLike | None = None,
    tol: Scalar | None = None,
    max_steps: int = 1000,
    has_aux: bool = False,
    bounds: BoundsLike | None = None,
    equality: Callable[..., Any] | None = None,
    inequality: Callable[..., Any] | None = None,
    trace: bool = False,
    progress: bool = False,
    differentiate: Differentiate = "implicit",
    value_dtype: FloatDtype | None = None,
    **unknown: Any,
) -> MinimizeResult:
    """Minimizes a function of any tree of arrays, and says why it stopped.

    It runs as one program, compiled once for each `fun` (keep `fun` in a variable and pass what changes as `args`), and
    works inside `jit` and `vmap`. The solution can be differentiated with respect to `args` and to whatever `fun`
    closes over. `jgd.minimizers.explain(result)` says in a sentence why the run stopped.

    Args:
        fun: `fun(params, *args) -> value`, a real scalar; with `has_aux`, `(value, aux)`. For least-squares methods it
            returns residuals, any tree of arrays, and the value is half the sum of their squares.
        params: Where to start: any tree of arrays. A complex leaf moves as its real and its imaginary part, two real
            numbers. Integer leaves stay as they are.
        args: More arguments of `fun`, a tuple of trees of arrays; anything but a tuple is one argument.
        method: A method (`LBFGS(memory=20)`), its name in any case (scipy's `"L-BFGS-B"` and `"Newton-CG"`, too), or
            any jgd or optax optimizer. Arrays among a method's settings are data (`GradientDescent(jnp.asarray(0.1))`):
            they can be changed without a recompile, swept and differentiated.
            Names: `"lbfgs"`, `"bfgs"`, `"gradient_descent"`, `"barzilai_borwein"`, `"exact_descent"`, `"polyak"`,
            `"heavy_ball"`, `"nesterov"`, `"cg"`, `"newton_cg"`, `"trust_region"`, `"projected_gradient"`,
            `"mirror_descent"`, `"gauss_newton"`, `"lm"` (or `"levenberg_marquardt"`). With bounds, `"lbfgs"` stands for
            `"lbfgsb"`.
        line_search: A line search in place of the method's own: `"armijo"`, `"strong_wolfe"`, `"hager_zhang"`, or an
            object such as `StrongWolfe(c2=0.1)`.
        tol: An absolute bound: the run has converged where the largest absolute entry of the gradient is at most this.
            None for 1e-6, less where the problem's own gradients are below one, and more where the dtype asks for it:
            a run that stands still has converged, too, where rounding of the params by four spacings along the last
            steps changes the gradient by as much as its size. `"lm"` has no such bound: it goes on until its linear
            model predicts no decrease above rounding. A number is taken as it is: where rounding does not let the
            gradient reach it, the run ends with `SMALL_STEP` or `SMALL_DECREASE`.
        max_steps: Steps at most.
        has_aux: Whether `fun` returns a pair; its second part at the solution is in the result.
        bounds: A pair of lower and upper bounds, each None, a number, or a tree as `params`; for `"lbfgs"`, `"lbfgsb"`,
            `"lm"` and `"projected_gradient"`. For params that are one vector scipy's forms work, too: a list of pairs
            `(lower, upper)`, one for each entry, or a `scipy.optimize.Bounds`.
        equality: `g(params, *args)`, any tree of arrays that are to be zero. Constraints are met by the method of
            multipliers: `method` minimizes augmented Lagrangians, `max_steps` bounds the steps of all together, and
            `tol` bounds the violation, too. The multipliers are in the result.
        inequality: `h(params, *args)`, any tree of arrays that are to be at most zero.
        trace: Whether to record value, gradient norm and step size of each step, in arrays [max_steps].
        progress: Whether to show a progress bar; not inside `jit`.
        differentiate: `"implicit"`: derivatives of the solution by the implicit function theorem, whatever the number
            of steps. `"unroll"`: through all steps, always `max_steps` of them, for runs that are not to converge.
        value_dtype: The dtype that the value is summed in, float64 for one. `fun` may then return an array of terms.
        **unknown: None; scipy's and jaxopt's names (`maxiter`, `callback`, ...) are refused with the ones to use here.

    Returns:
        The solution and how it was found. Where the value or gradient became infinite or NaN, the last params where
        both were finite.

    Raises:
        TypeError: A leaf of `params` is not an array, `fun` does not return a real scalar, or an argument is unknown.
        ValueError: An unknown method or option, or bounds that do not fit.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.minimizers import minimize
        >>> rosenbrock = lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
        >>> result = minimize(rosenbrock, jnp.array([-1.2, 1.0]), tol=1e-3)
        >>> print(result.params.round(2), result.converged)
        [1. 1.] True
    """
    refuse_unknown(unknown)
    check_limits("minimize", tol, max_steps)
    flattener(params)  # refuses what is not a tree of arrays
    vectors, args = flat_bounds(bounds, params), as_tuple(args)
    method_without_arrays, arrays = split(make_method(method, line_search, bounds))
    check_takes("minimize", "fun", fun, "fun(params, *args)", params, *args)
    settings = Settings(
        fun=fun,
        method=method_without_arrays,
        max_steps=int(max_steps),
        has_aux=has_aux,
        trace=trace,
        differentiate=differentiate,
        value_dtype=as_float_dtype(value_dtype),
        equality=equality,
        inequality=inequality,
    )
    if settings.constrained:
        check_constraints(method_without_arrays, differentiate, progress)
    inputs = Inputs(args, vectors, arrays, tol)
    if progress:
        if any(is_traced(leaf) for leaf in jax.tree.leaves((params, inputs, jnp.zeros(())))):
            raise ValueError("minimize: a progress bar needs values: use progress=False inside jit, vmap and grad.")
        return run_with_bar(settings, params, inputs)
    return call_compiled(solve, settings, params, inputs)
