"""From the user's function of a tree to a value of a vector, with checks of what it returns."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jgd.core import Array, DTypeLike, FloatDtype, PyTree


def value_of(out: PyTree, dtype: DTypeLike, value_dtype: FloatDtype | None) -> Array:
    """The value of what `fun` returned: a scalar, or with `value_dtype` the sum of an array of terms.

    Raises:
        TypeError: It is not a real scalar.
    """
    shape, out_dtype = getattr(out, "shape", None), getattr(out, "dtype", None)
    if shape is None and isinstance(out, int | float):
        shape, out_dtype = (), jnp.result_type(out)
    if out_dtype is None or not jnp.issubdtype(out_dtype, jnp.floating):
        hint = ""
        if out_dtype is not None and (jnp.issubdtype(out_dtype, jnp.integer) or jnp.issubdtype(out_dtype, jnp.bool_)):
            hint = ": its gradient is zero everywhere; compute it in floats"
        elif out_dtype is not None and jnp.issubdtype(out_dtype, jnp.complexfloating):
            hint = ": take its real part, or jnp.abs"
        raise TypeError(f"minimize: fun must return a real scalar; got {_text(out)}{hint}.")
    if shape != () and value_dtype is None:
        raise TypeError(
            f"minimize: fun must return a scalar; got {_text(out)}. Methods for least squares ('lm', 'gauss_newton')"
            " take residuals; with value_dtype=... fun may return an array of terms, which are summed in that dtype."
        )
    wide = jnp.promote_types(dtype, out_dtype) if value_dtype is None else value_dtype
    return jnp.sum(jnp.asarray(out).astype(wide))


def half_sum_of_squares(residuals: Array, value_dtype: FloatDtype | None) -> Array:
    """Half the sum of the squares of residuals [m]."""
    wide = residuals if value_dtype is None else residuals.astype(value_dtype)
    return 0.5 * jnp.sum(wide * wide)


def residual_vector(out: PyTree, dtype: DTypeLike) -> Array:
    """Residuals [m] of what `fun` returned, any tree of real arrays.

    Raises:
        TypeError: It has no leaves, or is a scalar.
    """
    leaves = jax.tree.leaves(out)
    if not leaves:
        raise TypeError("minimize: fun returned no residuals; expected a tree of arrays.")
    if len(leaves) == 1 and jnp.ndim(leaves[0]) == 0:
        raise TypeError(
            f"minimize: methods for least squares need residuals; fun returned a scalar ({_text(leaves[0])})."
            " Return the residuals themselves, an array whose squares are summed (one residual as shape (1,)), or take"
            " a method for scalar losses, such as 'lbfgs'."
        )
    vectors = [jnp.ravel(leaf) for leaf in leaves]
    # a complex residual is two real ones
    pairs = [(v.real, v.imag) if jnp.issubdtype(v.dtype, jnp.complexfloating) else (v,) for v in vectors]
    return jnp.concatenate([part.astype(jnp.promote_types(dtype, part.dtype)) for pair in pairs for part in pair])


def value_and_aux(out: PyTree) -> tuple[PyTree, PyTree]:
    """What a function with `has_aux` returned: a value and more.

    Raises:
        TypeError: It is not a pair.
    """
    if not (isinstance(out, tuple | list) and len(out) == 2):
        raise TypeError(f"minimize: with has_aux=True, fun must return a pair (value, aux); got {_text(out)}.")
    return out[0], out[1]


def count_terms(fun: Callable[..., PyTree], *args: PyTree) -> int:
    """How many terms are summed outside of `fun`."""
    return max(1, sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(fun, *args))))


def _text(out: PyTree) -> str:
    leaves = jax.tree.leaves(out)
    if len(leaves) == 1 and hasattr(out, "shape"):
        return f"shape {out.shape}, dtype {out.dtype}"
    return f"a {type(out).__name__}" + (" (has_aux=True for a value and more)" if isinstance(out, tuple) else "")
