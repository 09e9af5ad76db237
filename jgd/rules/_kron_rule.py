"""PSGD Kron's formulas on one leaf; `jgd.rules._kron` says what they are."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax.numpy as jnp

from jgd.core import Array, Hyper, Rule, Slots, debias, fixed_int, root, squares, when, zeros
from jgd.rules._preconditioners import along_axes, gram, solved_along_axes

MemorySaveMode = Literal["smart_one_diag", "one_diag", "all_diag"] | None
Probe = Callable[[Array, tuple[int, ...], Any], Array]

_BALANCE_EVERY = 100  # refits
_LARGEST_RMS = 1.1
_NOISE = math.sqrt(2.0**-23)


def precond_update_prob_schedule(
    max_prob: float = 1.0, min_prob: float = 0.03, decay: float = 0.001, flat_start: int = 500
) -> Callable[[Any], Array]:
    """How often Kron refits by default: always for 500 steps, then ever less, from step 4000 in 3 of 100 steps.

    Args:
        max_prob: The probability at first.
        min_prob: The probability in the end.
        decay: The rate of the exponential in between.
        flat_start: Steps before it sets in.

    Returns:
        A schedule, for `preconditioner_update_probability` of `jgd.kron`.

    Examples:
        >>> import jgd
        >>> schedule = jgd.rules.precond_update_prob_schedule()
        >>> [round(float(schedule(step)), 2) for step in (0, 500, 1500, 9000)]
        [1.0, 1.0, 0.37, 0.03]
    """
    return lambda step: jnp.clip(max_prob * jnp.exp(-decay * (step - flat_start)), min_prob, max_prob)


def check_memory_save_mode(mode: str | None) -> None:
    """Raises ValueError for a name that is none of `MemorySaveMode`."""
    known = (None, "smart_one_diag", "one_diag", "all_diag")
    if mode not in known:
        raise ValueError(f"kron: memory_save_mode must be one of {', '.join(map(repr, known))}; got {mode!r}.")


def kron_rule(
    max_size: int, min_ndim: int, mode: MemorySaveMode, fit_momentum: bool, scale: float, merge: bool, probe: Probe
) -> Rule:
    """Kron without weight decay."""

    def view(shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that the preconditioner sees, at least one axis."""
        if len(shape) <= 2 or not merge:
            return shape or (1,)
        # The author's choice of where to cut, which looks at signed differences.
        last, first = (math.prod(shape[:-1]), shape[-1]), (shape[0], math.prod(shape[1:]))
        return last if last[1] - last[0] <= first[1] - first[0] else first

    def diagonal(shape: tuple[int, ...]) -> list[bool]:
        """Which axes have a diagonal factor."""
        longest = max(range(len(shape)), key=lambda axis: (shape[axis], axis))
        alone = mode == "one_diag" or (mode == "smart_one_diag" and len(shape) > 1 and shape.count(shape[longest]) == 1)
        saved = {longest} if alone else set(range(len(shape))) if mode == "all_diag" else set()
        least = fixed_int("kron", "min_ndim_triangular", min_ndim)
        most = fixed_int("kron", "max_size_triangular", max_size) if len(shape) >= least else 0
        return [axis in saved or not 1 < n <= most for axis, n in enumerate(shape)]

    def factors_of(param: Array) -> tuple[Array, ...]:
        shape = view(param.shape)
        share = scale ** (1 / len(shape))
        return tuple(
            jnp.full((n,), share, param.dtype) if is_diagonal else share * jnp.eye(n, dtype=param.dtype)
            for n, is_diagonal in zip(shape, diagonal(shape), strict=True)
        )

    def prepare(hyper: Hyper, step: Array) -> Hyper:
        # A little is taken off, since 1 / p may round to above a whole number.
        interval = jnp.ceil(1 / hyper["preconditioner_update_probability"] - 1e-4).astype(jnp.int32)
        due = step % interval == 0
        balance = due & (step // interval % _BALANCE_EVERY == 0)
        return hyper | {"mu_scale": 1 / debias(hyper["1-b1"], step), "due": due, "balance": balance}

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del param
        if grad.size == 0:
            return grad, slots
        mu = hyper["b1"] * slots["mu"] + hyper["1-b1"] * grad
        shape = view(grad.shape)
        mu_hat, grad_ = (hyper["mu_scale"] * mu).reshape(shape), grad.reshape(shape)

        def fitted(carry: tuple[Array, tuple[Array, ...]], read: tuple[Array, Array, Hyper]) -> tuple[Array, tuple]:
            (mu_hat, factors), (grad_, step, hyper) = carry, read
            noise = probe(step, shape, grad_.dtype)
            factors = when(hyper["balance"], _balanced, factors)
            pair = mu_hat if fit_momentum else grad_
            noisy = pair + _NOISE * jnp.mean(jnp.abs(pair)) * noise
            new = _fitted(factors, noisy, noise, hyper["precond_lr"])
            is_zero = jnp.all(pair == 0)
            new = tuple(jnp.where(is_zero, old, fit) for old, fit in zip(factors, new, strict=True))
            return noisy if fit_momentum else mu_hat, new

        mu_hat, factors = when(hyper["due"], fitted, (mu_hat, tuple(slots["factors"])), (grad_, step, hyper))
        direction = along_axes(along_axes(mu_hat, factors), factors, transposed=True)
        found = squares([direction])
        rms = root(found.total / direction.size) + 1e-12 * found.scale
        direction = found.scale * direction * jnp.minimum(1 / found.scale, _LARGEST_RMS / rms)
        return -hyper["learning_rate"] * direction.reshape(grad.shape), {"mu": mu, "factors": factors}

    slots = {"mu": zeros, "factors": factors_of}
    return Rule(update, slots=slots, kind="matrix", supports_complex=False, prepare=prepare)


def _fitted(factors: Sequence[Array], pair: Array, noise: Array, rate: Array) -> tuple[Array, ...]:
    """One step of the fit on every factor."""
    seen, unseen = along_axes(pair, factors), solved_along_axes(noise, factors)
    down, tiny = jnp.minimum(squares([seen]).scale, 1), jnp.finfo(pair.dtype).tiny
    seen, unseen = down * seen, down * unseen  # nothing but their ratio counts
    new = []
    for axis, factor in enumerate(factors):
        gained, lost = (gram(x, axis, diagonal=factor.ndim == 1) for x in (seen, unseen))
        if factor.ndim == 1:
            new.append(factor - rate * (gained - lost) * factor / jnp.maximum(jnp.max(gained + lost), tiny))
        else:
            bound = jnp.maximum(_norm_bound(gained + lost), tiny)
            new.append(factor - jnp.triu(rate * (gained - lost)) / bound @ factor)
    return tuple(new)


def _norm_bound(matrix: Array) -> Array:
    """A lower bound of the spectral norm, nearly tight: half a power iteration from the longest column."""
    largest = jnp.max(jnp.abs(matrix))
    scaled = matrix / jnp.where(largest > 0, largest, 1)
    column = jnp.take(scaled, jnp.argmax(jnp.sum(jnp.square(scaled), axis=0)), axis=1)
    row = column @ scaled
    length = root(jnp.sum(jnp.square(row)))
    row = row / jnp.where(length > 0, length, 1)
    return root(jnp.sum(jnp.square(scaled @ row))) * largest


def _balanced(factors: tuple[Array, ...], _: tuple[()]) -> tuple[Array, ...]:
    """The same preconditioner with the scales of its factors evened out."""
    if len(factors) < 2:
        return factors
    largest = jnp.stack([jnp.max(jnp.abs(factor)) for factor in factors])
    even = jnp.exp(jnp.mean(jnp.log(largest))) / largest
    return tuple(factor * share for factor, share in zip(factors, even, strict=True))
