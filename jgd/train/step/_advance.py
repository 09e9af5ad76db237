"""What one training step computes: a pure function of state and batch."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jgd.core import (
    Array,
    GradientTransformation,
    LossFn,
    PyTree,
    apply_updates,
    ascent_direction,
    plain_norm,
    update_params,
)
from jgd.train._state import TrainState
from jgd.train.guards._finite import ALL_FINITE, cond_or_where, first_bad_leaf
from jgd.train.guards._guard import Guard, check_guard_state, decide
from jgd.train.guards._rates import learning_rates, lower_rates
from jgd.train.step._loss_weight import LossWeight
from jgd.train.step._objective import GradientFn, evaluate, grad_of, loss_of_params
from jgd.train.step._same_optimizer import explain_foreign_state

OnNonfinite = Literal["raise", "skip", "ignore"]
Metrics = dict[str, Any]
Advance = Callable[[TrainState, PyTree, Array], tuple[TrainState, Metrics, Array, Array]]


class Options(NamedTuple):
    """What `make_step` was asked for."""

    loss_fn: LossFn
    has_aux: bool
    accumulate: int
    on_nonfinite: OnNonfinite
    norms: bool
    guard: Guard | None
    gradient: GradientFn | None
    loss_weight: LossWeight = None


def make_advance(optimizer: GradientTransformation, options: Options) -> Advance:
    """The function behind a step: `advance(state, batch, running) -> (state, metrics, bad_leaf, running)`."""
    loss_fn, has_aux, guard = options.loss_fn, options.has_aux, options.guard
    transform = optax.with_extra_args_support(optimizer)
    raises = options.on_nonfinite == "raise"

    def advance(state: TrainState, batch: PyTree, running: Array) -> tuple[TrainState, Metrics, Array, Array]:
        check_guard_state(guard, state.guard)
        key = step_key(state)
        scale = scale_of(state)
        loss, grads, model_state, aux, extra_metrics = differentiate(options, state, batch, key, scale)
        grad_norm = plain_norm(grads)
        unmoved = jnp.zeros_like(grad_norm)
        objective = loss_of_params(loss_fn, state.model_state, batch, key, has_aux=has_aux)
        extra = {
            "value": loss,
            "grad": _grad_for_search(grads, state.opt_state),
            "value_fn": objective,
            "obj_fn": objective,
            "grad_fn": grad_of(objective, scale),
        }

        def move() -> tuple[PyTree, PyTree, Array]:
            with explain_foreign_state(optimizer, state.params, state.opt_state):
                if not options.norms:
                    return *update_params(optimizer, grads, state.opt_state, state.params, **extra), unmoved
                updates, opt_state = transform.update(grads, state.opt_state, state.params, **extra)
            return apply_updates(state.params, updates), opt_state, plain_norm(updates).astype(unmoved.dtype)

        def stay() -> tuple[PyTree, PyTree, Array]:
            return state.params, state.opt_state, unmoved

        bad_leaf = first_bad_leaf(loss, grads)
        finite = bad_leaf == ALL_FINITE
        decision = None
        if guard is not None:
            decision = decide(guard, state.guard, loss, grad_norm, bad_leaf, finite, running, raises)
            moves, running = decision.moves, decision.running
        else:
            running = running & finite if raises else running
            moves = running if raises else finite
        if options.on_nonfinite == "ignore":
            params, opt_state, update_norm = move()
        else:
            params, opt_state, update_norm = cond_or_where(moves, move, stay)
            model_state = jax.tree.map(lambda new, old: jnp.where(moves, new, old), model_state, state.model_state)
        if decision is not None and decision.rate_multiplier is not None:
            opt_state = lower_rates(opt_state, decision.rate_multiplier)
        may_stop = raises or guard is not None
        count = jnp.where(running, state.step + 1, state.step) if may_stop else state.step + 1
        guard_state = state.guard if decision is None else decision.state
        new_state = TrainState(count, params, opt_state, state.key, model_state, guard_state)
        metrics: Metrics = {"loss": loss}
        if options.norms:
            metrics |= {"grad_norm": grad_norm, "update_norm": update_norm, "param_norm": plain_norm(params)}
        metrics |= _rate_metrics(opt_state) | {"finite": finite}
        metrics |= {} if decision is None else decision.metrics
        return new_state, _merged(metrics if aux is None else metrics | {"aux": aux}, extra_metrics), bad_leaf, running

    return advance


def step_key(state: TrainState) -> Array | None:
    """The key that the loss is called with at the state's step."""
    return None if state.key is None else jax.random.fold_in(state.key, state.step)


def scale_of(state: TrainState) -> Array | None:
    """What the loss is multiplied by at the state's step."""
    part = None if state.guard is None else state.guard.loss_scale
    return None if part is None else part.scale


def differentiate(
    options: Options, state: TrainState, batch: PyTree, key: Array | None, scale: Array | None
) -> tuple[Array, PyTree, PyTree, PyTree, Metrics]:
    """`(loss, grads, model_state, aux, metrics)` of a batch; the metrics of its parts, or of `gradient`."""
    if options.gradient is not None:
        if state.model_state is not None:
            raise ValueError("make_step: gradient= does not go with a model state; the state holds one.")
        loss, grads, metrics = options.gradient(state.params, batch, key)
        return loss, grads, None, None, metrics
    loss, grads, model_state, aux, micro_square = evaluate(
        options.loss_fn,
        state.params,
        state.model_state,
        batch,
        key,
        has_aux=options.has_aux,
        accumulate=options.accumulate,
        scale=scale,
        norms=options.norms,
        loss_weight=options.loss_weight,
    )
    return loss, grads, model_state, aux, {} if micro_square is None else {"micro_grad_norm": jnp.sqrt(micro_square)}


def _grad_for_search(grads: PyTree, opt_state: PyTree) -> PyTree:
    """What line searches are given as `grad`: optax's backtracking one takes it as `jax.grad` returns it."""

    def backtracks(node: Any) -> bool:
        return isinstance(node, optax.ScaleByBacktrackingLinesearchState)

    if any(map(jnp.iscomplexobj, jax.tree.leaves(grads))) and any(
        map(backtracks, jax.tree.leaves(opt_state, is_leaf=backtracks))
    ):
        return ascent_direction(grads)  # conjugated back
    return grads


def _merged(metrics: Metrics, extra_metrics: Metrics) -> Metrics:
    taken = sorted(metrics.keys() & extra_metrics.keys())
    if taken:
        raise ValueError(f"make_step: the metrics of gradient= have names that the step's own have: {taken}.")
    return metrics | extra_metrics


def _rate_metrics(opt_state: PyTree) -> Metrics:
    """The learning rate, or the last of several, each of which stands under its own name as well."""
    rates = learning_rates(opt_state)
    return rates | {"learning_rate": [jnp.array(jnp.nan), *rates.values()][-1]}
