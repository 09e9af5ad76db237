r"""SOAP: Adam in the slowly rotating eigenbasis of Shampoo's preconditioner.

For a matrix $G$ (likewise for each axis of a leaf with more), with $Q_L$, $Q_R$ as they were after the last step:

$$
\begin{aligned}
g_t &= Q_L^\top G_t\, Q_R \\
m_t &= \beta_1 m_{t-1} + (1-\beta_1)\, g_t, \qquad v_t = \beta_2 v_{t-1} + (1-\beta_2)\, g_t^2 \\
\theta_t &= \bigl(\theta_{t-1} - \eta_t\, Q_L\, \tfrac{m_t}{\sqrt{v_t} + \epsilon}\, Q_R^\top\bigr)
    (1 - \eta \lambda), \qquad \eta_t = \eta \sqrt{1-\beta_2^{t-1}} / (1-\beta_1^{t-1}) \\
L_t &= \beta_s L_{t-1} + (1-\beta_s)\, G_t G_t^\top, \qquad R_t = \beta_s R_{t-1} + (1-\beta_s)\, G_t^\top G_t
\end{aligned}
$$

and at intervals $Q_L \leftarrow \operatorname{qr}(L_t Q_L)$, $Q_R \leftarrow \operatorname{qr}(R_t Q_R)$, their columns
sorted first, $v$ with them. Slots: $m$ (`mu`) and $v$ (`nu`) in the rotated basis, $L, R$ (`factors`), $Q$ (`basis`).
The QR is made of matrix products, see `jgd.rules.matrices._orthonormal`; the compiled step holds no decomposition.

The formulas are those of the authors' code. The first step changes no param, it only starts $L$ and $R$; $m$ rotates
with the basis, where the paper keeps it unrotated; the decay comes last. The authors start the basis with an
eigendecomposition; compiling one takes long on accelerators, so that by default ours starts like a refresh.

References:
    - Vyas et al., "SOAP: Improving and stabilizing Shampoo using Adam", https://arxiv.org/abs/2409.11321, 2024,
      Algorithm 3.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from jgd.core import (
    AT_LEAST_ONE,
    Array,
    Hyper,
    LayoutLike,
    Mask,
    Optimizer,
    Rule,
    ScalarOrSchedule,
    Slots,
    StateDtype,
    check_choice,
    debias,
    fixed_int,
    root,
    when,
    zeros,
)
from jgd.rules.matrices._eigenbasis import refreshed_basis
from jgd.rules.matrices._preconditioners import along_axes, gram, merged_shape
from jgd.rules.matrices._stagger import lift_staggered, steps_ahead
from jgd.rules.parts._weight_decay import DecayForm, decayed

_FIRST_ITERATIONS = 4

InitBasis = Literal["qr", "eigh", "identity"]


def soap_view(
    shape: tuple[int, ...], max_dim: int, merge: bool, precondition_1d: bool
) -> tuple[tuple[int, ...], list[int]]:
    """The shape that the preconditioner sees, and which of its axes have a matrix."""
    max_dim = fixed_int("soap", "max_precond_dim", max_dim)
    merged = merged_shape(shape, max_dim) if merge and math.prod(shape) else shape
    preconditions = len(shape) > 1 or (len(shape) == 1 and precondition_1d)
    return merged, [axis for axis, n in enumerate(merged) if preconditions and 0 < n <= max_dim]


def _prepared(hyper: Hyper, step: Array, *, correct_bias: bool, init_basis: InitBasis) -> Hyper:
    """The hyperparameters of a step, and what all leaves take from them."""
    started, count = step > 1, jnp.maximum(step - 1, 1)
    rate = hyper["learning_rate"]
    if correct_bias:
        rate = rate * jnp.sqrt(debias(hyper["1-b2"], count)) / debias(hyper["1-b1"], count)
    every = hyper["precondition_frequency"].astype(jnp.int32)
    due = ((step - 1 + steps_ahead(hyper, every)) % every == 0) | (step == 1)
    beta = "shampoo_beta" if "shampoo_beta" in hyper else "b2"
    return hyper | {
        "step_size": jnp.where(started, rate, 0),
        "mu_weight": jnp.where(started, hyper["1-b1"], 0),
        "nu_weight": jnp.where(started, hyper["1-b2"], 0),
        "factor_weight": hyper[f"1-{beta}"],
        "iterations": jnp.where(started, 1, _FIRST_ITERATIONS),
        "due": due if init_basis == "qr" else due & started,
    }


def soap_rule(
    view: Callable[[tuple[int, ...]], tuple[tuple[int, ...], list[int]]],
    normalize: bool,
    correct_bias: bool,
    init_basis: InitBasis,
) -> Rule:
    """SOAP without weight decay. `view` is `soap_view` of the leaf's shape."""

    def factors_of(param: Array) -> tuple[Array, ...]:
        shape, axes = view(param.shape)
        return tuple(jnp.zeros((shape[axis],) * 2, param.dtype) for axis in axes)

    def basis_of(param: Array) -> tuple[Array, ...]:
        return tuple(jnp.eye(len(factor), dtype=factor.dtype) for factor in factors_of(param))

    def update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
        del param
        shape, axes = view(grad.shape)

        def by_axis(basis: tuple[Array, ...]) -> list[Array | None]:
            known = dict(zip(axes, basis, strict=True))
            return [known.get(axis) for axis in range(len(shape))]

        def to_basis(x: Array, basis: tuple[Array, ...]) -> Array:
            return along_axes(x, by_axis(basis), transposed=True)

        def from_basis(x: Array, basis: tuple[Array, ...]) -> Array:
            return along_axes(x, by_axis(basis))

        grad_, basis = grad.reshape(shape), slots["basis"]
        rotated_grad = to_basis(grad_, basis)
        mu = hyper["b1"] * slots["mu"].reshape(shape) + hyper["mu_weight"] * rotated_grad
        nu = hyper["b2"] * slots["nu"].reshape(shape) + hyper["nu_weight"] * jnp.square(rotated_grad)
        denominator = jnp.sqrt(nu) + hyper["eps"]
        direction = from_basis(mu / jnp.where(denominator > 0, denominator, 1), basis)
        if normalize:
            rms = root(jnp.mean(jnp.square(direction)))
            direction = direction / jnp.where(rms > 0, rms, 1)
        factors = tuple(
            factor + hyper["factor_weight"] * (gram(grad_, axis) - factor)
            for axis, factor in zip(axes, slots["factors"], strict=True)
        )

        def refreshed(carry: tuple, operands: tuple[tuple[Array, ...], Array]) -> tuple:
            """Orthogonal iteration on every basis; the moments go with the columns."""
            (mu, nu, basis), (factors, iterations) = carry, operands
            bases = [refreshed_basis(factor, q, iterations) for factor, q in zip(factors, basis, strict=True)]
            new_basis = tuple(q for q, _ in bases)
            nu = _permuted(nu, {axis: came_from for axis, (_, came_from) in zip(axes, bases, strict=True)})
            return to_basis(from_basis(mu, basis), new_basis), nu, new_basis

        if axes:
            # The sum makes the refresh wait for the direction, so that the new basis can overwrite the old one.
            due = hyper["due"] & jnp.isfinite(jnp.sum(direction))
            mu, nu, basis = when(due, refreshed, (mu, nu, basis), (factors, hyper["iterations"]))
            if init_basis == "eigh":
                basis = jax.lax.cond(step == 1, _eigenvectors, lambda _: basis, factors)
        slots = {"mu": mu.reshape(grad.shape), "nu": nu.reshape(grad.shape), "factors": factors, "basis": basis}
        return -hyper["step_size"] * direction.reshape(grad.shape), slots

    slots = {"mu": zeros, "nu": zeros, "factors": factors_of, "basis": basis_of}
    return Rule(
        update,
        slots=slots,
        kind="matrix",
        supports_complex=False,
        prepare=functools.partial(_prepared, correct_bias=correct_bias, init_basis=init_basis),
        nonnegative=("nu",),
        exact=("factors", "basis"),
    )


def _permuted(x: Array, orders: Mapping[int, Array]) -> Array:
    """`x` with the entries along some axes in another order; read from a vector, whose layout XLA has no say in."""
    flat = jnp.zeros((1,) * x.ndim, jnp.int32)
    for axis, n in enumerate(x.shape):
        order = orders.get(axis, jnp.arange(n))
        flat = flat * n + order.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return x.ravel()[flat]


def _eigenvectors(factors: tuple[Array, ...]) -> tuple[Array, ...]:
    """Those of the largest eigenvalues first."""
    return tuple(jnp.linalg.eigh(factor)[1][:, ::-1] for factor in factors)


def _from_second_step(rule: Rule) -> Rule:
    """The rule with a weight decay that skips the first step, as the rule itself does."""

    def prepare(hyper: Hyper, step: Array) -> Hyper:
        return rule.prepare(hyper | {"weight_decay": jnp.where(step > 1, hyper["weight_decay"], 0)}, step)

    return dataclasses.replace(rule, prepare=prepare)


def soap(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.95,
    b2: ScalarOrSchedule = 0.95,
    shampoo_beta: ScalarOrSchedule | None = None,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.01,
    precondition_frequency: ScalarOrSchedule = 10,
    max_precond_dim: int = 10000,
    mask: Mask = None,
    *,
    merge_dims: bool = False,
    precondition_1d: bool = False,
    normalize_grads: bool = False,
    correct_bias: bool = True,
    init_basis: InitBasis = "qr",
    stagger: bool = False,
    decay_form: DecayForm = "after",
    state_dtype: StateDtype | None = None,
    layout: LayoutLike = "auto",
) -> Optimizer:
    """SOAP: Shampoo with Adam in the preconditioner's eigenbasis.

    Arguments that are not described here are those of `jgd.adamw`.

    Args:
        learning_rate: About the size of a step in each parameter, at least 0; the authors use 3e-3.
        b1: Decay rate of the average of gradients, in [0, 1).
        b2: Decay rate of the average of squared gradients, in [0, 1).
        shampoo_beta: Decay rate of the average of gradients' products with themselves; None to share `b2`.
        eps: Added to the root of the second moment, at least 0.
        precondition_frequency: Steps between two refreshes of the basis, at least 1.
        max_precond_dim: Axes longer than this keep their own basis.
        merge_dims: Whether to join neighboring axes while their product is at most `max_precond_dim`.
        precondition_1d: Whether vectors have a basis too; otherwise they get Adam, as scalars do.
        normalize_grads: Whether to scale each leaf's direction to a root mean square of one.
        correct_bias: Whether to correct the moments for their start at zero.
        init_basis: The basis after the first gradient: `"qr"`, a few power iterations from the identity; `"eigh"`, the
            eigenvectors, as the authors' code has it; `"identity"`, which waits for the first refresh.
        stagger: Whether to spread the leaves' refreshes over the cycle. The authors' code, and ours by default, has all
            in one step, which then takes several times as long as the others.

    Returns:
        An optimizer with the hyperparameters `learning_rate`, `b1`, `b2`, `eps`, `precondition_frequency`,
        `weight_decay` (and `shampoo_beta` where it is given), and the slots `mu` and `nu`, two numbers a parameter,
        `factors` and `basis`, each a square matrix for every preconditioned axis.

    Raises:
        TypeError, ValueError: A hyperparameter is not a finite number in its range, a leaf is complex, the mask
            does not fit the params, there is no such `init_basis`, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = jnp.eye(2)
        >>> optimizer = jgd.soap(0.1, weight_decay=0.0)
        >>> grads, state = jnp.array([[3.0, 0.0], [0.0, 0.1]]), optimizer.init(params)
        >>> updates, state = optimizer.update(grads, state, params)  # the first step only starts the basis
        >>> updates, state = optimizer.update(grads, state, params)
        >>> print(updates.round(3) + 0)
        [[-0.1  0. ]
         [ 0.  -0.1]]
    """
    check_choice("soap", "init_basis", init_basis, InitBasis)
    view = functools.partial(soap_view, max_dim=max_precond_dim, merge=merge_dims, precondition_1d=precondition_1d)
    rule = soap_rule(view, normalize_grads, correct_bias, init_basis)

    def cost(shape: tuple[int, ...]) -> float:
        merged, axes = view(shape)
        return sum(float(merged[axis]) ** 3 for axis in axes)

    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "weight_decay": weight_decay}
    hyperparams |= {"precondition_frequency": precondition_frequency}
    return lift_staggered(
        rule,
        _from_second_step(decayed(rule, decay_form)),
        hyperparams if shampoo_beta is None else hyperparams | {"shampoo_beta": shampoo_beta},
        mask,
        cost if stagger else None,
        name="soap",
        ranges={"precondition_frequency": AT_LEAST_ONE},
        state_dtype=state_dtype,
        layout=layout,
    )
