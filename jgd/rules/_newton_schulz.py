r"""Newton-Schulz iteration: the nearest orthogonal matrix by matrix products alone.

$$
A = X X^*, \qquad X \leftarrow a X + (b A + c A^2)\, X
$$

drives all singular values of $X$ towards one. With the coefficients that Muon uses it is steepest at zero and does not
quite converge: singular values end between about 0.5 and 1.5. At the start they must lie below about one, which the
preconditioning sees to.

References:
    - Jordan et al., "Muon: An optimizer for hidden layers", https://kellerjordan.github.io/posts/muon, 2024.
    - Boissin et al., "Turbo-Muon", https://arxiv.org/abs/2512.04632, 2025 (`"aol"`).
    - Grishina et al., "Accelerating Newton-Schulz iteration", https://arxiv.org/abs/2506.10935, 2025
      (`"schatten"`).
"""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import Array

Preconditioning = Literal["frobenius", "spectral", "aol", "schatten"]

NS_COEFFS: dict[str, tuple] = {
    "standard": (3.4445, -4.7750, 2.0315),
    "dion": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
}


def check_preconditioning(owner: str, preconditioning: str) -> None:
    """Raises ValueError for a name that is none of `Preconditioning`."""
    if preconditioning not in get_args(Preconditioning):
        known = ", ".join(repr(name) for name in get_args(Preconditioning))
        raise ValueError(f"{owner}: preconditioning must be one of {known}; got {preconditioning!r}.")


def check_coeffs(owner: str, ns_coeffs: Any) -> Any:
    """Coefficients as an array: those of a preset, or those given, which must be triples.

    Raises:
        ValueError: They are no triples, or there is no such preset.
    """
    if isinstance(ns_coeffs, str):
        if ns_coeffs not in NS_COEFFS:
            known = ", ".join(repr(name) for name in NS_COEFFS)
            raise ValueError(f"{owner}: ns_coeffs must be numbers or one of {known}; got {ns_coeffs!r}.")
        ns_coeffs = NS_COEFFS[ns_coeffs]
    coeffs = jnp.asarray(ns_coeffs) if _holds_arrays(ns_coeffs) else np.asarray(ns_coeffs)
    if coeffs.ndim not in (1, 2) or coeffs.shape[-1] != 3:
        raise ValueError(f"{owner}: ns_coeffs must have shape (3,) or (n, 3); got {coeffs.shape}.")
    return coeffs


def _holds_arrays(ns_coeffs: Any) -> bool:
    return any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(ns_coeffs))


def orthogonalize(
    x: Array, coeffs: Array, steps: int, eps: Array, preconditioning: Preconditioning = "frobenius"
) -> Array:
    """Replaces the singular values of each matrix in a stack by about one.

    Args:
        x: Matrices of shape `[..., rows, columns]`, real or complex.
        coeffs: `(a, b, c)`, used `steps` times, or `[n, 3]`, each row used once.
        steps: How often to iterate with one triple.
        eps: Keeps a zero matrix from being divided by zero; scalar.
        preconditioning: How the matrices are scaled first: by the Frobenius norm, by the spectral norm (an SVD each,
            the dearest), by row sums of the Gram matrix (`"aol"`), or by the Schatten-4 norm.

    Returns:
        Matrices of the same shape and dtype. Wide ones have nearly orthonormal rows, tall ones columns.
    """
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x  # the Gram matrix of the shorter side is the smaller
    if preconditioning == "frobenius":
        x = x / (jnp.linalg.norm(x, axis=(-2, -1), keepdims=True) + eps)
    elif preconditioning == "spectral":
        x = x / (jnp.linalg.norm(x, ord=2, axis=(-2, -1), keepdims=True) + eps)

    triples = [coeffs[i] for i in range(coeffs.shape[0])] if coeffs.ndim == 2 else [coeffs] * steps
    for i, (a, b, c) in enumerate(triples):
        gram = x @ x.conj().mT
        if i == 0 and preconditioning in ("aol", "schatten"):
            scale = _gram_scale(
                gram, eps, preconditioning
            )  # the scaling costs no product: it uses the first Gram matrix
            x, gram = x * scale, gram * scale * scale.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def _gram_scale(gram: Array, eps: Array, preconditioning: str) -> Array:
    """What to multiply the rows of X with, of shape `[..., rows, 1]` or `[..., 1, 1]`."""
    if preconditioning == "aol":
        return jnp.maximum(jnp.sum(jnp.abs(gram), axis=-1, keepdims=True), eps) ** -0.5
    return jnp.maximum(jnp.linalg.norm(gram, axis=(-2, -1), keepdims=True), eps) ** -0.5
