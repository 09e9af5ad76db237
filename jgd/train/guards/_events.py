"""What happened in a step, in words: records for the log, and the errors that end a run."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jgd.core import PyTree, checked
from jgd.train.guards._finite import ALL_FINITE, NonFiniteError, SpikeError, leaf_name
from jgd.train.guards._guard import (
    LEVEL_SHIFT,
    LIMIT,
    LOSS_SPIKE,
    NONFINITE,
    NORM_SPIKE,
    OVERFLOW,
    RATE_LOWERED,
    STOPPED,
)

#: The kinds of records that `events_of` makes, and those of `Rollback`.
EVENT_KINDS = ("nonfinite", "overflow", "spike", "level_shift", "rate_lowered", "limit", "rollback")

Event = dict[str, Any]


@checked
def events_of(
    metrics: Mapping[str, PyTree],
    *,
    step: int,
    params: PyTree = None,
    batch: PyTree = None,
    bad_leaf: int | None = None,
) -> list[Event]:
    """The events of one step as records for a log, JSON as they are.

    Args:
        metrics: The metrics of one step, fetched or not. Of `scan_steps` take one entry of each.
        step: The step's number, `state.step` before it.
        params: The params, so that the record holds a leaf's path rather than its position.
        batch: The step's batch. Where it is a dict with an entry `"id"` or `"ids"`, the records hold these as `ids`.
        bad_leaf: The position of the leaf that is not finite, for a step without a guard, whose metrics do not hold it.

    Returns:
        A list of dicts, empty for a step to which nothing happened. Each holds `kind`, `step`, `action` (`"skip"`,
        `"stop"`) and, by kind:

        - `"nonfinite"`: `leaf` (or `"loss"`), `loss`, and with a guard `skips` and `consecutive_skips`;
        - `"overflow"`: `leaf`, and the `loss_scale` from here on;
        - `"spike"`, one for each number above its threshold: `number`, `value`, `threshold`;
        - `"rate_lowered"`: the `learning_rate` from here on, and `rate_factor`;
        - `"level_shift"`: the windows were emptied;
        - `"limit"`: `skips` and `consecutive_skips`, of which one has gone beyond its limit.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> guard, optimizer = jgd.Guard(max_skips=3), jgd.sgd(0.1)
        >>> step = jgd.make_step(lambda w, b: jnp.sum(w * b["x"]), optimizer, on_nonfinite="skip", guard=guard)
        >>> state, batch = jgd.TrainState.create(jnp.ones(2), optimizer, guard=guard), {"x": jnp.nan, "id": 7}
        >>> state, metrics = step(state, batch)
        >>> event = jgd.events_of(metrics, step=0, params=state.params, batch=batch)[0]
        >>> print(event["kind"], event["action"], event["leaf"], event["ids"])
        nonfinite skip the root [7]
    """
    if not {"event", "finite"} & metrics.keys():
        raise ValueError(f"events_of: expected the metrics of a step of jgd.make_step; got {', '.join(metrics)}.")
    if "event" not in metrics:
        return _without_guard(metrics, step, params, batch, bad_leaf)
    bits = int(metrics["event"])
    if bits == 0:
        return []
    number = {
        name: np.asarray(value).item() for name, value in metrics.items() if name != "aux" and np.ndim(value) == 0
    }
    place = {"step": int(step), "action": "stop" if bits & STOPPED else "skip"}
    ids = {} if (names := example_ids(batch)) is None else {"ids": names}
    leaf = {"leaf": _leaf(number["bad_leaf"], params)}
    counts = {name: number[name] for name in ("skips", "consecutive_skips")}
    events: list[Event] = []
    if bits & NONFINITE:
        events.append({"kind": "nonfinite"} | place | leaf | {"loss": number["loss"]} | counts | ids)
    if bits & OVERFLOW:
        events.append({"kind": "overflow"} | place | leaf | {"loss_scale": number["loss_scale"]} | ids)
    for bit, name in ((LOSS_SPIKE, "loss"), (NORM_SPIKE, "grad_norm")):
        if bits & bit:
            values = {"number": name, "value": number[name], "threshold": number[f"{name}_threshold"]}
            events.append({"kind": "spike"} | place | values | ids)
    if bits & RATE_LOWERED:
        rates = {name: number[name] for name in ("learning_rate", "rate_factor")}
        events.append({"kind": "rate_lowered"} | place | rates)
    if bits & LEVEL_SHIFT:
        events.append({"kind": "level_shift"} | place)
    if bits & LIMIT:
        events.append({"kind": "limit"} | place | leaf | counts | ids)
    return events


def _without_guard(
    metrics: Mapping[str, PyTree], step: int, params: PyTree, batch: PyTree, bad_leaf: int | None
) -> list[Event]:
    if bool(metrics["finite"]):
        return []
    leaf = {} if bad_leaf is None or int(bad_leaf) == ALL_FINITE else {"leaf": _leaf(int(bad_leaf), params)}
    ids = {} if (names := example_ids(batch)) is None else {"ids": names}
    return [{"kind": "nonfinite", "step": int(step)} | leaf | {"loss": float(metrics["loss"])} | ids]


def _leaf(position: int, params: PyTree) -> str:
    return f"leaf {position}" if params is None else leaf_name(position, params)


def example_ids(batch: PyTree) -> list[Any] | None:
    """The ids of a batch's examples: its entry `"id"` or `"ids"`, if it is a dict, also a padded one."""
    if hasattr(batch, "mask") and hasattr(batch, "batch"):
        ids = example_ids(batch.batch)
        return ids if ids is None else [name for name, real in zip(ids, np.asarray(batch.mask), strict=False) if real]
    if isinstance(batch, Mapping):
        for name in ("id", "ids"):
            if name in batch:
                return np.ravel(np.asarray(batch[name])).tolist()
    return None


def error_of_events(events: list[Event], state: PyTree) -> Exception | None:
    """The error that ends the run, where the step has stopped it.

    Args:
        events: Those of one step.
        state: The state from before it.
    """
    stopped = [event for event in events if event.get("action") == "stop"]
    for event in stopped:
        if event["kind"] == "nonfinite":
            over = any(other["kind"] == "limit" for other in events)
            return NonFiniteError(
                event["step"], event["leaf"], event["loss"], state, _limit_text(event) if over else ""
            )
    for event in stopped:
        if event["kind"] == "spike":
            return SpikeError(event["step"], event["number"], event["value"], event["threshold"], state)
    return None


def _limit_text(event: Event) -> str:
    return (
        " Nothing was updated. The guard allows no more: this is non-finite step"
        f" {event['consecutive_skips']} in a row, {event['skips']} in all (see max_consecutive_skips and max_skips)."
    )
