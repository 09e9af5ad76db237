"""A training step: one compiled function over one pytree."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import Array, GradientTransformation, LossFn, PyTree, checked, is_traced
from jgd.train._state import TrainState
from jgd.train.checkpoints._paths import as_path
from jgd.train.debug._report import add_report
from jgd.train.guards._events import error_of_events, events_of
from jgd.train.guards._finite import ALL_FINITE, NonFiniteError, leaf_name
from jgd.train.guards._guard import STOPPED, Guard
from jgd.train.step._advance import Advance, Metrics, OnNonfinite, Options, make_advance
from jgd.train.step._loss_weight import LossWeight
from jgd.train.step._objective import GradientFn, checked_gradient
from jgd.train.step._same_optimizer import check_same_optimizer
from jgd.train.step._stacked import check_batch, ranks_of

RUNNING = np.array(True)  # NumPy's, so that importing this module starts no device


class Step:
    """What `make_step` returns: call it as `step(state, batch) -> (state, metrics)`.

    Attributes:
        advance: The pure function behind it, `advance(state, batch, running) -> (state, metrics, bad_leaf, running)`,
            for `scan_steps` and `fit`. `bad_leaf` says which leaf was not finite. Where a step has ended the run,
            `running` is false from there on, and the state stays as it is.
        compiled: `advance`, compiled, donating if the step does; `traceable` is the same without donation.
        options: What `make_step` was asked for.
        donate: Whether the memory of the state that goes in is reused.
        debug: The folder for bundles of failing steps, if there is one.
    """

    def __init__(self, optimizer: GradientTransformation, options: Options, donate: bool, debug: Path | None):
        self.options, self.donate, self.debug = options, donate, debug
        self.optimizer = optimizer
        self.advance = make_advance(optimizer, options)
        self.known: set[tuple[int, ...]] = set()  # the ranks of batches so far, for `scan_steps` to compare with
        advance = _noting(self.known, self.advance)
        self.compiled = jax.jit(advance, donate_argnums=(0,) if donate else ())
        self.traceable = jax.jit(advance)
        self._waits = options.guard is not None or options.on_nonfinite == "raise"
        self._running: Any = None

    @property
    def on_nonfinite(self) -> OnNonfinite:
        """What is done about a loss or gradient that is not finite."""
        return self.options.on_nonfinite

    @property
    def norms(self) -> bool:
        """Whether the metrics hold the norms of gradients, updates and params."""
        return self.options.norms

    @property
    def guard(self) -> Guard | None:
        """What it does about NaN, overflow and spikes."""
        return self.options.guard

    def __call__(self, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        check_state(state, self.optimizer)
        # While it is differentiated or mapped over, others hold on to what stands in the state.
        if any(map(is_traced, jax.tree.leaves(state))):
            state, metrics, _, _ = self.traceable(state, batch, RUNNING)
            return state, metrics
        if self._running is None:  # on the device, so that it need not be brought there at each call
            with jax.ensure_compile_time_eval():
                self._running = jnp.asarray(RUNNING)
        try:
            state, metrics, bad_leaf, _ = self.compiled(state, batch, self._running)
        except (TypeError, OverflowError):  # from JAX, where a leaf is no array
            check_batch("step", batch)
            raise
        if self._waits and not is_traced(bad_leaf):
            # Waits for the device; `int(...)` would take twice as long as `np.asarray(...).item()`.
            outcome = np.asarray(self.outcome(metrics, bad_leaf)).item()
            if self.has_stopped(outcome):
                error = self.error_of(metrics, int(bad_leaf), state, batch)
                if error is not None:
                    raise error
        return state, metrics

    def outcome(self, metrics: Mapping[str, PyTree], bad_leaf: Array | int) -> Array | int:
        """The outcome of a step, or of several: the bits of the guard's `event`, or without a guard `bad_leaf`."""
        return bad_leaf if self.options.guard is None else metrics["event"]

    def has_stopped(self, outcome: int) -> bool:
        """Whether a step of this `outcome` has ended the run."""
        if self.options.guard is None:
            return self.options.on_nonfinite == "raise" and outcome != ALL_FINITE
        return bool(outcome & STOPPED)

    def error_of(
        self, metrics: Mapping[str, PyTree], bad_leaf: int, state: TrainState, batch: PyTree = None
    ) -> Exception | None:
        """The error of a step that has ended the run, None for any other step.

        Args:
            metrics: Those of the step, fetched or not.
            bad_leaf: What `advance` returned under this name.
            state: The state after the step, or after any that followed: from the step that ended the run on it has
                stayed as it was before.
            batch: The step's batch; with `debug` it goes into the bundle.
        """
        if not self.has_stopped(int(self.outcome(metrics, bad_leaf))):
            return None
        number = int(state.step)
        if self.options.guard is None:
            error: Exception | None = NonFiniteError(
                number, leaf_name(bad_leaf, state.params), float(metrics["loss"]), state
            )
        else:
            error = error_of_events(events_of(metrics, step=number, params=state.params, batch=batch), state)
        if self.debug is not None and batch is not None and isinstance(error, NonFiniteError):
            add_report(self, error, state, batch, self.debug)
        return error


@checked
def make_step(
    loss_fn: LossFn,
    optimizer: GradientTransformation,
    *,
    has_aux: bool = False,
    accumulate: int = 1,
    on_nonfinite: OnNonfinite = "raise",
    donate: bool = True,
    norms: bool = True,
    guard: Guard | None = None,
    gradient: Callable[[LossFn], GradientFn] | None = None,
    loss_weight: LossWeight = None,
    debug: bool | str | Path = False,
) -> Step:
    """Compiles a loss and an optimizer into a training step.

    Args:
        loss_fn: `loss_fn(params, batch) -> loss`, a scalar. Where the state holds a key it is called with one more
            argument, the key of this step; where it holds a model state it is called as
            `loss_fn(params, model_state, batch[, key])` and returns `(loss, (new_model_state, aux))`.
        optimizer: Any optimizer of jgd or optax, the one that `TrainState.create` is given. It is also given
            `value=loss`, `grad=grads`, and the loss of this batch as a function of the params (`value_fn`, `obj_fn`,
            and its gradient `grad_fn`), for those that read them: Polyak's steps, L-BFGS, Sophia, SAM.
        has_aux: Whether `loss_fn` returns `(loss, aux)`.
        accumulate: In how many parts a batch is run; it must divide the batch. The optimizer is called once, with the
            mean of the gradients, taken in float32 or wider: for a loss that is a mean over the examples, what the
            whole batch gives; see `loss_weight` for one with a mask. See `jgd.gradients.accumulate_micro_batches`.
        on_nonfinite: What is done when a loss or gradient is NaN or infinite. `"raise"`: the step raises and nothing
            of the state has moved. `"skip"`: nothing of the state moves but `step`. `"ignore"`: the update is
            made all the same. `"raise"` waits for the device after each call; `fit` and `scan_steps`
            raise as well, but look only now and then. Where the step is itself traced, under `jax.vmap`, `jax.jit`,
            `jax.grad` or a scan of yours, nothing can be raised: a bad step then moves nothing, `step` included, and
            `metrics["finite"]` says so.
        donate: Whether the step reuses the memory of the state that it is given. That state is then gone: keep the one
            that is returned.
        norms: Whether the metrics hold the three norms. Each of them reads all gradients, moments or params once more;
            without them the update goes into the params in the rule's own pass over memory (`jgd.update_params`).
        guard: Limits to skipping, loss scaling for float16, detection of spikes: a `jgd.Guard`. Give the same to
            `TrainState.create`. A step with a guard waits for the device after each call.
        gradient: What makes the gradients instead of `jax.value_and_grad`: `gradient(loss_fn)` returns
            `grad_fn(params, batch, key) -> (loss, grads, metrics)`, where `key` is None if the state has none, and the
            metrics, a dict, join those of the step. The gradients are taken as they are: for complex params they are to
            be the conjugate of what `jax.grad` returns. For losses without model state and aux.
        loss_weight: With `accumulate`: what a part of a batch counts for. For a loss that is a mean over what a mask
            lets through, it is how much that is: `loss_weight=lambda part: jnp.sum(part["mask"])`, or `"examples"`
            for the real examples of a `jgd.gradients.Padded` batch. `"parts"`, and None, for all alike; of a `Padded`
            batch one of them must be said. A part of weight 0 leaves no trace.
        debug: Whether a step that raises `NonFiniteError` runs its batch once more, operation by operation, to find
            the first one that is not finite, and writes a bundle that reproduces it; see `jgd.debug_step`. A folder
            for the bundles, or True for `debug`. It costs nothing until a step fails.

    Returns:
        `step(state, batch) -> (state, metrics)`, compiled at its first call. `metrics` is a dict of arrays on the
        device: `loss`, `grad_norm`, `update_norm` (0 where nothing moved), `param_norm` (after the step),
        `learning_rate` (NaN where the optimizer has none in its state), `finite`, and `aux` where there is one. Where
        groups or parts of a chain have several learning rates, each stands under its name in `jgd.get_hyperparams`,
        such as `*kernel.learning_rate`, and `learning_rate` is the last of them. With `accumulate` also
        `micro_grad_norm`, the root of the mean squared norm of the parts' gradients, from which `jgd.noise_scale` tells
        how noisy they are.

    Raises:
        ValueError, TypeError: When made: an invalid option. When first called: a loss that is not a scalar, that
            returns aux without `has_aux`, a batch that `accumulate` does not divide, a state that was made for another
            rule; see the message.
        UserWarning: When first called: the state was made for an optimizer with other numbers. Those that
            `jgd.get_hyperparams` shows are taken from the state.
        NonFiniteError: A `FloatingPointError`; see `on_nonfinite`. It names the leaf and the step.
        SpikeError: The guard found a spike and asks for a rollback.
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
    if accumulate < 1:
        raise ValueError(f"make_step: accumulate must be a whole number of at least 1; got {accumulate}.")
    _check_guard(guard, on_nonfinite)
    grad_fn = None
    if gradient is not None:
        refused = {"accumulate > 1": accumulate > 1, "has_aux=True": has_aux, "a loss scale": _scales(guard)}
        for name in (name for name, is_asked in refused.items() if is_asked):
            raise ValueError(f"make_step: gradient= does not go with {name}.")
        grad_fn = checked_gradient(gradient, loss_fn)
    options = Options(loss_fn, has_aux, accumulate, on_nonfinite, norms, guard, grad_fn, loss_weight)
    folder = None if debug is False else as_path("make_step", "debug", "debug" if debug is True else debug)
    return Step(optimizer, options, donate, folder)


def _noting(known: set[tuple[int, ...]], advance: Advance) -> Advance:
    """`advance`, which notes the ranks of the batches that it is traced with; the program stays the same."""

    @functools.wraps(advance)
    def noted(state: TrainState, batch: PyTree, running: Any) -> Any:
        known.add(ranks_of(batch))
        return advance(state, batch, running)

    return noted


def _scales(guard: Guard | None) -> bool:
    return guard is not None and guard.loss_scale is not None


def _check_guard(guard: Any, on_nonfinite: OnNonfinite) -> None:
    if guard is None:
        return
    if on_nonfinite == "ignore":
        raise ValueError("make_step: a guard never lets a bad update through; expected on_nonfinite='raise' or 'skip'.")
    if guard.has_limits and on_nonfinite != "skip":
        raise ValueError(
            "make_step: the guard limits how many steps are skipped (max_consecutive_skips, max_skips), and"
            f" on_nonfinite={on_nonfinite!r} skips none; expected on_nonfinite='skip'."
        )


def running_beside(state: TrainState) -> Any:
    """`RUNNING` for the first call of `advance`, placed as the state is: what that returns then compiles nothing."""
    placed = isinstance(state.step, jax.Array) and not is_traced(state.step) and state.step.committed
    return jax.device_put(RUNNING, state.step.sharding) if placed else RUNNING


def check_state(state: TrainState, optimizer: GradientTransformation) -> None:
    """Refuses anything but a training state, one whose memory an earlier step has reused, and one of another optimizer.

    Raises:
        TypeError: It is no `TrainState`.
        RuntimeError: It was donated.
        ValueError: It was made for another optimizer.
    """
    if not isinstance(state, TrainState):
        raise TypeError(f"expected a jgd.TrainState, made by TrainState.create; got a {type(state).__name__}.")
    if isinstance(state.step, jax.Array) and not is_traced(state.step) and state.step.is_deleted():
        raise RuntimeError(
            "this TrainState was given to an earlier step, which reused its memory (donate=True). Go on with the state"
            " that the step returned, `state, metrics = step(state, batch)`, or keep the old one valid with"
            " make_step(..., donate=False)."
        )
    check_same_optimizer(state.step, optimizer)
