"""What the benchmarks share: contestants timed by turns, ratios over sessions, the header and the tables.

Times on a shared machine wander, so contestants take turns, and only ratios within one run are compared. Where in
memory its arrays come to lie can make a contestant faster or slower by a tenth: a measurement has several sessions,
each with arrays made afresh, and in every other one in the opposite order.
"""

import argparse
import datetime
import gc
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

# Torch needs room on the same device. It holds for whatever is put there first after this import.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax

import jgd

SESSIONS = 4
#: Rounds of a session that are timed even where its time is up.
FEWEST_ROUNDS = 3

Times = dict[str, list[float]]


class Contestant(NamedTuple):
    """Something to be timed.

    Attributes:
        run: Does the work so many times over, and waits until it is done.
        calls: How many times make up one turn.
        steps: How many steps there are in one call; times are of one step.
    """

    run: Callable[[int], Any]
    calls: int = 1
    steps: int = 1


class Ratio(NamedTuple):
    """A geometric mean over sessions, with the smallest and the largest of them."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


class Budget:
    """The time that a script may take, shared out over the rows to come."""

    def __init__(self, seconds: float | None):
        self._end = float("inf") if seconds is None else time.perf_counter() + seconds

    def share(self, rows: int) -> float:
        """Seconds for the next of so many rows; zero or less where the time is up."""
        return (self._end - time.perf_counter()) / rows

    def over(self, rows: Sequence[tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], float]]:
        """Each row with its seconds; a line says which rows there was no time for."""
        for i, row in enumerate(rows):
            seconds = self.share(len(rows) - i)
            if seconds <= 0:
                print("\nNo time for: " + "; ".join(" ".join(late) for late in rows[i:]))
                return
            yield row, seconds


def alternate(contestants: Mapping[str, Contestant], rounds: int, seconds: float = float("inf")) -> Times:
    """Milliseconds of a step of every contestant in every round, by turns and in turning order.

    Args:
        contestants: By name; they are warmed up first.
        rounds: In how many rounds each of them runs.
        seconds: After so many no further round begins, once there are a few.
    """
    end = time.perf_counter() + seconds
    for contestant in contestants.values():
        for _ in range(2):  # the first compiles, where that has not been done
            contestant.run(1)
    times: Times = {name: [] for name in contestants}
    order = list(contestants)
    for i in range(rounds):
        if i >= FEWEST_ROUNDS and time.perf_counter() > end:
            break
        order = order[1:] + order[:1]
        for name in order:
            run, calls, steps = contestants[name]
            start = time.perf_counter()
            run(calls)
            times[name].append(1e3 * (time.perf_counter() - start) / (calls * steps))
    return times


def in_sessions(
    makers: Callable[[], Mapping[str, Callable[[], Contestant]]], rounds: int, seconds: float = float("inf")
) -> list[Times]:
    """The times of all sessions.

    Args:
        makers: Called once a session: what makes each contestant, with arrays of its own.
        rounds: In how many rounds each contestant runs, all sessions together.
        seconds: For all sessions together; see `alternate`.
    """
    sessions = []
    for session in range(SESSIONS):
        fresh = makers()
        order = list(fresh)[:: -1 if session % 2 else 1]
        made = {name: fresh[name]() for name in order}
        sessions.append(alternate({name: made[name] for name in fresh}, -(-rounds // SESSIONS), seconds / SESSIONS))
        del fresh, made
        gc.collect()  # these arrays, before the next are made
    return sessions


def medians(sessions: Sequence[Times]) -> dict[str, float]:
    """Each contestant's median over all rounds, in milliseconds."""
    return {name: statistics.median(ms for times in sessions for ms in times[name]) for name in sessions[0]}


def ratio(sessions: Sequence[Times], name: str, against: str, scale: float = 1.0) -> Ratio:
    """One contestant's time over another's, each session's medians compared; `scale` times that of the other."""
    found = [statistics.median(times[name]) / (scale * statistics.median(times[against])) for times in sessions]
    return Ratio(statistics.geometric_mean(found), min(found), max(found))


def has_torch() -> bool:
    """Whether torch is installed."""
    return importlib.util.find_spec("torch") is not None


def torch_device() -> str:
    """Where torch is to run: on a GPU if JAX does."""
    import torch

    return "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"


def header() -> str:
    """When, on what, and of which versions."""
    versions = [f"python {platform.python_version()}"]
    versions += [f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jaxlib", "optax")]
    versions += [f"jgd {jgd.__version__}"]
    if has_torch():
        import torch

        versions += [f"torch {torch.__version__} on {torch_device()} with {torch.get_num_threads()} threads"]
    device = jax.devices()[0].device_kind
    machine = f"{datetime.date.today()}, {device}, {os.cpu_count()} cores, {platform.machine()}"
    return f"{machine}; {', '.join(versions)}; float32"


def print_table(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    """A Markdown table, its columns those of all rows in the order in which they first appear."""
    if not rows:
        return
    columns = list(dict.fromkeys(column for row in rows for column in row))
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for row in rows:
        print("| " + " | ".join(row.get(column, "") for column in columns) + " |")


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """The options that every benchmark has."""
    parser.add_argument("--budget", type=float, help="seconds after which no further row begins; 540 suits a short run")
    parser.add_argument("--json", help="a file for all figures")


def pick(parser: argparse.ArgumentParser, kind: str, names: str, known: Sequence[str]) -> list[str]:
    """Comma-separated names, each of them known."""
    for name in names.split(","):
        if name not in known:
            parser.error(f"no {kind} {name!r}; there are {', '.join(known)}")
    return names.split(",")


def write_json(path: str | None, rows: Any) -> None:
    """All figures, for whoever wants to look further."""
    if path is not None:
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"header": header(), "rows": rows}, file, indent=1)
