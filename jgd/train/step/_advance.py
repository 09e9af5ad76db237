"""What one training step computes: a pure function of state and batch."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jgd.core import (
    Array,
    GradientTransformation,
    PyTree,
    apply_updates,
    ascent_direction,
    get_hyperparams,
    plain_norm,
    update_params,
)
from jgd.train._state import TrainState
from jgd.train.guards._finite import ALL_FINITE, either, first_bad
from jgd.train.guards._guard import Guard, check_guard_state, judge
from jgd.train.guards._spikes import lower_rates
from jgd.train.step._loss_weight import LossWeight
from jgd.train.step._objective import GradientRun, LossFn, evaluate, grad_of, loss_of_params
from jgd.train.step._same_optimizer import told_apart

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
    gradient: GradientRun | None
    loss_weight: LossWeight = None


def make_advance(optimizer: GradientTransformation, options: Options) -> Advance:
    """The function behind a step: `advance(state, batch, alive) -> (state, metrics, bad, alive)`."""
    loss_fn, has_aux, guard = options.loss_fn, options.has_aux, options.guard
    transform = optax.with_extra_args_support(optimizer)
    raises = options.on_nonfinite == "raise"

    def advance(state: TrainState, batch: PyTree, alive: Array) -> tuple[TrainState, Metrics, Array, Array]:
        check_guard_state(guard, state.guard)
        key = step_key(state)
        scale = scale_of(state)
        loss, grads, model_state, aux, own = differentiate(options, state, batch, key, scale)
        grad_norm = plain_norm(grads)
        unmoved = jnp.zeros_like(grad_norm)
        objective = loss_of_params(loss_fn, state.model_state, batch, key, has_aux=has_aux)
        again = {
            "value": loss,
            "grad": _grad_for_search(grads, state.opt_state),
            "value_fn": objective,
            "obj_fn": objective,
            "grad_fn": grad_of(objective, scale),
        }

        def move() -> tuple[PyTree, PyTree, Array]:
            with told_apart(optimizer, state.params, state.opt_state):
                if not options.norms:
                    return *update_params(optimizer, grads, state.opt_state, state.params, **again), unmoved
                updates, opt_state = transform.update(grads, state.opt_state, state.params, **again)
            return apply_updates(state.params, updates), opt_state, plain_norm(updates).astype(unmoved.dtype)

        def stay() -> tuple[PyTree, PyTree, Array]:
            return state.params, state.opt_state, unmoved

        bad = first_bad(loss, grads)
        finite = bad == ALL_FINITE
        verdict = None
        if guard is not None:
            verdict = judge(guard, state.guard, loss, grad_norm, bad, finite, alive, raises)
            moves, alive = verdict.moves, verdict.alive
        else:
            alive = alive & finite if raises else alive
            moves = alive if raises else finite
        if options.on_nonfinite == "ignore":
            params, opt_state, update_norm = move()
        else:
            params, opt_state, update_norm = either(moves, move, stay)
            model_state = jax.tree.map(lambda new, old: jnp.where(moves, new, old), model_state, state.model_state)
        if verdict is not None and verdict.rate_multiplier is not None:
            opt_state = lower_rates(opt_state, verdict.rate_multiplier)
        may_stop = raises or guard is not None
        count = jnp.where(alive, state.step + 1, state.step) if may_stop else state.step + 1
        guard_state = state.guard if verdict is None else verdict.state
        new_state = TrainState(count, params, opt_state, state.key, model_state, guard_state)
        metrics: Metrics = {"loss": loss}
        if options.norms:
            metrics |= {"grad_norm": grad_norm, "update_norm": update_norm, "param_norm": plain_norm(params)}
        metrics |= _learning_rates(opt_state) | {"finite": finite}
        metrics |= {} if verdict is None else verdict.metrics
        return new_state, _merged(metrics if aux is None else metrics | {"aux": aux}, own), bad, alive

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
        loss, grads, own = options.gradient(state.params, batch, key)
        return loss, grads, None, None, own
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


def _merged(metrics: Metrics, own: Metrics) -> Metrics:
    taken = sorted(metrics.keys() & own.keys())
    if taken:
        raise ValueError(f"make_step: the metrics of gradient= have names that the step's own have: {taken}.")
    return metrics | own


def _learning_rates(opt_state: PyTree) -> Metrics:
    """The learning rate, or the last of several, each of which stands under its own name as well."""
    known = get_hyperparams(opt_state)
    found = {name: known[name] for name in known if name.split(".")[-1] == "learning_rate"}
    return found | {"learning_rate": [jnp.array(jnp.nan), *found.values()][-1]}
