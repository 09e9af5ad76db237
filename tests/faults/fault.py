"""What a planted fault is."""

import dataclasses
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault: in `file`, `new` instead of `old`, which stands there exactly once.

    Attributes:
        name: What it is called in the table.
        file: From the repository's root.
        old: The text as it is.
        new: The text with the fault.
        first: Test files, or ids of tests in them, that are likely to find it, in the order to try them.
        why: What goes wrong for a user.
    """

    name: str
    file: str
    old: str
    new: str
    first: tuple[str, ...]
    why: str


def golden(*traces: str) -> tuple[str, ...]:
    """The comparisons with those golden traces."""
    return tuple(f"tests/test_golden.py::test_it_follows_its_authors_code[{trace}]" for trace in traces)


def stands(place: str) -> bool:
    """Whether the file, or the test in it, is still there."""
    file, _, test = place.partition("::")
    name = test.partition("[")[0].replace(".", "::").rpartition("::")[2]
    if not (ROOT / file).exists():
        return False
    text = (ROOT / file).read_text(encoding="utf-8")
    return not name or re.search(rf"(def|class) {re.escape(name)}\b", text) is not None
