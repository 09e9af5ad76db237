"""What a planted fault is."""

import dataclasses


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
