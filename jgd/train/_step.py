"""A training step: one compiled function over one pytree."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jgd.core import Array, PyTree, apply_updates, get_hyperparams, global_norm, is_traced, update_params
from jgd.train._finite import ALL_FINITE, NonFiniteError, either, first_bad, leaf_name
from jgd.train._objective import LossFn, evaluate, loss_of_params
from jgd.train._state import TrainState

OnNonfinite = Literal["raise", "skip", "ignore"]
Metrics = dict[str, Any]

ALIVE = np.array(True)  # NumPy's, so that importing this module starts no device


class Step:
    """What `make_step` returns: call it as `step(state, batch) -> (state, metrics)`.

    Attributes:
        advance: The pure function behind it, `advance(state, batch, alive) -> (state, metrics, bad, alive)`, for
            `scan_steps` and `fit`. `bad` says which leaf was not finite; where that is to raise,
            `alive` turns false and leaves the state as it is from there on.
        compiled: `advance`, compiled, donating if the step does; `traceable` is the same without donation.
        on_nonfinite: What is done about a loss or gradient that is not finite.
        donate: Whether the memory of the state that goes in is reused.
        norms: Whether the metrics hold the norms of gradients, updates and params.
    """

    def __init__(
        self,
        advance: Callable[[TrainState, PyTree, Array], tuple[TrainState, Metrics, Array, Array]],
        on_nonfinite: OnNonfinite,
        donate: bool,
        norms: bool,
    ):
        self.advance = advance
        self.on_nonfinite = on_nonfinite
        self.donate = donate
        self.norms = norms
        self.compiled = jax.jit(advance, donate_argnums=(0,) if donate else ())
        self.traceable = jax.jit(advance)

    def __call__(self, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        check_state(state)
        # While it is differentiated or mapped over, others hold on to what stands in the state.
        run = self.traceable if any(map(is_traced, jax.tree.leaves(state))) else self.compiled
        state, metrics, bad, _ = run(state, batch, ALIVE)
        if self.on_nonfinite == "raise" and not is_traced(bad):
            raise_if_bad(bad, metrics["loss"], state)
        return state, metrics


def make_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    has_aux: bool = False,
    accumulate: int = 1,
    on_nonfinite: OnNonfinite = "raise",
    donate: bool = True,
    norms: bool = True,
) -> Step:
    """Compiles a loss and an optimizer into a training step.

    Args:
        loss_fn: `loss_fn(params, batch) -> loss`, a scalar. Where the state holds a key it is called with one more
            argument, the key of this step; where it holds a model state it is called as
            `loss_fn(params, model_state, batch[, key])` and returns `(loss, (new_model_state, aux))`.
        optimizer: Any optimizer of jgd or optax. It is also given `value=loss`, `grad=grads`, and the loss of this
            batch as a function of the params (`value_fn`, `obj_fn`, and its gradient `grad_fn`), for those that read
            them: Polyak's steps, L-BFGS, Sophia, SAM.
        has_aux: Whether `loss_fn` returns `(loss, aux)`.
        accumulate: In how many parts a batch is run; it must divide the batch. The optimizer is called once, with the
            mean of the gradients, taken in float32 or wider. See `jgd.gradients.accumulate_micro_batches`.
        on_nonfinite: What is done when a loss or gradient is NaN or infinite. `"raise"`: the step raises and nothing
            of the state has moved. `"skip"`: nothing of the state moves but `step`. `"ignore"`: the update is
            made all the same. `"raise"` waits for the device after each call; `fit` and `scan_steps`
            raise as well, but look only now and then.
        donate: Whether the step reuses the memory of the state that it is given. That state is then gone: keep the one
            that is returned.
        norms: Whether the metrics hold the three norms. Each of them reads all gradients, moments or params once more;
            without them the update goes into the params in the rule's own pass over memory (`jgd.update_params`).

    Returns:
        `step(state, batch) -> (state, metrics)`, compiled at its first call. `metrics` is a dict of arrays on the
        device: `loss`, `grad_norm`, `update_norm` (0 where nothing moved), `param_norm` (after the step),
        `learning_rate` (NaN where the optimizer has none in its state), `finite`, and `aux` where there is one.

    Raises:
        ValueError, TypeError: When made: an option that cannot be. When first called: a loss that is no scalar, that
            returns aux unasked, a batch that `accumulate` does not divide; see the message.
        NonFiniteError: A `FloatingPointError`; see `on_nonfinite`. It names the leaf and the step.
        RuntimeError: The state given was donated to an earlier step.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> def loss_fn(params, batch):
        ...     return jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)
        >>> optimizer = jgd.sgd(0.1)
        >>> step = jgd.make_step(loss_fn, optimizer)
        >>> state = jgd.TrainState.create({"w": jnp.zeros(2)}, optimizer)
        >>> batch = {"x": jnp.eye(2), "y": jnp.array([1.0, -1.0])}
        >>> for _ in range(100):
        ...     state, metrics = step(state, batch)
        >>> print(state.params["w"].round(2), metrics["loss"].round(4))
        [ 1. -1.] 0.0
    """
    if on_nonfinite not in get_args(OnNonfinite):
        known = ", ".join(repr(name) for name in get_args(OnNonfinite))
        raise ValueError(f"make_step: on_nonfinite must be one of {known}; got {on_nonfinite!r}.")
    if isinstance(accumulate, bool) or not isinstance(accumulate, int) or accumulate < 1:
        raise ValueError(f"make_step: accumulate must be a whole number of at least 1; got {accumulate!r}.")
    if not callable(loss_fn):
        raise TypeError(f"make_step: loss_fn must be a function; got a {type(loss_fn).__name__}.")
    transform = optax.with_extra_args_support(optimizer)

    def advance(state: TrainState, batch: PyTree, alive: Array) -> tuple[TrainState, Metrics, Array, Array]:
        key = None if state.key is None else jax.random.fold_in(state.key, state.step)
        loss, grads, model_state, aux = evaluate(
            loss_fn, state.params, state.model_state, batch, key, has_aux=has_aux, accumulate=accumulate
        )
        grad_norm = global_norm(grads)
        unmoved = jnp.zeros_like(grad_norm)
        objective = loss_of_params(loss_fn, state.model_state, batch, key, has_aux=has_aux)
        again = {
            "value": loss,
            "grad": grads,
            "value_fn": objective,
            "obj_fn": objective,
            "grad_fn": lambda params, _: jax.grad(objective)(params),
        }

        def move() -> tuple[PyTree, PyTree, Array]:
            if not norms:
                return *update_params(optimizer, grads, state.opt_state, state.params, **again), unmoved
            updates, opt_state = transform.update(grads, state.opt_state, state.params, **again)
            return apply_updates(state.params, updates), opt_state, global_norm(updates).astype(unmoved.dtype)

        def stay() -> tuple[PyTree, PyTree, Array]:
            return state.params, state.opt_state, unmoved

        bad = first_bad(loss, grads)
        finite = bad == ALL_FINITE
        alive = alive & finite if on_nonfinite == "raise" else alive
        if on_nonfinite == "ignore":
            params, opt_state, update_norm = move()
        else:
            moves = finite if on_nonfinite == "skip" else alive
            params, opt_state, update_norm = either(moves, move, stay)
            model_state = jax.tree.map(lambda new, old: jnp.where(moves, new, old), model_state, state.model_state)
        count = jnp.where(alive, state.step + 1, state.step) if on_nonfinite == "raise" else state.step + 1
        new_state = TrainState(count, params, opt_state, state.key, model_state)
        metrics: Metrics = {"loss": loss}
        if norms:
            metrics |= {"grad_norm": grad_norm, "update_norm": update_norm, "param_norm": global_norm(params)}
        metrics |= {"learning_rate": _learning_rate(opt_state), "finite": finite}
        return new_state, metrics if aux is None else metrics | {"aux": aux}, bad, alive

    return Step(advance, on_nonfinite, donate, norms)


def _learning_rate(opt_state: PyTree) -> Array:
    found = [value for name, value in get_hyperparams(opt_state).items() if name.split(".")[-1] == "learning_rate"]
    return found[-1] if found else jnp.array(jnp.nan)


def scan_steps(step: Step) -> Callable[[TrainState, PyTree], tuple[TrainState, Metrics]]:
    """Many steps as one compiled program: no Python and no dispatch between them.

    Args:
        step: What `make_step` returned.

    Returns:
        `run(state, batches) -> (state, metrics)`, where every leaf of `batches` has one more axis in front, the
        steps, and so has every leaf of `metrics`. It donates as `step` does. The result equals that of as many
        calls of `step`. With `on_nonfinite="raise"` the steps after a bad one leave the state as it is, and the
        error is raised when the program ends.

    Raises:
        TypeError: `step` was not made by `make_step`.
        ValueError: The leaves of `batches` do not agree in how many steps they hold, or hold none.
        NonFiniteError: As for `make_step`.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.sgd(0.1)
        >>> step = jgd.make_step(lambda w, batch: jnp.mean((w - batch) ** 2), optimizer)
        >>> run = jgd.scan_steps(step)
        >>> state, metrics = run(jgd.TrainState.create(jnp.array(5.0), optimizer), jnp.full((50, 8), 2.0))
        >>> print(state.step, metrics["loss"].shape, state.params.round(3))
        50 (50,) 2.0
    """
    if not isinstance(step, Step):
        raise TypeError(f"scan_steps: expected the step that make_step returned; got a {type(step).__name__}.")

    def scan(state: TrainState, batches: PyTree) -> tuple[TrainState, Metrics, Array]:
        def body(carry: tuple[TrainState, Array], batch: PyTree) -> tuple[tuple[TrainState, Array], Any]:
            state, alive = carry
            state, metrics, bad, alive = step.advance(state, batch, alive)
            return (state, alive), (metrics, bad)

        (state, _), (metrics, bad) = jax.lax.scan(body, (state, jnp.asarray(ALIVE)), batches)
        return state, metrics, bad

    compiled = jax.jit(scan, donate_argnums=(0,) if step.donate else ())
    traceable = jax.jit(scan)

    def run(state: TrainState, batches: PyTree) -> tuple[TrainState, Metrics]:
        check_state(state)
        _check_batches(batches)
        go = traceable if any(map(is_traced, jax.tree.leaves(state))) else compiled
        state, metrics, bad = go(state, batches)
        if step.on_nonfinite == "raise" and not is_traced(bad):
            found = np.flatnonzero(np.asarray(bad) != ALL_FINITE)
            if found.size:
                raise_if_bad(bad[found[0]], metrics["loss"][found[0]], state)
        return state, metrics

    return run


def _check_batches(batches: PyTree) -> None:
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batches)}
    if len(lengths) != 1 or () in lengths:
        shapes = sorted({str(jnp.shape(leaf)) for leaf in jax.tree.leaves(batches)})
        raise ValueError(
            f"scan_steps: every leaf of batches must have the steps as its first axis; got shapes {', '.join(shapes)}."
        )
    if lengths == {(0,)}:
        raise ValueError("scan_steps: batches holds no steps; expected at least one.")


def check_state(state: Any) -> None:
    """Refuses what is no training state, and one whose memory an earlier step has reused.

    Raises:
        TypeError: It is no `TrainState`.
        RuntimeError: It was donated.
    """
    if not isinstance(state, TrainState):
        raise TypeError(f"expected a jgd.TrainState, made by TrainState.create; got a {type(state).__name__}.")
    if isinstance(state.step, jax.Array) and not is_traced(state.step) and state.step.is_deleted():
        raise RuntimeError(
            "this TrainState was given to an earlier step, which reused its memory (donate=True). Go on with the state"
            " that the step returned, `state, metrics = step(state, batch)`, or keep the old one valid with"
            " make_step(..., donate=False)."
        )


def raise_if_bad(bad: Array, loss: Array, state: TrainState) -> None:
    """Waits for one step's report, and raises if a loss or gradient was not finite.

    Raises:
        NonFiniteError: It was not.
    """
    position = int(bad)
    if position != ALL_FINITE:
        raise NonFiniteError(int(state.step), leaf_name(position, state.params), float(loss), state)
