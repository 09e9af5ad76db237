r"""Newton-Schulz iteration: the nearest orthogonal matrix by matrix products alone.

$$
A = X X^*, \qquad X \leftarrow a X + (b A + c A^2)\, X
$$

drives all singular values of $X$ towards one. With the coefficients that Muon uses it is steepest at zero and does not
quite converge: singular values end between about 0.5 and 1.5. At the start they must lie below about one: the
preconditioning scales them so.

References:
    - Jordan et al., "Muon: An optimizer for hidden layers", https://kellerjordan.github.io/posts/muon, 2024.
    - Boissin et al., "Turbo-Muon", https://arxiv.org/abs/2512.04632, 2025 (`"aol"`).
    - Grishina et al., "Accelerating Newton-Schulz iteration", https://arxiv.org/abs/2506.10935, 2025
      (`"schatten"`).
    - Amsel et al., "The polar express", https://arxiv.org/abs/2505.16932, 2025 (the coefficients `"polar_express"`).
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import Array, ArrayLike, DTypeLike, is_traced, show_by_name, squares

Preconditioning = Literal["frobenius", "spectral", "aol", "schatten"]

#: The name of a preset, three coefficients, or rows of three. `check_coeffs` says what is wrong with them.
NSCoeffs = Annotated[str | ArrayLike | Sequence[Any], "coefficients"]
show_by_name(globals(), "Preconditioning", "NSCoeffs")

_JORDAN = (3.4445, -4.7750, 2.0315)
_MARGIN = 1.02  # Polar Express divides the matrix by 1.02 times its norm; here the first triple does it.

NS_COEFFS: dict[str, tuple] = {
    "standard": _JORDAN,
    "dion": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
    "polar_express": (  # five steps, for singular values down to 1e-3
        (8.156554524902461 / _MARGIN, -22.48329292557795 / _MARGIN**3, 15.878769915207462 / _MARGIN**5),
        (4.042929935166739, -2.808917465908714, 0.5000178451051316),
        (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
        (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
        (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
    ),
    "muon": _JORDAN,
}


def check_coeffs(owner: str, ns_coeffs: NSCoeffs) -> Any:
    """Coefficients as an array, from the name of a preset, a triple or rows of three.

    Raises:
        ValueError: They are not triples, or there is no such preset.
    """
    if isinstance(ns_coeffs, str):
        if ns_coeffs not in NS_COEFFS:
            known = ", ".join(repr(name) for name in NS_COEFFS)
            raise ValueError(f"{owner}: ns_coeffs must be numbers or one of {known}; got {ns_coeffs!r}.")
        ns_coeffs = NS_COEFFS[ns_coeffs]
    holds_arrays = any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(ns_coeffs))
    coeffs = jnp.asarray(ns_coeffs) if holds_arrays else np.asarray(ns_coeffs)
    if coeffs.ndim not in (1, 2) or coeffs.shape[-1] != 3:
        raise ValueError(f"{owner}: ns_coeffs must have shape (3,) or (n, 3); got {coeffs.shape}.")
    return coeffs


def orthogonalize(
    x: Array,
    coeffs: Array,
    steps: int,
    eps: Array,
    preconditioning: Preconditioning = "frobenius",
    *,
    dtype: DTypeLike | None = None,
    clamp: bool = False,
) -> Array:
    """Replaces the singular values of each matrix in a stack by about one.

    Args:
        x: Matrices of shape `[..., rows, columns]`, real or complex.
        coeffs: `(a, b, c)`, used `steps` times, or `[n, 3]`, each row used once.
        steps: How often to iterate with one triple; it may be traced.
        eps: Keeps a zero matrix from being divided by zero; scalar.
        preconditioning: How the matrices are scaled first: by the Frobenius norm, by the spectral norm (an SVD each,
            the costliest), by row sums of the Gram matrix (`"aol"`), or by the Schatten-4 norm.
        dtype: What the matrices are rounded to in between, such as `"bfloat16"`; sums are kept in float32. None for
            their own dtype.
        clamp: Whether `eps` is the least norm that is divided by, instead of being added to it.

    Returns:
        Matrices of the same shape and dtype. Wide ones have nearly orthonormal rows, tall ones columns.
    """
    input_dtype, wide = x.dtype, jnp.promote_types(x.dtype, jnp.float32)
    dtype = input_dtype if dtype is None else jnp.dtype(dtype)
    tall = x.shape[-2] > x.shape[-1]
    x = (x.mT if tall else x).astype(dtype)  # the Gram matrix of the shorter side is the smaller
    axes = (x.ndim - 2, x.ndim - 1)
    x_sq = squares([x.astype(wide)], axes)
    x, eps = (x_sq.scale * x).astype(dtype), eps * x_sq.scale
    if preconditioning in ("frobenius", "spectral"):
        is_plain = preconditioning == "frobenius"
        norm = x_sq.length if is_plain else jnp.linalg.norm(x.astype(wide), ord=2, axis=axes, keepdims=True)
        x = (x / (jnp.maximum(norm, eps) if clamp else norm + eps)).astype(dtype)

    def matmul(left: Array, right: Array) -> Array:
        return jnp.matmul(left.astype(dtype), right.astype(dtype), preferred_element_type=wide)

    def iterate(x: Array, gram: Array, triple: Array) -> Array:
        a, b, c = triple
        return (a * x + matmul(b * gram + c * matmul(gram, gram), x)).astype(dtype)

    is_counted = coeffs.ndim == 1 and is_traced(steps)
    triples = coeffs if coeffs.ndim == 2 else jnp.broadcast_to(coeffs, (1 if is_counted else steps, 3))
    scales_rows = preconditioning in ("aol", "schatten") and triples.shape[0] > 0
    if scales_rows:
        # The scaling costs no product: it uses the first Gram matrix.
        gram = matmul(x, x.conj().mT)
        row_scales = _gram_scale(gram, eps * x_sq.scale, preconditioning)
        x = iterate((x * row_scales).astype(dtype), gram * row_scales * row_scales.mT, triples[0])

    def iterate_once(x: Array, triple: Array) -> Array:
        return iterate(x, matmul(x, x.conj().mT), triple)

    # A loop, not its steps one by one: they compile in a fifth of the time, and run as fast.
    if is_counted:
        x = jax.lax.fori_loop(int(scales_rows), steps, lambda _, x: iterate_once(x, triples[0]), x)
    else:
        x, _ = jax.lax.scan(lambda x, triple: (iterate_once(x, triple), None), x, triples[int(scales_rows) :])
    return (x.mT if tall else x).astype(input_dtype)


def _gram_scale(gram: Array, eps: Array, preconditioning: str) -> Array:
    """What to multiply the rows of X with, of shape `[..., rows, 1]` or `[..., 1, 1]`."""
    if preconditioning == "aol":
        return jnp.maximum(jnp.sum(jnp.abs(gram), axis=-1, keepdims=True), eps) ** -0.5
    gram_sq = squares([gram], (gram.ndim - 2, gram.ndim - 1))
    return jnp.maximum(gram_sq.length / gram_sq.scale, eps) ** -0.5
