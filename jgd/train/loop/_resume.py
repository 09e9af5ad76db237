"""What differs between the state passed to `fit` and that of its checkpoint, and which of the two is used."""

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgd.core import GradientTransformation, PyTree, get_hyperparams, set_hyperparams
from jgd.train._state import TrainState
from jgd.train.checkpoints._folder import Restored
from jgd.train.checkpoints._leaves import named_leaves
from jgd.train.guards._rates import has_schedules

Resume = bool | Literal["state", "hyperparams"]

_GUARD = "guard."


class Difference(NamedTuple):
    """A number that differs between the state passed to `fit` and the checkpoint."""

    name: str
    passed: Any
    saved: Any


class Start(NamedTuple):
    """What a run starts with.

    Attributes:
        state: The state.
        numbers: `numbers_of` it, as far as a person chose them.
        warnings: What there is to say of it.
    """

    state: TrainState
    numbers: dict[str, Any]
    warnings: list[str]


def start_of(passed: TrainState, restored: Restored | None, resume: Resume) -> Start:
    """The state that a run starts with, where there may be a checkpoint."""
    if restored is None:
        return Start(passed, numbers_of(passed), [])
    saved, before = restored.state, restored.record["extra"].get("numbers", {})
    unequal = differences(passed, saved, before)
    if resume == "hyperparams":
        return Start(with_settings_of(passed, saved), numbers_of(passed), describe(unequal, uses_passed=True))
    return Start(saved, before, describe(unequal, uses_passed=False))


def check_resume(resume: Resume) -> None:
    """Refuses anything but a way to resume.

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(resume, bool) and not (isinstance(resume, str) and resume in ("state", "hyperparams")):
        raise ValueError(f"fit: resume must be True, False, 'state' or 'hyperparams'; got {resume!r}.")


def numbers_of(state: TrainState) -> dict[str, Any]:
    """The settings within a state, as JSON holds them: hyperparameters, and those of a guard.

    A number that follows a schedule is not among them: the schedule is code, and that of the step counts.
    """
    return {name: np.asarray(value).tolist() for name, value in _settings(state).items()}


def differences(passed: TrainState, saved: TrainState, before: Mapping[str, Any]) -> list[Difference]:
    """The settings that a user has changed since the run was saved.

    Args:
        passed: The state that `fit` was given.
        saved: That of the checkpoint.
        before: `numbers_of` the state with which the run began. What the run itself has changed since, such as a rate
            that a rollback lowered, is no difference.
    """
    ours, theirs = numbers_of(passed), numbers_of(saved)
    unequal = [
        Difference(name, value, theirs[name])
        for name, value in ours.items()
        if name in theirs and not _same(value, theirs[name]) and not _same(value, before.get(name))
    ]
    keys = [
        None if state.key is None else np.asarray(jax.random.key_data(_typed(state.key))) for state in (passed, saved)
    ]
    if keys[0] is not None and not _same(*(key.tolist() for key in keys)):  # type: ignore[union-attr]
        unequal.append(Difference("key", *(key.tolist() for key in keys)))  # type: ignore[union-attr]
    if int(passed.step) not in (0, int(saved.step)):
        unequal.append(Difference("step", int(passed.step), int(saved.step)))
    return unequal


def with_settings_of(passed: TrainState, saved: TrainState) -> TrainState:
    """The saved state with the settings of the one passed."""
    ours, theirs = _settings(passed), _settings(saved)
    changed = {name: value for name, value in ours.items() if name in theirs and not _same_array(value, theirs[name])}
    hyperparams = {name: value for name, value in changed.items() if not name.startswith(_GUARD)}
    state = set_hyperparams(saved, **hyperparams) if hyperparams else saved
    if saved.guard is None or passed.guard is None:
        return state
    new = named_leaves(passed.guard)
    leaves = [
        jnp.copy(new[name]) if _is_setting(name) and name in new else leaf
        for name, leaf in named_leaves(saved.guard).items()
    ]
    return state._replace(guard=jax.tree.unflatten(jax.tree.structure(saved.guard), leaves))


def describe(unequal: list[Difference], uses_passed: bool) -> list[str]:
    """A sentence for each difference: what it is, and which of the two is used."""
    settings = [difference for difference in unequal if difference.name not in ("key", "step")]
    parts = []
    if settings and uses_passed:
        listed = ", ".join(f"{name} {_short(passed)}, was {_short(saved)}" for name, passed, saved in settings)
        parts.append(f"hyperparameters are those of the state given: {listed}.")
    if settings and not uses_passed:
        listed = ", ".join(f"{name} {_short(saved)}, not {_short(passed)}" for name, passed, saved in settings)
        parts.append(
            f"the checkpoint's hyperparameters are used, not those of the state given: {listed}."
            " resume='hyperparams' takes those given."
        )
    for name, passed, saved in unequal:
        if name == "key":
            parts.append("the checkpoint's random key is used, not that of the state given.")
        if name == "step":
            parts.append(
                f"the state given, of step {passed}, is not used, since the checkpoint is of step {saved}:"
                " resume=False goes on from the state given."
            )
    return parts


def optimizer_text(optimizer: GradientTransformation) -> str:
    """An optimizer as text without its numbers, which are in the state; empty where the text says nothing."""
    text = re.sub(r"=(-?[\d.]+(e[-+]?\d+)?|<schedule>)", "=...", repr(optimizer))
    return "" if "<" in text else text


def describe_optimizers(now: str, before: str) -> list[str]:
    """A sentence where a run goes on with another optimizer whose state fits."""
    if not now or not before or now == before:
        return []
    return [f"the optimizer is {now}, and was {before}: it goes on with the state that the other one has left."]


def _settings(state: TrainState) -> dict[str, Any]:
    hyperparams = get_hyperparams(_without_schedules(state))
    numbers = {
        name: value
        for name, value in hyperparams.items()
        if f"{name}_scale" not in hyperparams and _is_real_number(value)
    }
    guard: PyTree = state.guard
    return numbers | {f"{_GUARD}{name}": leaf for name, leaf in named_leaves(guard).items() if _is_setting(name)}


def _without_schedules(state: TrainState) -> TrainState:
    """The state without the numbers that `optax.inject_hyperparams` takes from schedules."""

    def plain(node: Any) -> Any:
        if not has_schedules(node):
            return node
        scheduled = dict.fromkeys(node.hyperparams_states.keys() & node.hyperparams.keys())
        return node._replace(hyperparams=dict(node.hyperparams) | scheduled)

    return state._replace(opt_state=jax.tree.map(plain, state.opt_state, is_leaf=has_schedules))


def _is_setting(name: str) -> bool:
    return "settings" in name.split(".")


def _is_real_number(value: Any) -> bool:
    return (
        value is not None
        and jnp.issubdtype(jnp.result_type(value), jnp.number)
        and not jnp.issubdtype(jnp.result_type(value), jnp.complexfloating)
    )


def _typed(key: Any) -> Any:
    return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)


def _same(a: Any, b: Any) -> bool:
    return b is not None and _same_array(a, b)


def _same_array(a: Any, b: Any) -> bool:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=True)


def _short(value: Any) -> str:
    array = np.asarray(value)
    return f"{array.item():.6g}" if array.ndim == 0 else f"an array of shape {array.shape}"
