r"""PSGD Kron: a preconditioner of triangular factors, each fitted by descent on a Lie group.

For a matrix (likewise for leaves of fewer axes; with more, axes are joined first), with the probe
$V \sim \mathcal N(0, 1)$:

$$
\begin{aligned}
m_t &= \beta_1 m_{t-1} + (1-\beta_1)\, g_t, \qquad \hat m_t = m_t / (1-\beta_1^t) \\
A &= Q_L \hat m_t Q_R^\top, \qquad B = Q_L^{-\top} V Q_R^{-1} \\
Q_L &\leftarrow Q_L - \tfrac{\rho}{\lVert A A^\top + B B^\top \rVert} \operatorname{triu}(A A^\top - B B^\top)\, Q_L,
    \qquad \text{and so } Q_R \text{ with } A^\top A,\ B^\top B \\
\theta_t &= \theta_{t-1} - \eta\, \bigl(\operatorname{clip}(Q_L^\top Q_L\, \hat m_t\, Q_R^\top Q_R)
    + \lambda\, \theta_{t-1}\bigr)
\end{aligned}
$$

with the slots $m$ (`mu`) and $Q$ (`factors`), a cheap lower bound for the spectral norm, and a clip to a root mean
square of 1.1. In steps that refit, $\hat m_t$ is damped as in the author's code: $V$ is added, times 3e-4 of its mean
size.

The author counts steps since the last refit; ours refits in steps that divide by the interval, so that no state is
needed: the same for a constant probability. He evens out the factors' scales at random, which changes no step; ours
does so every hundredth refit. A zero gradient refits nothing: the author's factors grow without bound then.

References:
    - Li, "Preconditioned stochastic gradient descent", https://arxiv.org/abs/1512.04202, 2015.
    - Pooladzandi and Li, "Curvature-informed SGD via general purpose Lie-group preconditioners",
      https://arxiv.org/abs/2402.04553, 2024.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jgd.core import (
    NOT_NEGATIVE,
    UP_TO_ONE,
    Array,
    DTypeLike,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    SlotDtype,
    Slots,
    StateDtype,
    check_choice,
    debias,
    fixed_int,
    root,
    show_by_name,
    squares,
    when,
    zeros,
)
from jgd.rules.matrices._preconditioners import along_axes, gram, solved_along_axes
from jgd.rules.parts._weight_decay import DecayForm, lift_decayed

SavedAxes = Literal["smart_one_diag", "one_diag", "all_diag"]
MemorySaveMode = SavedAxes | None
Probe = Callable[[Array, tuple[int, ...], Any], Array]
show_by_name(globals(), "MemorySaveMode", "Probe")

_BALANCE_EVERY = 100  # refits
_LARGEST_RMS = 1.1
_DAMPING = math.sqrt(2.0**-23)


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


def kron_rule(
    max_size: int, min_ndim: int, mode: MemorySaveMode, fit_momentum: bool, scale: float, merge: bool, probe: Probe
) -> Rule:
    """Kron without weight decay."""

    def view(shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that the preconditioner sees, at least one axis."""
        if len(shape) <= 2 or not merge:
            return shape or (1,)
        # The author's choice of where to cut, which compares signed differences.
        last, first = (math.prod(shape[:-1]), shape[-1]), (shape[0], math.prod(shape[1:]))
        return last if last[1] - last[0] <= first[1] - first[0] else first

    def diagonal(shape: tuple[int, ...]) -> list[bool]:
        """Which axes have a diagonal factor."""
        longest = max(range(len(shape)), key=lambda axis: (shape[axis], axis))
        stands_alone = shape.count(shape[longest]) == 1 < len(shape)
        saves_longest = mode == "one_diag" or (mode == "smart_one_diag" and stands_alone)
        saved = {longest} if saves_longest else set(range(len(shape))) if mode == "all_diag" else set()
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

        def fitted(carry: tuple[Array, tuple[Array, ...]], operands: tuple[Array, Array, Hyper]) -> tuple[Array, tuple]:
            (mu_hat, factors), (grad_, step, hyper) = carry, operands
            v = probe(step, shape, grad_.dtype)
            factors = when(hyper["balance"], _balanced, factors)
            target = mu_hat if fit_momentum else grad_
            damped = target + _DAMPING * jnp.mean(jnp.abs(target)) * v
            new = _fitted(factors, damped, v, hyper["precond_lr"])
            is_zero = jnp.all(target == 0)
            new = tuple(jnp.where(is_zero, old, fit) for old, fit in zip(factors, new, strict=True))
            return damped if fit_momentum else mu_hat, new

        mu_hat, factors = when(hyper["due"], fitted, (mu_hat, tuple(slots["factors"])), (grad_, step, hyper))
        direction = along_axes(along_axes(mu_hat, factors), factors, transposed=True)
        direction_sq = squares([direction])
        rms = root(direction_sq.total / direction.size) + 1e-12 * direction_sq.scale
        direction = direction_sq.scale * direction * jnp.minimum(1 / direction_sq.scale, _LARGEST_RMS / rms)
        return -hyper["learning_rate"] * direction.reshape(grad.shape), {"mu": mu, "factors": factors}

    slots = {"mu": zeros, "factors": factors_of}
    return Rule(update, slots=slots, kind="matrix", supports_complex=False, prepare=prepare)


def _fitted(factors: Sequence[Array], target: Array, v: Array, rate: Array) -> tuple[Array, ...]:
    """One step of the fit on every factor."""
    a, b = along_axes(target, factors), solved_along_axes(v, factors)
    scale, tiny = jnp.minimum(squares([a]).scale, 1), jnp.finfo(target.dtype).tiny
    a, b = scale * a, scale * b  # nothing but their ratio counts
    new = []
    for axis, factor in enumerate(factors):
        aa, bb = (gram(x, axis, diagonal=factor.ndim == 1) for x in (a, b))
        if factor.ndim == 1:
            new.append(factor - rate * (aa - bb) * factor / jnp.maximum(jnp.max(aa + bb), tiny))
        else:
            bound = jnp.maximum(_norm_bound(aa + bb), tiny)
            new.append(factor - jnp.triu(rate * (aa - bb)) / bound @ factor)
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


def kron(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    preconditioner_update_probability: ScalarOrSchedule | None = None,
    max_size_triangular: int = 8192,
    min_ndim_triangular: int = 2,
    memory_save_mode: MemorySaveMode = None,
    momentum_into_precond_update: bool = True,
    precond_lr: ScalarOrSchedule = 0.1,
    precond_init_scale: float = 1.0,
    merge_dims: bool = True,
    mu_dtype: SlotDtype | None = "auto",
    precond_dtype: SlotDtype | None = "auto",
    mask: Mask = "matrices",
    *,
    seed: int = 0,
    probe: Probe | None = None,
    decay_form: DecayForm = "scaled",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """PSGD Kron: preconditioned SGD with Kronecker factors.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: About the size of a step in each parameter, at least 0; about a third of Adam's.
        b1: Decay rate of the average of gradients, in [0, 1).
        preconditioner_update_probability: In what share of the steps to refit the factors, above 0 and at most 1;
            None for `precond_update_prob_schedule()`.
        max_size_triangular: Longer axes have a diagonal factor.
        min_ndim_triangular: Leaves of fewer axes have diagonal factors.
        memory_save_mode: Which other axes have a diagonal factor: None for no other, `"one_diag"` for the longest,
            `"smart_one_diag"` for the longest where it is alone the longest, `"all_diag"` for all.
        momentum_into_precond_update: Whether to fit to the momentum, in place of the gradient.
        precond_lr: The step size of the fit, at least 0.
        precond_init_scale: The scale of the preconditioner's root at first.
        merge_dims: Whether to see leaves of three axes and more as matrices.
        precond_dtype: The dtype of the slot `factors`; as `mu_dtype`.
        mask: Which leaves decay, by default those of two axes and more; as for `jgd.adamw`.
        seed: Of the probes. Leaves of one shape share them.
        probe: `probe(step, shape, dtype)` in place of normal draws: numbers of mean 0 and variance 1.
        state_dtype: The dtype of all slots; it goes before those of each.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `b1`, `weight_decay`,
        `preconditioner_update_probability`, `precond_lr`, and the slots `mu`, one number a parameter, and
        `factors`, a square matrix or a vector for each axis.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, a leaf is complex, the mask
            does not fit the params, there is no such `memory_save_mode`, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.eye(2)
        >>> optimizer = jgd.kron(0.1)
        >>> grads = jnp.array([[3.0, 0.0], [0.0, 0.1]])
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
        >>> print(jnp.sign(jnp.diag(updates)))
        [-1. -1.]
    """
    if memory_save_mode is not None:
        check_choice("kron", "memory_save_mode", memory_save_mode, SavedAxes)
    if preconditioner_update_probability is None:
        preconditioner_update_probability = precond_update_prob_schedule()

    def normal(step: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return jax.random.normal(jax.random.fold_in(jax.random.key(seed), step), shape, dtype)

    rule = kron_rule(
        max_size_triangular,
        min_ndim_triangular,
        memory_save_mode,
        momentum_into_precond_update,
        precond_init_scale,
        merge_dims,
        probe or normal,
    )
    hyperparams = {
        "learning_rate": learning_rate,
        "b1": b1,
        "preconditioner_update_probability": preconditioner_update_probability,
        "precond_lr": precond_lr,
    }
    return lift_decayed(
        rule,
        hyperparams,
        weight_decay,
        mask,
        decay_form,
        name="kron",
        ranges={
            "preconditioner_update_probability": UP_TO_ONE,
            "precond_lr": NOT_NEGATIVE,
        },
        slot_dtypes={"mu": mu_dtype, "factors": precond_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )
